"""What a live feed missed while it was away, out of history: as the feed would have shown it, and within bounds.

Each series is read back from its newest reading. New is, of one series, what stands behind the last event that was
seen or was received after it; of several, what was received after it, with an overlap. Devices' clocks differ and
jump, so that what is known may stand before, behind and between what is new: it is passed over.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from aiohttp import web

from reader.history.from_mongodb import FromMongoDB, HistoryUnavailable, Range
from reader.history.places import Places
from reader.http.queries import LAST_MS, MAX_LIMIT
from reader.live.audience import UNREADABLE, LiveEvent, Series, id_line, live_event
from reader.live.feed import Feed, Filter
from reader.live.from_live import EVERY_S
from reader.responses import Document
from readings.document import position_of, received_at_ms
from readings.keys import Position
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.live")

# Two persisters tell of neighbours in either order.
OVERLAP_MS = 2000
# How much of a gap is filled: so many readings are looked at in each series, and not what was received longer ago.
MAX_GAP_READINGS = 5000
MAX_GAP_MS = 10 * 60_000
# What is looked at in a series before it counts as one without anything new; some 1 ms.
FIRST_LOOK = 200
# When a reader is restarted all its feeds come back at once: so many gaps are read together, the others wait.
GAPS_AT_ONCE = 8
GAPS_AT_ONCE_OF_ONE = 4
# Live goes on after this, whatever is still missing: history has it.
GIVE_UP_S = 10.0
# Readings of a gap that are remembered until what was held meanwhile is handed on; of several series those that were
# received lately, for others are hardly told live now. Beyond it one may come twice. Some 150 bytes each.
MAX_REMEMBERED = 20_000
LATELY_MS = 60_000


class Missed(NamedTuple):
    """A reading of a gap; most are looked at and never become an event."""

    series: Series
    position: Position
    received_ms: int
    document: Document


Known = Callable[[LiveEvent | Missed], bool]


class Given:
    """What a feed has already: `last` and what was before it, if it follows one series, and what was written to it."""

    def __init__(self, last: tuple[int, Position] | None = None) -> None:
        self._last = last
        self._positions: set[tuple[Series, Position]] = set()

    def seen(self, reading: LiveEvent | Missed) -> bool:
        """Say whether a reading of one series was there when the last event was."""
        if self._last is None:
            return False
        return reading.position <= self._last[1] and reading.received_ms <= self._last[0]

    def has(self, reading: LiveEvent | Missed) -> bool:
        """Say whether a reading that was told live meanwhile need not come again."""
        return self.seen(reading) or (reading.series, reading.position) in self._positions

    def remember(self, readings: list[Missed]) -> None:
        """Take what history has given, also what was left out for a newer one."""
        since_ms = now_ms() - LATELY_MS
        for reading in readings:
            if len(self._positions) >= MAX_REMEMBERED:
                return
            if self._last is not None or reading.received_ms >= since_ms:
                self._positions.add((reading.series, reading.position))


class LiveGap:
    """Fills the gaps of all feeds."""

    def __init__(self, history: FromMongoDB) -> None:
        self._history = history
        self._places = Places(GAPS_AT_ONCE, GAPS_AT_ONCE_OF_ONE)

    async def fill(
        self, response: web.StreamResponse, owner: str, feed: Feed, since: tuple[int, Position] | None
    ) -> Known:
        """Write what was missed; return what tells which of the readings told meanwhile need not come again.

        Without MongoDB nothing is filled.
        """
        given = Given(since if None not in feed.wanted else None)
        if since is None:
            return given.has
        try:
            async with asyncio.timeout(GIVE_UP_S) as limit, self._places.one(owner):
                if None in feed.wanted:
                    await self._fill_all(response, owner, feed, since[0], given)
                else:
                    await self._fill_one(response, owner, feed, given)
        except HistoryUnavailable as error:
            log.warning("A gap in a live feed could not be filled.", error=str(error))
        except TimeoutError:
            if not limit.expired():
                raise  # the browser does not read
            log.warning("A gap in a live feed could not be filled.", error=f"it took more than {GIVE_UP_S:g} s")
        return given.has

    async def _fill_one(self, response: web.StreamResponse, owner: str, feed: Feed, given: Given) -> None:
        device, sensor_type = feed.wanted
        assert device is not None and sensor_type is not None  # noqa: S101, PT018 - for the type checker
        missed = await self._missed(owner, (device, sensor_type), given.seen)
        given.remember(missed)
        await _write(response, feed, missed, with_ids=True)

    async def _fill_all(
        self, response: web.StreamResponse, owner: str, feed: Feed, received_ms: int, given: Given
    ) -> None:
        """Fill series after series; only then comes an id, so that a feed cut in between begins again from its last."""
        since_ms = max(received_ms - OVERLAP_MS, now_ms() - MAX_GAP_MS)
        newest: Missed | None = None
        past: Series | None = None
        while True:
            page = await self._history.series(owner, *feed.wanted, past, MAX_LIMIT)
            for series in page:
                if feed.ended is not None:
                    return
                missed = await self._missed(owner, series, lambda reading: reading.received_ms <= since_ms)
                given.remember(missed)
                await _write(response, feed, missed, with_ids=False)
                newest = max((reading for reading in (newest, *missed) if reading), key=_received_ms, default=None)
            if len(page) < MAX_LIMIT:
                break
            past = page[-1]
        if newest is not None:
            await feed.write(response, id_line(newest.received_ms, newest.position))

    async def _missed(self, owner: str, series: Series, known: Known) -> list[Missed]:
        """Return what is not known, oldest first; the end is where a whole page has nothing new."""
        found: list[Missed] = []
        stretch, ahead_ms = Range(*series, descending=True), now_ms() + OVERLAP_MS
        left, most = MAX_GAP_READINGS, FIRST_LOOK
        while left > 0:
            most = min(left, most)
            page = await self._history.page(owner, stretch, most)
            fresh = [reading for reading in _readings(series, page) if not known(reading)]
            found += fresh
            if len(page) < most:
                break
            left, most = left - most, MAX_LIMIT
            position = position_of(page[-1])
            if fresh:
                stretch = replace(stretch, past=position)
            elif position[0] > ahead_ms:  # a clock was ahead for long: what it measures since stands before all that
                stretch = replace(stretch, past=(ahead_ms, 0))
            else:
                break
        return found[::-1]


def beginning(wanted: Filter, last_received_ms: int | None) -> tuple[int, Position]:
    """Return where a feed that has shown nothing yet begins: whatever a gateway receives from now on is new.

    `last_received_ms`: when the last reading was received that was told before; gateways' clocks may be behind, and so
    may the queue. Of one series the overlap is in it, of several it comes with the gap; no position counts.
    """
    now = now_ms()
    received_ms = max(min(now, now if last_received_ms is None else last_received_ms), now - MAX_GAP_MS)
    return received_ms - (0 if None in wanted else OVERLAP_MS), (LAST_MS, 0)


def _readings(series: Series, page: list[Document]) -> Iterator[Missed]:
    for document in page:
        try:
            yield Missed(series, position_of(document), received_at_ms(document) or 0, document)
        except UNREADABLE as error:  # as in the live feed: this one is left out
            log.debug("A reading of a gap was not understood.", error=str(error))


async def _write(response: web.StreamResponse, feed: Feed, missed: list[Missed], *, with_ids: bool) -> None:
    """Write the newest reading of each 100 ms, as the live feed would have."""
    thinned = list({reading.position[0] // int(EVERY_S * 1000): reading for reading in missed}.values())
    for start in range(0, len(thinned), MAX_LIMIT):
        events = [live_event(reading.document) for reading in thinned[start : start + MAX_LIMIT]]
        await feed.write(response, b"".join(event.data if with_ids else event.without_id for event in events))


def _received_ms(reading: Missed) -> int:
    return reading.received_ms
