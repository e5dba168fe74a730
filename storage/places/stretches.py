"""A series over all places as sums where they will do, and as readings everywhere else: for buckets.

The sums of a block, or of an hour in it, stand for its readings only where no other place has a reading of these hours.
Everywhere else the block is opened, and of two copies of a reading the one with the lower seal number stays.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from readings.keys import Position
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.head import HOUR_MS
from storage.codec.head_sums import HeadSums
from storage.codec.sums import Sums
from storage.places.blocks import StoredSums
from storage.places.first import FirstReadings
from storage.places.moving import MAX_TRIES, PAUSE_S, PlacesChanged, unless_moved
from storage.places.names import BEGINNING
from storage.places.reading import Places
from storage.places.window import Window, position_index

# Readings outside of blocks that are looked at together, some 150 bytes each as documents.
LOOSE_READINGS = 65_536
# Heads that are added up before others may run; some 10 to 50 us each.
_BLOCKS_AT_ONCE = 100


class Stretch(NamedTuple):
    """The sums of all readings between two times, both included, in milliseconds since 1970."""

    first_ms: int
    last_ms: int
    sums: Sums


MayUse = Callable[[Stretch], bool]
"""Whether the sums of a stretch will do: those of readings in two buckets, for instance, will not."""


async def positions(places: Places, window: Window) -> AsyncGenerator[Columns]:
    """Yield the readings of a window in order, of which only ts and seq count; as `stretches`."""
    async with aclosing(stretches(places, window, _never, positions_alone=True)) as found:
        async for one in found:
            if not isinstance(one, Stretch):
                yield one


def _never(_: Stretch) -> bool:
    return False


async def stretches(
    places: Places, window: Window, may_use: MayUse, *, positions_alone: bool = False
) -> AsyncGenerator[Columns | Stretch]:
    """Yield the readings of a window in order, as sums where `may_use` allows it; the window is not descending.

    With `positions_alone`, readings of blocks have only their ts and seq.

    Raises the driver's errors, and BlockError when a block is damaged.
    """
    tries = 0
    while not window.is_empty:
        try:
            async with places.session() as session:
                part = await places.ask(partial(_look, window=window), session)
                async for until, found in part.in_order(places, may_use, session, positions_alone=positions_alone):
                    for one in found:
                        yield one
                    window, tries = replace(window, start=until), 0
        except PlacesChanged:
            tries += 1
            if tries > MAX_TRIES:
                raise
            await asyncio.sleep(tries * PAUSE_S)


def _look(first: FirstReadings, session: Any, window: Window) -> "_Part":
    found, state = first.loose(window, LOOSE_READINGS, session)
    rest, blocks = found.rest, list[StoredSums]()
    if state.has_blocks:
        blocks = unless_moved(lambda: first.blocks.sums_of(found.rest, session))
    if blocks:  # if they are not all of them, the last one ends before the window
        rest = replace(rest, end=min(rest.end, blocks[-1].sums.until))
    loose = found.columns()
    return _Part(rest, None if loose is None else rest.cut(loose), blocks)


def _open(first: FirstReadings, session: Any, block: StoredSums, *, positions_alone: bool) -> Columns:
    return first.blocks.columns(block.block(), session, positions_alone=positions_alone)


class _Part:
    """A part of the window: its readings that are in no block, and its blocks."""

    def __init__(self, window: Window, loose: Columns | None, blocks: list[StoredSums]) -> None:
        self._window = window
        self._loose = loose
        self._blocks = blocks
        self._hours = frozenset() if loose is None else frozenset(np.unique(loose.ts // HOUR_MS).tolist())
        # How many of the loose readings have been yielded.
        self._taken = 0

    async def in_order(
        self, places: Places, may_use: MayUse, session: Any, *, positions_alone: bool
    ) -> AsyncGenerator[tuple[Position, list[Columns | Stretch]]]:
        """Yield readings and sums in order, with the position up to which they go."""
        for number, block in enumerate(self._blocks):
            if number % _BLOCKS_AT_ONCE == 0:
                await asyncio.sleep(0)
            sums = block.sums
            if sums.first >= self._window.end or sums.last < self._window.start:
                continue
            found = self._sums(sums, may_use)
            if found is None:
                until = min(sums.until, self._window.end)
                opened = await places.ask(partial(_open, block=block, positions_alone=positions_alone), session)
                own = self._window.cut(opened)
                before = self._loose_before(sums.start)
                merged = first_wins(concatenate([own, *self._loose_before(until)])).columns
                yield until, [*before, merged]
            else:
                yield (sums.last[0] + 1, 0), found
        yield self._window.end, list(self._loose_before(self._window.end))

    def _loose_before(self, position: Position) -> list[Columns]:
        """Take the loose readings before a position; an empty list if there are none."""
        if self._loose is None:
            return []
        begin, self._taken = self._taken, max(self._taken, position_index(self._loose, position))
        return [self._loose.take(slice(begin, self._taken))] if self._taken > begin else []

    def _sums(self, block: HeadSums, may_use: MayUse) -> list[Columns | Stretch] | None:
        """Return a block as sums, with the loose readings before and between them; None if it has to be opened."""
        parts = self._usable(block, may_use)
        if parts is None:
            return None
        found: list[Columns | Stretch] = []
        for part in parts:
            found += self._loose_before((part.first_ms, BEGINNING[1]))
            found.append(part)
        return found

    def _usable(self, block: HeadSums, may_use: MayUse) -> list[Stretch] | None:
        if block.first < self._window.start or block.last >= self._window.end:
            return None
        first_ms, last_ms = block.first[0], block.last[0]
        whole = Stretch(first_ms, last_ms, block.sums)
        if self._is_alone(whole) and may_use(whole):
            return [whole]
        hours = [
            Stretch(max(hour, first_ms), min(hour + HOUR_MS - 1, last_ms), sums) for hour, sums in block.hours().items()
        ]
        # What is in no hour's sums is in the columns only.
        all_summed = sum(one.sums.count for one in hours) == block.sums.count
        return hours if all_summed and all(self._is_alone(one) and may_use(one) for one in hours) else None

    def _is_alone(self, stretch: Stretch) -> bool:
        """Return whether no loose reading is in the hours of a stretch."""
        if not self._hours:
            return True
        return self._hours.isdisjoint(range(stretch.first_ms // HOUR_MS, stretch.last_ms // HOUR_MS + 1))
