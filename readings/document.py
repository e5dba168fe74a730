"""A reading as MongoDB stores it: one BSON document, encoded once by the gateway, then carried and stored as bytes.

The document starts with `_id`, whose last two elements, `ts` and `seq`, have a fixed size. So the bytes in front of
them identify the series, and a worker that has seen a series once recognizes it without decoding.
"""

import struct
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import bson
import msgspec
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import InvalidBSON

from readings.keys import Position, reading_key
from readings.place import Place
from readings.reading import ATTRIBUTES, Reading

LENGTH: Final = struct.Struct("<i")
_INT64: Final = struct.Struct("<q")
# The start of a document: its length, the type and name of `_id`, the length of `_id`.
_BEGIN: Final = struct.Struct("<i5si")
# `ts` and `seq`, each with its type and name.
_TS_SEQ: Final = struct.Struct("<4sq5sq")
# The type and name of `receivedAt`, and its milliseconds.
_RECEIVED_AT: Final = struct.Struct("<12sq")
# The offset of `_id`'s own length: behind the document's length, the type and the name `_id\0`.
ID_AT: Final = 9
_ID_HEAD: Final = b"\x03_id\x00"
TS_HEAD: Final = b"\x09ts\x00"
VALUE_NAME: Final = b"value\x00"
RECEIVED_AT_HEAD: Final = b"\x09receivedAt\x00"
# `ts` (1 + 3 + 8 bytes), `seq` (1 + 4 + 8 bytes) and the closing zero of `_id`.
TS_SEQ_BYTES: Final = 12 + 13 + 1
_SERIES_AT: Final = _BEGIN.size
# Bytes of a value by its BSON type: float, boolean, int32, int64. A text (0x02) gives its length.
_VALUE_BYTES = {0x01: 8, 0x08: 1, 0x10: 4, 0x12: 8}
_TEXT: Final = 0x02
AS_MILLISECONDS: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)


class DocumentError(Exception):
    """The bytes are not a reading's document."""


def encode_document(owner: str, device: str, reading: Reading) -> bytes:
    """Return the reading as it will be stored under `owner` and `device`."""
    document: dict[str, Any] = {
        "_id": reading_key(owner, device, reading.sensor_type, reading.ts_ms, reading.seq),
        "value": reading.value,
        "receivedAt": DatetimeMS(reading.received_ms),
    }
    for name in ATTRIBUTES:
        if (attribute := getattr(reading, name)) is not None:
            document[name] = msgspec.to_builtins(attribute) if type(attribute) is Place else attribute
    return bson.encode(document)


def split_documents(body: bytes) -> list[bytes]:
    """Split documents that are back to back; DocumentError when the lengths do not fit the bytes."""
    documents = []
    at, end = 0, len(body)
    while at < end:
        until = _end_of_document(body, at)
        documents.append(body[at:until])
        at = until
    return documents


def _end_of_document(body: bytes, at: int) -> int:
    left = len(body) - at
    if left < 5:
        raise DocumentError(f"{left} bytes are left over at byte {at}")
    (length,) = LENGTH.unpack_from(body, at)
    if length < 5 or length > left or body[at + length - 1] != 0:
        raise DocumentError(f"the document at byte {at} gives its length as {length}")
    return int(at + length)


class IndexedDocuments(NamedTuple):
    """Documents, and for each the bytes that identify its series and its time in milliseconds since 1970.

    A document with a key of another form, which `series_bytes` refuses, has empty bytes and the time 0.
    """

    documents: list[bytes]
    series: list[bytes]
    times: list[int]


def index_documents(body: bytes) -> IndexedDocuments:
    """Split documents that are back to back and read their keys in the same pass; DocumentError as `split_documents`.

    Every stored reading goes through this loop. Neighbours mostly have keys of one length, so that one `unpack` finds
    everything: 0.28 us a reading; one after the other `split_documents`, `series_bytes` and `document_ts_ms` take 0.6.
    """
    documents: list[bytes] = []
    series: list[bytes] = []
    times: list[int] = []
    at, end = 0, len(body)
    usual_id_length, unpack = 0, _unpack_to_ts(TS_SEQ_BYTES + 4)
    while at < end:
        try:
            length, id_head, id_length, name, ts_head, ts_ms = unpack(body, at)
            if id_length != usual_id_length:
                usual_id_length, unpack = id_length, _unpack_to_ts(id_length)
                length, id_head, id_length, name, ts_head, ts_ms = unpack(body, at)
        except struct.error:  # the body ends before `ts`, or `_id` has no room for it
            id_head, length, id_length, usual_id_length = b"", 0, 0, 0
        until = at + length
        if not (
            id_head == _ID_HEAD
            and ts_head == TS_HEAD
            and ID_AT + id_length < length
            and name
            and until <= end
            and body[until - 1] == 0
        ):
            until = _end_of_document(body, at)
            name, ts_ms = _series_and_ts(body[at:until])
        documents.append(body[at:until])
        series.append(name)
        times.append(ts_ms)
        at = until
    return IndexedDocuments(documents, series, times)


@lru_cache(maxsize=256)
def _unpack_to_ts(id_length: int) -> Callable[[bytes, int], tuple[int, bytes, int, bytes, bytes, int]]:
    """Return what reads a document up to `ts` if its `_id` has this length; struct.error if that has no room for it.

    It reads the document's length, the type and name of `_id`, its length, the bytes that identify the series, the type
    and name of `ts`, and its milliseconds.
    """
    return struct.Struct(f"<i5si{id_length - 4 - TS_SEQ_BYTES}s4sq").unpack_from


def _series_and_ts(document: bytes) -> tuple[bytes, int]:
    try:
        name = series_bytes(document)
    except DocumentError:
        return b"", 0
    return name, document_ts_ms(document)


def series_bytes(document: bytes) -> bytes:
    """Return the bytes that identify the document's series; DocumentError when its key has another form."""
    if len(document) < ID_AT + 4 or document[4:ID_AT] != _ID_HEAD:
        raise DocumentError("the document does not start with an _id document")
    (length,) = LENGTH.unpack_from(document, ID_AT)
    ts_at = ID_AT + length - TS_SEQ_BYTES
    if ts_at <= _SERIES_AT or document[ts_at : ts_at + 4] != TS_HEAD or ID_AT + length >= len(document):
        raise DocumentError("the _id does not end with ts and seq")
    return document[ID_AT + 4 : ts_at]


def id_bytes(document: bytes) -> bytes:
    """Return the `_id` of a document for which `series_bytes` succeeded, as a document of its own."""
    return document[ID_AT : ID_AT + LENGTH.unpack_from(document, ID_AT)[0]]


def document_ts_ms(document: bytes) -> int:
    """Return the time of a document for which `series_bytes` succeeded, in milliseconds since 1970."""
    ts_at = ID_AT + LENGTH.unpack_from(document, ID_AT)[0] - TS_SEQ_BYTES + len(TS_HEAD)
    return int(_INT64.unpack_from(document, ts_at)[0])


def series_and_position(document: bytes) -> tuple[bytes, Position]:
    """Return `series_bytes` of a document for which that succeeded, and its position in the series: in 0.4 us."""
    ts_at = ID_AT + LENGTH.unpack_from(document, ID_AT)[0] - TS_SEQ_BYTES
    _, ts_ms, _, seq = _TS_SEQ.unpack_from(document, ts_at)
    return document[_SERIES_AT:ts_at], (ts_ms, seq)


def received_ms(document: bytes) -> int:
    """Return when the gateway received this reading, in milliseconds since 1970; DocumentError if it is not a reading.

    Of a document as `encode_document` writes it only `receivedAt` is read, and nothing else checked; any other one is
    decoded.
    """
    try:
        value_at = ID_AT + LENGTH.unpack_from(document, ID_AT)[0]
        kind, behind_name = document[value_at], value_at + 1 + len(VALUE_NAME)
        size = 4 + LENGTH.unpack_from(document, behind_name)[0] if kind == _TEXT else _VALUE_BYTES[kind]
        head, received = _RECEIVED_AT.unpack_from(document, behind_name + size)
    except (struct.error, LookupError):
        head, received = b"", 0
    if (
        head == RECEIVED_AT_HEAD
        and document[4:ID_AT] == _ID_HEAD
        and document[value_at + 1 : behind_name] == VALUE_NAME
    ):
        return int(received)
    return int(decode_document(document)["receivedAt"])


def decode_document(document: bytes) -> dict[str, Any]:
    """Decode one document, times as `DatetimeMS`, and check its key; DocumentError when it is not a reading."""
    try:
        decoded = bson.decode(document, AS_MILLISECONDS)
    except (InvalidBSON, UnicodeDecodeError) as error:
        raise DocumentError(f"not BSON: {error}") from error
    key = decoded.get("_id")
    if not isinstance(key, dict) or list(key) != ["owner", "device", "sensorType", "ts", "seq"]:
        raise DocumentError("the _id is not {owner, device, sensorType, ts, seq}")
    names = (key["owner"], key["device"], key["sensorType"])
    if not all(isinstance(name, str) and name for name in names):
        raise DocumentError("owner, device and sensorType must be texts")
    if not isinstance(key["ts"], DatetimeMS) or not isinstance(key["seq"], bson.Int64):
        raise DocumentError("ts must be a date and seq a 64-bit integer")
    if "value" not in decoded or not isinstance(decoded.get("receivedAt"), DatetimeMS):
        raise DocumentError("value or receivedAt is missing")
    return decoded


# Fields of a decoded document, whether its dates were decoded as `datetime` or as `DatetimeMS`.


def date_ms(date: datetime | DatetimeMS) -> int:
    """Return a date in milliseconds since 1970; TypeError for anything else."""
    return int(date if isinstance(date, DatetimeMS) else DatetimeMS(date))


def position_of(document: dict[str, Any]) -> Position:
    """Return the position of a reading in its series."""
    return position_in(document["_id"])


def position_in(names: dict[str, Any]) -> Position:
    """Return the position that a key, or another decoded document with `ts` and `seq`, has.

    KeyError if it has none, TypeError or ValueError if these are no date and no number.
    """
    return date_ms(names["ts"]), int(names["seq"])


def received_at_ms(document: dict[str, Any]) -> int | None:
    """Return when a gateway received a reading, in milliseconds since 1970; None if `receivedAt` is not a date."""
    received = document.get("receivedAt")
    return date_ms(received) if isinstance(received, datetime | DatetimeMS) else None
