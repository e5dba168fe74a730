"""What rules see of a stored document, read from its bytes where `encode_document` puts it."""

import struct
from typing import Final, NamedTuple

import bson

from readings.document import (
    ID_AT,
    LENGTH,
    RECEIVED_AT_HEAD,
    TS_HEAD,
    TS_SEQ_BYTES,
    VALUE_NAME,
    DocumentError,
    date_ms,
    decode_document,
    position_of,
)
from readings.reading import Value

_SEQ_HEAD: Final = b"\x12seq\x00"
_UNIT_HEAD: Final = b"\x02unit\x00"
# From `ts` to `receivedAt`, by the BSON type of the value between them.
_FIELDS: Final = {
    kind: struct.Struct(f"<4sq5sqxx6s{value}12sq")
    for kind, value in ((0x01, "d"), (0x08, "?"), (0x10, "i"), (0x12, "q"))
}


class Fields(NamedTuple):
    """What rules see of a reading; times in milliseconds since 1970."""

    ts_ms: int
    seq: int
    value: Value
    received_ms: int
    unit: str | None


def fields_of(document: bytes) -> Fields:
    """Return these fields of a document for which `series_bytes` succeeded; DocumentError if it is not a reading.

    Of a document as `encode_document` writes it, whose value is no text, nothing else is decoded, in a quarter of the
    time; any other one is decoded.
    """
    try:
        fields = _fields_as_encoded(document)
    except (struct.error, LookupError, UnicodeDecodeError):
        fields = None
    return _decoded_fields(document) if fields is None else fields


def _fields_as_encoded(document: bytes) -> Fields | None:
    value_at = ID_AT + LENGTH.unpack_from(document, ID_AT)[0]
    layout, ts_at = _FIELDS[document[value_at]], value_at - TS_SEQ_BYTES
    ts_head, ts_ms, seq_head, seq, value_name, value, head, received = layout.unpack_from(document, ts_at)
    if ts_head != TS_HEAD or seq_head != _SEQ_HEAD or value_name != VALUE_NAME or head != RECEIVED_AT_HEAD:
        return None
    unit, unit_at = None, ts_at + layout.size
    if document[unit_at : unit_at + len(_UNIT_HEAD)] == _UNIT_HEAD:
        text_at = unit_at + len(_UNIT_HEAD) + 4
        unit = document[text_at : text_at - 1 + LENGTH.unpack_from(document, text_at - 4)[0]].decode()
    elif _UNIT_HEAD in document[unit_at:]:
        return None
    return Fields(ts_ms, seq, value, received, unit)


def _decoded_fields(document: bytes) -> Fields:
    decoded = decode_document(document)
    ts_ms, seq = position_of(decoded)
    value = decoded["value"]
    unit = decoded.get("unit")
    received = date_ms(decoded["receivedAt"])
    if isinstance(value, bson.Int64):
        value = int(value)
    if not isinstance(value, bool | int | float | str) or not (unit is None or isinstance(unit, str)):
        raise DocumentError("value or unit has another type")
    return Fields(ts_ms, seq, value, received, unit)
