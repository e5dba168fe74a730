"""The part of a block's head that buckets need, read from its bytes: hours only when they are wanted.

A year of one reading a second has some 4,000 to 9,000 heads, and most lie in one bucket, so that their total is enough.
"""

import struct
from dataclasses import dataclass

import bson
from bson.errors import InvalidBSON

from readings.document import AS_MILLISECONDS, date_ms
from readings.keys import Position
from storage.codec.packed import BlockError
from storage.codec.sections import VERSION
from storage.codec.sums import Sums, sums_from

_LENGTH = struct.Struct("<i")
# ts, a date, and seq, an int64, with their names: at the start of `until`, `first` and `last`, at the end of `_id`.
_POSITION = struct.Struct("<4sq5sq")
_TS, _SEQ = b"\x09ts\x00", b"\x12seq\x00"
# BSON's types of the other fields: documents and an array, which give their length; and the bytes of a double, an
# ObjectId, a boolean, an int32 and an int64.
_WITH_LENGTH = (0x03, 0x04)
_SIZES = {0x01: 8, 0x07: 12, 0x08: 1, 0x10: 4, 0x12: 8}
_SUMS = (("numbers", b"\x03numbers"), ("booleans", b"\x03booleans"), ("texts", b"\x03texts"))
# Where the values of a document's fields begin and end, by their type and name.
_Fields = dict[bytes, tuple[int, int]]


@dataclass(slots=True)
class HeadSums:
    """The sums of a block, its bounds (`start` included, `until` not), and the positions of its first and last reading.

    Positions are in the block's series.
    """

    start: Position
    until: Position
    first: Position
    last: Position
    sums: Sums
    _hours: bytes

    def hours(self) -> dict[int, Sums]:
        """Return the sums by the hour's start, in milliseconds since 1970; BlockError if they are anything else."""
        try:
            return {date_ms(hour["ts"]): sums_from(hour) for hour in bson.decode(self._hours, AS_MILLISECONDS).values()}
        except (InvalidBSON, LookupError, TypeError, AttributeError, ValueError) as error:
            raise BlockError(f"not the hours of a block: {error!r}") from error


def head_sums_from(document: bytes) -> HeadSums:
    """Return what buckets need of the head that `Head.document` stored, as BSON; BlockError for another document."""
    try:
        fields = fields_of(document)
        (version,) = _LENGTH.unpack_from(document, fields[b"\x10version"][0])
        if version != VERSION:
            raise BlockError(f"the head has version {version}, and {VERSION} is the highest that is known")
        start = _position(document, fields[b"\x03_id"][1] - 1 - _POSITION.size)
        until, first, last = (
            _position(document, fields[name][0] + 4) for name in (b"\x03until", b"\x03first", b"\x03last")
        )
        (count,) = _LENGTH.unpack_from(document, fields[b"\x10count"][0])
        sums = sums_from(
            {"count": count}
            | {name: bson.decode(document[slice(*fields[key])]) for name, key in _SUMS if key in fields}
        )
        hours = document[slice(*fields[b"\x04hours"])]
    except (struct.error, LookupError, ValueError, InvalidBSON) as error:
        raise BlockError(f"not the head of a block: {error!r}") from error
    if not start <= first <= last < until:
        raise BlockError("the bounds, the first and the last reading are not in order")
    return HeadSums(start, until, first, last, sums, hours)


def fields_of(document: bytes) -> _Fields:
    """Return where the fields are; ValueError or struct.error when the document is not whole, or not of these types."""
    fields: _Fields = {}
    at, end = 4, len(document) - 1
    while at < end:
        name_end = document.index(0, at)
        kind, key = document[at], document[at:name_end]
        at = name_end + 1
        if kind in _WITH_LENGTH:
            (size,) = _LENGTH.unpack_from(document, at)
            if size < 5:
                raise ValueError(f"{key!r} has {size} bytes")
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ValueError(f"{key!r} has another type")
        fields[key] = at, at + size
        at += size
    if at != end or _LENGTH.unpack_from(document)[0] != len(document) or document[end]:
        raise ValueError("the document is not whole")
    return fields


def _position(document: bytes, at: int) -> Position:
    ts_name, ts_ms, seq_name, seq = _POSITION.unpack_from(document, at)
    if (ts_name, seq_name) != (_TS, _SEQ):
        raise ValueError("there is no ts and seq")
    return ts_ms, seq
