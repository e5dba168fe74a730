"""A series over all places as sums where these are enough, and as readings everywhere else: for buckets.

The sums of a block, or of an hour in it, replace its readings only where no other place has a reading in these hours.
Everywhere else the block is opened, and of two copies of a reading the one with the lower seal number stays.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from readings.keys import Position
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.distinct import distinct
from storage.codec.head import HOUR_MS
from storage.codec.head_sums import HeadSums
from storage.codec.head_table import HeadTable, is_before
from storage.codec.packed import Integers
from storage.codec.sums import Sums
from storage.places.first import FirstReadings
from storage.places.moving import MAX_TRIES, PAUSE_S, PlacesChanged, unless_moved
from storage.places.names import BEGINNING
from storage.places.reading import Places
from storage.places.window import Window, after, position_index

# Readings outside of blocks that are looked at together, some 150 bytes each as documents.
LOOSE_READINGS = 65_536
# Heads that are added up one by one before other tasks may run; some 10 to 50 us each.
_BLOCKS_AT_ONCE = 100
_NONE: Integers = np.zeros(0, np.int64)


class Stretch(NamedTuple):
    """The sums of all readings between two times, both included, in milliseconds since 1970."""

    first_ms: int
    last_ms: int
    sums: Sums


class Use(Protocol):
    """Decides where sums may be used in place of readings."""

    def will_do(self, stretch: Stretch) -> bool:
        """Return whether the sums of a stretch may be used: not, for instance, if its readings are in two buckets."""
        ...

    def buckets_of(self, first_ms: Integers, last_ms: Integers) -> Integers:
        """Return in which bucket each two times are, both included; -1 if they are in several, or in none.

        Sums of numbers whose readings are all in one bucket must be usable.
        """
        ...


class _Positions:
    """Uses no sums."""

    def will_do(self, _: Stretch) -> bool:
        return False

    def buckets_of(self, first_ms: Integers, _: Integers) -> Integers:
        return np.full(len(first_ms), -1)


async def positions(places: Places, window: Window) -> AsyncGenerator[Columns]:
    """Yield the readings of a window in order, of which only ts and seq count; as `stretches`."""
    async with aclosing(stretches(places, window, _Positions(), positions_alone=True)) as found:
        async for one in found:
            if not isinstance(one, Stretch):
                yield one


async def stretches(
    places: Places, window: Window, use: Use, *, positions_alone: bool = False
) -> AsyncGenerator[Columns | Stretch]:
    """Yield the readings of a window in order, as sums where `use` allows it; the window is not descending.

    With `positions_alone`, readings of blocks have only their ts and seq.

    Raises the driver's errors, and BlockError when a block is damaged.
    """
    tries = 0
    while not window.is_empty:
        try:
            async with places.session() as session:
                part = await places.ask(partial(_look, window=window, use=use), session)
                async for until, found in part.in_order(places, session, positions_alone=positions_alone):
                    for one in found:
                        yield one
                    window, tries = replace(window, start=until), 0
        except PlacesChanged:
            tries += 1
            if tries > MAX_TRIES:
                raise
            await asyncio.sleep(tries * PAUSE_S)


def _look(first: FirstReadings, session: Any, window: Window, use: Use) -> "_Part":
    found, state = first.loose(window, LOOSE_READINGS, session)
    rest, heads = found.rest, None
    if state.has_blocks:
        heads = unless_moved(lambda: first.blocks.heads_in(found.rest, session))
    if heads is not None:  # if they are not all of them, the last one ends before the window
        rest = replace(rest, end=min(rest.end, _position(heads.until[-1])))
    loose = found.columns()
    return _Part(rest, None if loose is None else rest.cut(loose), heads, use)


def _open(first: FirstReadings, session: Any, head: bytes, *, positions_alone: bool) -> Columns:
    return first.blocks.opened(head, session, positions_alone=positions_alone)


def _position(row: Integers) -> Position:
    ts, seq = row.tolist()
    return ts, seq


class _Part:
    """A part of the window: its readings that are in no block, and its blocks."""

    def __init__(self, window: Window, loose: Columns | None, heads: HeadTable | None, use: Use) -> None:
        self._window = window
        self._loose = loose
        self._use = use
        self._hours = _NONE if loose is None else distinct(loose.ts // HOUR_MS)
        # How many of the loose readings have been yielded.
        self._taken = 0
        self._heads, self._runs = heads, dict[int, tuple[int, Sums]]()
        if heads is not None:
            inside = ~is_before(heads.last, window.start) & is_before(heads.first, window.end)
            self._heads = heads = heads.take(np.flatnonzero(inside))
            begins, ends = self._find_runs(heads)
            merged = zip(ends.tolist(), heads.merged(begins, ends), strict=True)
            self._runs = dict(zip(begins.tolist(), merged, strict=True))

    def _find_runs(self, heads: HeadTable) -> tuple[Integers, Integers]:
        """Return where neighbours begin and end whose sums are usable, in one bucket and with nothing in between."""
        first_ms, last_ms = heads.first[:, 0], heads.last[:, 0]
        hours = self._hours
        buckets = self._use.buckets_of(first_ms, last_ms)
        usable = (
            heads.is_plain
            & (buckets >= 0)
            & ~is_before(heads.first, self._window.start)
            & is_before(heads.last, self._window.end)
            & (np.searchsorted(hours, first_ms // HOUR_MS) == np.searchsorted(hours, last_ms // HOUR_MS, "right"))
        )
        # Loose readings before each.
        before = np.zeros(len(heads), np.int64) if self._loose is None else np.searchsorted(self._loose.ts, first_ms)
        goes_on = usable[1:] & usable[:-1] & (buckets[1:] == buckets[:-1]) & (before[1:] == before[:-1])
        begins = np.flatnonzero(usable & np.concatenate(([True], ~goes_on))[: len(heads)])
        ends = np.flatnonzero(usable & np.concatenate((~goes_on, [True]))[: len(heads)]) + 1
        return begins, ends

    async def in_order(
        self, places: Places, session: Any, *, positions_alone: bool
    ) -> AsyncGenerator[tuple[Position, list[Columns | Stretch]]]:
        """Yield readings and sums in order, with the position up to which they go."""
        at, count = 0, 0 if self._heads is None else len(self._heads)
        while self._heads is not None and at < count:
            if at in self._runs:
                begin, (at, sums) = at, self._runs[at]
                stretch = Stretch(int(self._heads.first[begin, 0]), int(self._heads.last[at - 1, 0]), sums)
                before = self._loose_before((stretch.first_ms, BEGINNING[1]))
                yield after(_position(self._heads.last[at - 1])), [*before, stretch]
                continue
            if at % _BLOCKS_AT_ONCE == 0:
                await asyncio.sleep(0)
            head = self._heads.head(at)
            found = self._sums(head)
            if found is None:
                until = min(head.until, self._window.end)
                read = partial(_open, head=self._heads.document(at), positions_alone=positions_alone)
                own = self._window.cut(await places.ask(read, session))
                before = self._loose_before(head.start)
                merged = first_wins(concatenate([own, *self._loose_before(until)])).columns
                yield until, [*before, merged]
            else:
                yield after(head.last), found
            at += 1
        yield self._window.end, list(self._loose_before(self._window.end))

    def _loose_before(self, position: Position) -> list[Columns]:
        """Take the loose readings before a position; an empty list if there are none."""
        if self._loose is None:
            return []
        begin, self._taken = self._taken, max(self._taken, position_index(self._loose, position))
        return [self._loose.take(slice(begin, self._taken))] if self._taken > begin else []

    def _sums(self, block: HeadSums) -> list[Columns | Stretch] | None:
        """Return a block as sums, with the loose readings before and between them; None if it has to be opened."""
        parts = self._usable(block)
        if parts is None:
            return None
        found: list[Columns | Stretch] = []
        for part in parts:
            found += self._loose_before((part.first_ms, BEGINNING[1]))
            found.append(part)
        return found

    def _usable(self, block: HeadSums) -> list[Stretch] | None:
        if block.first < self._window.start or block.last >= self._window.end:
            return None
        first_ms, last_ms = block.first[0], block.last[0]
        whole = Stretch(first_ms, last_ms, block.sums)
        if self._is_alone(whole) and self._use.will_do(whole):
            return [whole]
        hours = [
            Stretch(max(hour, first_ms), min(hour + HOUR_MS - 1, last_ms), sums) for hour, sums in block.hours().items()
        ]
        # What is in no hour's sums is in the columns only.
        all_summed = sum(one.sums.count for one in hours) == block.sums.count
        return hours if all_summed and all(self._is_alone(one) and self._use.will_do(one) for one in hours) else None

    def _is_alone(self, stretch: Stretch) -> bool:
        """Return whether no loose reading is in the hours of a stretch."""
        if not len(self._hours):
            return True
        begin, end = np.searchsorted(self._hours, (stretch.first_ms // HOUR_MS, stretch.last_ms // HOUR_MS + 1))
        return bool(begin == end)
