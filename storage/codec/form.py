"""Where in a reading's document its ts, seq, value, receivedAt and attributes are, and the doubles of its location."""

import struct
from typing import NamedTuple

from storage.codec.columns import Kind

_LENGTH = struct.Struct("<i")
# The type and name of `_id`, and the offset of its length.
ID_HEAD, _ID_AT = b"\x03_id\x00", 9
TS_HEAD, SEQ_HEAD = b"\x09ts\x00", b"\x12seq\x00"
# The last bytes of `_id`: ts, seq and a zero.
TS_SEQ_BYTES = len(TS_HEAD) + 8 + len(SEQ_HEAD) + 8 + 1
VALUE_NAME, RECEIVED_HEAD = b"value\x00", b"\x09receivedAt\x00"
# Bytes of a value by its kind; a text gives its length.
VALUE_SIZES = {Kind.FLOAT: 8, Kind.BOOLEAN: 1, Kind.INT32: 4, Kind.INT64: 8}
# The same as arrays; a float's bits are kept as an integer.
VALUE_TYPES = {Kind.FLOAT: "<i8", Kind.BOOLEAN: "u1", Kind.INT32: "<i4", Kind.INT64: "<i8"}

_UNIT_HEAD, _LOCATION_HEAD = b"\x02unit\x00", b"\x03location\x00"
_LAT, _LON, _ALT = b"\x01lat\x00", b"\x01lon\x00", b"\x01alt\x00"
# A location's bytes with two and with three coordinates, and where in it they are.
_PLACES = {31: (9, 22), 44: (9, 22, 35)}


class Form(NamedTuple):
    """Where the parts of a document are: offsets from its start, and the kind of its value."""

    ts_at: int
    kind: Kind
    value_at: int
    value_size: int
    received_at: int
    tail_at: int


def form_of(document: bytes) -> Form | None:
    """Return the form of a document whose value and receivedAt fit columns; None for any other one."""
    try:
        id_size, length = _LENGTH.unpack_from(document, _ID_AT)[0], _LENGTH.unpack_from(document)[0]
        id_end = _ID_AT + id_size
        ts_at = id_end - TS_SEQ_BYTES + len(TS_HEAD)
        kind = Kind(document[id_end])
        value_at = id_end + 1 + len(VALUE_NAME)
        size = 4 + _LENGTH.unpack_from(document, value_at)[0] if kind == Kind.TEXT else VALUE_SIZES[kind]
    except (struct.error, LookupError, ValueError):
        return None
    received_at = value_at + size + len(RECEIVED_HEAD)
    tail_at = received_at + 8
    if (
        length != len(document)
        or size < (5 if kind == Kind.TEXT else 1)
        or tail_at >= length
        or document[ts_at - 4 : ts_at] != TS_HEAD
        or document[ts_at + 8 : ts_at + 13] != SEQ_HEAD
        or document[id_end - 1] != 0
        or document[id_end + 1 : value_at] != VALUE_NAME
        or document[value_at + size : received_at] != RECEIVED_HEAD
        or document[-1] != 0
        or (kind == Kind.TEXT and document[value_at + size - 1] != 0)
        or (kind == Kind.BOOLEAN and document[value_at] > 1)
    ):
        return None
    return Form(ts_at, kind, value_at, size, received_at, tail_at)


def coordinates_of(tail: bytes) -> tuple[int, ...]:
    """Return where in the attributes' bytes the doubles of a location are: two, three, or none."""
    at = 0
    if tail.startswith(_UNIT_HEAD):
        if len(tail) < len(_UNIT_HEAD) + 4:
            return ()
        at = len(_UNIT_HEAD) + 4 + _LENGTH.unpack_from(tail, len(_UNIT_HEAD))[0]
        if at < 0:
            return ()
    start = at + len(_LOCATION_HEAD)
    if tail[at:start] != _LOCATION_HEAD or len(tail) < start + 4:
        return ()
    size = _LENGTH.unpack_from(tail, start)[0]
    place = tail[start : start + size]
    if size not in _PLACES or len(place) != size or (place[4:9], place[17:22]) != (_LAT, _LON) or place[-1] != 0:
        return ()
    if size == 44 and place[30:35] != _ALT:
        return ()
    return tuple(start + offset for offset in _PLACES[size])
