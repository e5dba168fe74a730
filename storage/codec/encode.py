"""From columns to a block, see storage/codec/sections.py for its format."""

import zlib

import numpy as np

from storage.codec.columns import Booleans, Columns, Kind
from storage.codec.packed import MAX_READINGS, BlockTooLarge, Integers, pack, pack_list, sized, uint
from storage.codec.sections import MAX_BLOCK_BYTES, NUMBER, PLACES, START, VERSION, Section, kinds_without_fraction

_ALL_ZEROS = pack(np.zeros(1, np.int64))
_ALL_FLOATS = pack(np.full(1, Kind.FLOAT, np.int64))


def encode(columns: Columns) -> bytes:
    """Return a block of at least one reading; BlockTooLarge when half of them may fit.

    ValueError when the readings are not in the order of (ts, seq), each once.
    """
    count, kinds = len(columns), columns.kinds
    if not count or not columns.is_sorted():
        raise ValueError("a block has at least one reading, all in order, each once")
    if count > MAX_READINGS:
        raise BlockTooLarge(f"{count} readings")
    is_other = kinds == Kind.OTHER
    lags = columns.received - columns.ts
    lags[is_other] = 0
    sections = {
        Section.TS: pack(columns.ts, "steps_of_integers"),
        Section.SEQ: pack(columns.seq),
        Section.LAGS: pack(lags),
        Section.SEALS: pack(columns.seals),
        **_values(columns),
        **_attributes(columns, ~is_other),
    }
    body = uint(count) + b"".join(bytes((id_,)) + sized(data) for id_, data in sorted(sections.items()))
    if len(body) > MAX_BLOCK_BYTES:
        raise BlockTooLarge(f"{len(body)} bytes")
    return START.pack(VERSION, zlib.crc32(body)) + body


def _values(columns: Columns) -> dict[int, bytes]:
    kinds, values = columns.kinds, columns.values
    if (kinds == Kind.FLOAT).all():
        return {Section.KINDS: _ALL_FLOATS, Section.FLOATS: pack(values.view("<f8"), "steps")}
    is_float, is_int32 = kinds == Kind.FLOAT, kinds == Kind.INT32
    sections: dict[int, bytes] = {}
    if is_float.any():
        is_number = is_float | is_int32
        floats = values.view("<f8")
        if is_int32.any():
            floats = np.where(is_float, floats, values.astype("<f8"))
            if (kinds == np.where(is_number, kinds_without_fraction(floats), kinds)).all():
                kinds = np.where(is_number, np.uint8(NUMBER), kinds)
        sections[Section.FLOATS] = pack(floats[is_number], "steps")
        is_int32 = np.zeros(len(kinds), np.bool_)
    for id_, where in ((Section.INTEGERS, is_int32 | (kinds == Kind.INT64)), (Section.BOOLEANS, kinds == Kind.BOOLEAN)):
        if where.any():
            sections[id_] = pack(values[where])
    if (is_text := kinds == Kind.TEXT).any():
        sections[Section.TEXTS], sections[Section.TEXT_LIST] = _listed(values[is_text], columns.texts)
    if (is_other := kinds == Kind.OTHER).any():
        sections[Section.OTHERS] = pack_list([columns.others[at] for at in values[is_other].tolist()])
    sections[Section.KINDS] = pack(kinds.astype(np.int64))
    return sections


def _listed(index: Integers, items: list[bytes]) -> tuple[bytes, bytes]:
    """Return a column of indexes, and those of the items that it uses."""
    if (index == index[0]).all():
        return _ALL_ZEROS, pack_list([items[index[0]]])
    used, index = np.unique(index, return_inverse=True)
    return pack(index.astype(np.int64)), pack_list([items[at] for at in used.tolist()])


def _attributes(columns: Columns, has_tail: Booleans) -> dict[int, bytes]:
    if not has_tail.any():
        return {}
    sections: dict[int, bytes] = {}
    tails = columns.tails if has_tail.all() else columns.tails[has_tail]
    sections[Section.TAILS], sections[Section.TAIL_LIST] = _listed(tails, columns.tail_list)
    if columns.places is not None:
        is_moving = np.array([tail[0] == 1 for tail in columns.tail_list], np.bool_)[columns.tails] & has_tail
        if is_moving.any():
            for id_, coordinate in zip(PLACES, columns.places[is_moving].T, strict=True):
                sections[id_] = pack(np.ascontiguousarray(coordinate), "steps")
    return sections
