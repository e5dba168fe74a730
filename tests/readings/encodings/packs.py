"""CBOR for tests, written by the rules of RFC 8949, and the readings of a body."""

import struct
from decimal import Decimal
from typing import Any

from readings.document import decode_document
from readings.encodings.encoder import DecodingEncoder
from readings.encodings.sent import Decode
from readings.reading import Defaults
from tests.readings.cases import NOW

LABELS = {
    "bver": -1,
    "bn": -2,
    "bt": -3,
    "bu": -4,
    "bv": -5,
    "bs": -6,
    "n": 0,
    "u": 1,
    "v": 2,
    "vs": 3,
    "vb": 4,
    "s": 5,
    "t": 6,
    "ut": 7,
    "vd": 8,
}


def head(major: int, argument: int) -> bytes:
    """Return the shortest head of a data item."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size, "big")
    return bytes([major << 5 | 27]) + argument.to_bytes(8, "big")


def cbor(value: Any) -> bytes:
    """Return a value in CBOR: floats in 64 bits, `Decimal` as a decimal fraction."""
    match value:
        case None | bool():
            encoded = {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
        case int():
            encoded = head(0, value) if value >= 0 else head(1, -1 - value)
        case float():
            encoded = b"\xfb" + struct.pack(">d", value)
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            mantissa = int("".join(map(str, digits))) * (-1 if sign else 1)
            encoded = b"\xc4\x82" + cbor(exponent) + cbor(mantissa)
        case bytes():
            encoded = head(2, len(value)) + value
        case str():
            encoded = head(3, len(value.encode())) + value.encode()
        case list():
            encoded = head(4, len(value)) + b"".join(map(cbor, value))
        case _:
            encoded = head(5, len(value)) + b"".join(cbor(key) + cbor(value[key]) for key in value)
    return encoded


def packed(records: list[dict[str, Any]]) -> bytes:
    """Return a SenML pack in CBOR, with the integer labels."""
    return cbor([{LABELS.get(label, label): record[label] for label in record} for record in records])


def taken(decode: Decode, body: bytes) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """Return what is stored of a body that arrives at NOW, and index and code of what is rejected."""
    event = DecodingEncoder("o", "d", Defaults(), None, decode).encode_many(body, NOW)
    assert all(rejection.detail for rejection in event.rejected)
    documents = [decode_document(document) for document in event.documents]
    return documents, [(rejection.index, rejection.code) for rejection in event.rejected]


def stored(decode: Decode, body: bytes) -> list[tuple[str, Any, int, int]]:
    """Return sensorType, value, ts and seq of each reading of a body of which nothing is rejected."""
    documents, rejected = taken(decode, body)
    assert rejected == []
    return [
        (document["_id"]["sensorType"], document["value"], int(document["_id"]["ts"]), document["_id"]["seq"])
        for document in documents
    ]
