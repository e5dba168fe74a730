"""From a block to its columns, or to its times and numbers only; see storage/codec/sections.py for its format."""

import zlib
from typing import NamedTuple

import numpy as np

from storage.codec.columns import Booleans, Bytes, Columns, Kind
from storage.codec.form import coordinates_of
from storage.codec.packed import (
    MAX_READINGS,
    BlockError,
    Floats,
    Input,
    Integers,
    unpack_floats,
    unpack_integers,
    unpack_list,
)
from storage.codec.sections import MAX_BLOCK_BYTES, NUMBER, PLACES, START, VERSION, Section, kinds_without_fraction

_LAST_SECTION = max(Section)
_KNOWN_KINDS = np.zeros(256, np.bool_)
_KNOWN_KINDS[[*Kind, NUMBER]] = True


class Values(NamedTuple):
    """Times in milliseconds since 1970, kinds, and numbers: booleans as 0 and 1, NaN for what is neither."""

    ts: Integers
    kinds: Bytes
    numbers: Floats


def decode(block: bytes, series: bytes) -> Columns:
    """Return the readings of a block; BlockError when it is damaged, or of a later version.

    `series` is that of its key, as `series_bytes` returns it.
    """
    sections = _Sections(block)
    count = sections.count
    kinds, values = sections.kinds()
    if len(index := np.flatnonzero(kinds == Kind.TEXT)):
        values[index], texts = sections.indexed(Section.TEXTS, Section.TEXT_LIST, len(index))
    else:
        texts = []
    is_other = kinds == Kind.OTHER
    whole = int(np.count_nonzero(is_other))
    others = sections.items(Section.OTHERS) if whole else []
    if len(others) != whole:
        raise BlockError(f"{len(others)} documents are kept whole, not {whole}")
    values[is_other] = np.arange(whole)
    tails, places = np.zeros(count, np.int64), None
    tail_list: list[bytes] = []
    if whole < count:
        tails[~is_other], tail_list = sections.indexed(Section.TAILS, Section.TAIL_LIST, count - whole)
        places = sections.places(tails, tail_list, ~is_other)
    ts = sections.integers(Section.TS, count)
    return Columns(
        series,
        ts=ts,
        seq=sections.integers(Section.SEQ, count),
        received=ts + sections.integers(Section.LAGS, count),
        seals=sections.integers(Section.SEALS, count),
        kinds=kinds,
        values=values,
        tails=tails,
        places=places,
        tail_list=tail_list,
        texts=texts,
        others=others,
    )


def decode_positions(block: bytes, series: bytes) -> Columns:
    """Return the readings of a block with their ts and seq alone: false, received in 1970, without attributes.

    BlockError as `decode`. Some 10 ns a reading, a tenth of what all columns take.
    """
    sections = _Sections(block)
    count = sections.count
    zeros = np.zeros(count, np.int64)
    return Columns(
        series,
        ts=sections.integers(Section.TS, count),
        seq=sections.integers(Section.SEQ, count),
        received=zeros,
        seals=zeros,
        kinds=np.full(count, Kind.BOOLEAN, np.uint8),
        values=zeros,
        tails=zeros,
        places=None,
        tail_list=[b"\x00"],
        texts=[],
        others=[],
    )


def decode_values(block: bytes) -> Values:
    """Return only what a chart needs; BlockError as `decode`."""
    sections = _Sections(block)
    kinds, values = sections.kinds()
    ts = sections.integers(Section.TS, sections.count)
    if (kinds == Kind.FLOAT).all():
        return Values(ts, kinds, values.view(np.float64))
    numbers = np.where(kinds == Kind.FLOAT, values.view(np.float64), values.astype(np.float64))
    numbers[(kinds == Kind.TEXT) | (kinds == Kind.OTHER)] = np.nan
    return Values(ts, kinds, numbers)


class _Sections:
    """The sections of a block whose version and CRC are right."""

    def __init__(self, block: bytes) -> None:
        if len(block) < START.size or len(block) > MAX_BLOCK_BYTES + START.size:
            raise BlockError(f"a block has {len(block)} bytes")
        version, crc = START.unpack_from(block)
        if version != VERSION:
            raise BlockError(f"the block has version {version}, and {VERSION} is the highest that is known")
        if zlib.crc32(memoryview(block)[START.size :]) != crc:
            raise BlockError("the block is damaged: its bytes do not match their CRC")
        data = Input(block)
        data.take(START.size)
        self.count = data.uint(MAX_READINGS)
        if not self.count:
            raise BlockError("the block has no readings")
        self._sections: dict[int, bytes] = {}
        last = 0
        while data.left:
            id_ = data.uint(_LAST_SECTION)
            if id_ <= last:
                raise BlockError(f"section {id_} follows section {last}")
            self._sections[id_] = data.take(data.uint(data.left))
            last = id_

    def integers(self, id_: int, count: int) -> Integers:
        """Unpack a section of `count` integers."""
        return unpack_integers(self._section(id_), count)

    def floats(self, id_: int, count: int) -> Floats:
        """Unpack a section of `count` floats."""
        return unpack_floats(self._section(id_), count)

    def items(self, id_: int) -> list[bytes]:
        """Unpack a section that is a list."""
        return unpack_list(self._section(id_))

    def indexed(self, id_: int, list_id: int, count: int) -> tuple[Integers, list[bytes]]:
        """Unpack a column of indexes and its list."""
        index, items = self.integers(id_, count), self.items(list_id)
        if index.min() < 0 or index.max() >= len(items):
            raise BlockError(f"section {id_} has an index outside of its list")
        return index, items

    def places(self, tails: Integers, tail_list: list[bytes], has_tail: Booleans) -> Floats | None:
        """Return the locations taken out of tails; None when there are none."""
        if any(tail[:1] not in (b"\x00", b"\x01") for tail in tail_list):
            raise BlockError("attributes begin with neither 0 nor 1")
        is_moving = np.array([tail[0] == 1 for tail in tail_list], np.bool_)[tails] & has_tail
        moving = int(np.count_nonzero(is_moving))
        if not moving:
            return None
        if any(tail[0] == 1 and not coordinates_of(tail[1:]) for tail in tail_list):
            raise BlockError("attributes lack the location that was taken out of them")
        places = np.zeros((len(tails), 3))
        for column, id_ in enumerate(PLACES):
            places[is_moving, column] = self.floats(id_, moving)
        return places

    def _section(self, id_: int) -> bytes:
        try:
            return self._sections[id_]
        except KeyError:
            raise BlockError(f"section {id_} is missing") from None

    def kinds(self) -> tuple[Bytes, Integers]:
        """Return the kinds, with NUMBER resolved, and the values of numbers and booleans; 0 for others."""
        written = self.integers(Section.KINDS, self.count)
        if (written == Kind.FLOAT).all():
            return written.astype(np.uint8), self.floats(Section.FLOATS, self.count).view(np.int64)
        if written.min() < 0 or written.max() > 255 or not _KNOWN_KINDS[written].all():
            raise BlockError("there is an unknown kind of value")
        kinds, values = written.astype(np.uint8), np.zeros(self.count, np.int64)
        in_floats = (kinds == Kind.FLOAT) | (kinds == NUMBER)
        if in_floats.any():
            in_floats |= kinds == Kind.INT32
            kinds[in_floats], values[in_floats] = self._floats(kinds[in_floats])
        in_integers = ((kinds == Kind.INT32) | (kinds == Kind.INT64)) & ~in_floats
        is_boolean = kinds == Kind.BOOLEAN
        for id_, where in ((Section.INTEGERS, in_integers), (Section.BOOLEANS, is_boolean)):
            if where.any():
                values[where] = self.integers(id_, int(np.count_nonzero(where)))
        if values[is_boolean].view(np.uint64).max(initial=0) > 1:
            raise BlockError("a boolean is neither 0 nor 1")
        int32 = values[kinds == Kind.INT32]
        if (int32 != int32.astype(np.int32)).any():
            raise BlockError("an integer is outside of 32 bits")
        return kinds, values

    def _floats(self, kinds: Bytes) -> tuple[Bytes, Integers]:
        """Return the kinds and values of the numbers in FLOATS."""
        floats = self.floats(Section.FLOATS, len(kinds))
        if (kinds == Kind.FLOAT).all():
            return kinds, floats.view(np.int64)
        by_value = kinds_without_fraction(floats)
        kinds = np.where(kinds == NUMBER, by_value, kinds)
        is_int32 = kinds == Kind.INT32
        if (by_value[is_int32] != Kind.INT32).any():
            raise BlockError("an integer has a fraction, or is outside of 32 bits")
        return kinds, np.where(is_int32, np.where(is_int32, floats, 0).astype(np.int64), floats.view(np.int64))
