"""A series over all places as sums where they will do, and as readings everywhere else: for buckets.

The sums of a block, or of an hour in it, stand for its readings only where no other place has a reading of these hours.
Everywhere else the block is opened, and of two copies of a reading the one with the lower seal number stays.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from readings.document import date_ms
from readings.keys import Position
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.head import HOUR_MS
from storage.codec.sums import Sums
from storage.places.blocks import HEADS_PER_QUERY
from storage.places.documents import StoredHead
from storage.places.moving import MAX_TRIES, PAUSE_S, PlacesChanged, until_unmoved
from storage.places.reading import Places
from storage.places.window import Window, position_index

# Readings outside of blocks that are looked at together, some 150 bytes each as documents.
LOOSE_READINGS = 65_536


class Stretch(NamedTuple):
    """The sums of all readings between two times, both included, in milliseconds since 1970."""

    first_ms: int
    last_ms: int
    sums: Sums


MayUse = Callable[[Stretch], bool]
"""Whether the sums of a stretch will do: those of readings in two buckets, for instance, will not."""


async def stretches(places: Places, window: Window, may_use: MayUse) -> AsyncGenerator[Columns | Stretch]:
    """Yield the readings of a window in order, as sums where `may_use` allows it; the window is not descending.

    Raises the driver's errors, and BlockError when a block is damaged.
    """
    tries = 0
    while not window.is_empty:
        try:
            async with places.session() as session:
                part = await _look(places, window, session)
                async for until, found in part.in_order(places, may_use, session):
                    for one in found:
                        yield one
                    window, tries = replace(window, start=until), 0
        except PlacesChanged:
            tries += 1
            if tries > MAX_TRIES:
                raise
            await asyncio.sleep(tries * PAUSE_S)


async def _look(places: Places, window: Window, session: Any) -> "_Part":
    found, state = await places.loose(window, LOOSE_READINGS, session)
    heads: list[StoredHead] = []
    if state.has_blocks:
        heads = await until_unmoved(lambda: places.blocks.heads_of(found.rest, session))
    rest = found.rest
    if len(heads) == HEADS_PER_QUERY:
        rest = replace(rest, end=min(rest.end, heads[-1].head.until))
    loose = found.columns(exact=False)
    return _Part(rest, None if loose is None else rest.cut(loose), heads)


class _Part:
    """A part of the window: its readings that are in no block, and the heads of its blocks."""

    def __init__(self, window: Window, loose: Columns | None, heads: list[StoredHead]) -> None:
        self._window = window
        self._loose = loose
        self._heads = heads
        self._hours = frozenset() if loose is None else frozenset(np.unique(loose.ts // HOUR_MS).tolist())
        # How many of the loose readings have been yielded.
        self._taken = 0

    async def in_order(
        self, places: Places, may_use: MayUse, session: Any
    ) -> AsyncGenerator[tuple[Position, list[Columns | Stretch]]]:
        """Yield readings and sums in order, with the position up to which they go."""
        for stored in self._heads:
            if not stored.lies_in(self._window):
                continue
            found = self._sums(stored, may_use)
            if found is None:
                until = min(stored.head.until, self._window.end)
                own = self._window.cut(await places.blocks.columns(stored, session))
                before = self._loose_before(stored.head.start)
                merged = first_wins(concatenate([own, *self._loose_before(until)])).columns
                yield until, [*before, merged]
            else:
                yield (date_ms(stored.head.last["ts"]) + 1, 0), found
        yield self._window.end, list(self._loose_before(self._window.end))

    def _loose_before(self, position: Position) -> list[Columns]:
        """Take the loose readings before a position; an empty list if there are none."""
        if self._loose is None:
            return []
        begin, self._taken = self._taken, max(self._taken, position_index(self._loose, position))
        return [self._loose.take(slice(begin, self._taken))] if self._taken > begin else []

    def _sums(self, stored: StoredHead, may_use: MayUse) -> list[Columns | Stretch] | None:
        """Return a block as sums, with the loose readings before and between them; None if it has to be opened."""
        parts = self._usable(stored, may_use)
        if parts is None:
            return None
        found: list[Columns | Stretch] = []
        for part in parts:
            found += self._loose_before((part.first_ms, -(2**63)))
            found.append(part)
        return found

    def _usable(self, stored: StoredHead, may_use: MayUse) -> list[Stretch] | None:
        head = stored.head
        first, last = (date_ms(one["ts"]) for one in (head.first, head.last))
        whole = Stretch(first, last, head.sums)
        if not self._holds(stored):
            return None
        if self._is_alone(first, last) and may_use(whole):
            return [whole]
        hours = [
            Stretch(max(hour, first), min(hour + HOUR_MS - 1, last), sums) for hour, sums in sorted(head.hours.items())
        ]
        if sum(one.sums.count for one in hours) != head.sums.count:
            return None
        usable = all(self._is_alone(one.first_ms, one.last_ms) and may_use(one) for one in hours)
        return hours if usable else None

    def _holds(self, stored: StoredHead) -> bool:
        """Return whether all readings of a block lie in the window."""
        first, last = ((date_ms(one["ts"]), int(one["seq"])) for one in (stored.head.first, stored.head.last))
        return self._window.start <= first and last < self._window.end

    def _is_alone(self, first_ms: int, last_ms: int) -> bool:
        """Return whether no loose reading is in the hours of two times, or between them."""
        if not self._hours:
            return True
        return self._hours.isdisjoint(range(first_ms // HOUR_MS, last_ms // HOUR_MS + 1))
