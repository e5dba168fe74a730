"""Backfill: reads from history what a live feed missed while disconnected, thinned as in the live feed and bounded.

Each series is read backwards from its newest reading. In a feed of one series, a reading is new if it lies after the
last event seen or was received after it; in a feed of several, if it was received after it, with an overlap. Devices'
clocks differ and jump, so known readings may lie before, after and between new ones: they are skipped.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from aiohttp import web

from reader.history.from_mongodb import FromMongoDB, HistoryUnavailable, Range
from reader.http.queries import LAST_MS, MAX_LIMIT
from reader.live.feed import Feed, Filter
from reader.live.owner_feeds import FLUSH_EVERY_S, UNREADABLE, LiveEvent, Series, id_line, live_event
from reader.responses import Document
from readings.document import position_of, received_at_ms
from readings.keys import Position
from runtime.fair_semaphore import FairSemaphore
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.live")

# Two persisters may broadcast neighbouring readings in either order.
OVERLAP_MS = 2000
# Bounds of a backfill: readings examined in each series, and how long ago they were received.
MAX_READINGS = 5000
MAX_AGE_MS = 10 * 60_000
# Readings examined before a series counts as unchanged; takes some 1 ms.
FIRST_PAGE = 200
# When a reader restarts, all its feeds reconnect at once: this many backfills run together, the others wait.
MAX_CONCURRENT = 8
MAX_CONCURRENT_PER_OWNER = 4
# The live feed continues after this time, whatever is still missing; history has it.
TIMEOUT_S = 10.0
# Backfilled readings kept until the events held meanwhile are sent; for feeds of several series only those received
# recently, since others are hardly broadcast now. Beyond it, a reading may be sent twice. Some 150 bytes each.
MAX_SEEN = 20_000
RECENT_MS = 60_000


class MissedReading(NamedTuple):
    """A reading found by a backfill; most are examined and never become an event."""

    series: Series
    position: Position
    received_ms: int
    document: Document


IsKnown = Callable[[LiveEvent | MissedReading], bool]


class SeenReadings:
    """The readings a feed already has: up to `last` (received_ms, position) for one series, and all written to it."""

    def __init__(self, last: tuple[int, Position] | None = None) -> None:
        self._last = last
        self._positions: set[tuple[Series, Position]] = set()

    def seen(self, reading: LiveEvent | MissedReading) -> bool:
        """Return whether a reading of one series existed at the time of the last event."""
        if self._last is None:
            return False
        return reading.position <= self._last[1] and reading.received_ms <= self._last[0]

    def has(self, reading: LiveEvent | MissedReading) -> bool:
        """Return whether the feed already has a reading that was broadcast meanwhile."""
        return self.seen(reading) or (reading.series, reading.position) in self._positions

    def add(self, readings: list[MissedReading]) -> None:
        """Record backfilled readings, including those thinned out for a newer one."""
        since_ms = now_ms() - RECENT_MS
        for reading in readings:
            if len(self._positions) >= MAX_SEEN:
                return
            if self._last is not None or reading.received_ms >= since_ms:
                self._positions.add((reading.series, reading.position))


class Backfill:
    """Writes the readings that reconnecting feeds have missed."""

    def __init__(self, history: FromMongoDB) -> None:
        self._history = history
        self._slots = FairSemaphore(MAX_CONCURRENT, MAX_CONCURRENT_PER_OWNER)

    async def fill(
        self, response: web.StreamResponse, owner: str, feed: Feed, since: tuple[int, Position] | None
    ) -> IsKnown:
        """Write what was missed; return a filter of the readings the feed already has.

        While MongoDB is unavailable, nothing is written.
        """
        seen_readings = SeenReadings(since if None not in feed.wanted else None)
        if since is None:
            return seen_readings.has
        try:
            async with asyncio.timeout(TIMEOUT_S) as limit, self._slots.slot(owner):
                if None in feed.wanted:
                    await self._fill_all(response, owner, feed, since[0], seen_readings)
                else:
                    await self._fill_one(response, owner, feed, seen_readings)
        except HistoryUnavailable as error:
            log.warning("A live feed could not be backfilled.", error=str(error))
        except TimeoutError:
            if not limit.expired():
                raise  # the client does not read
            log.warning("A live feed could not be backfilled.", error=f"timed out after {TIMEOUT_S:g} s")
        return seen_readings.has

    async def _fill_one(
        self, response: web.StreamResponse, owner: str, feed: Feed, seen_readings: SeenReadings
    ) -> None:
        device, sensor_type = feed.wanted
        assert device is not None and sensor_type is not None  # noqa: S101, PT018 - for the type checker
        missed = await self._missed_readings(owner, (device, sensor_type), seen_readings.seen)
        seen_readings.add(missed)
        await _write(response, feed, missed, with_ids=True)

    async def _fill_all(
        self, response: web.StreamResponse, owner: str, feed: Feed, received_ms: int, seen_readings: SeenReadings
    ) -> None:
        """Backfill series by series and write an id only at the end: a feed cut in between resumes from its last id."""
        since_ms = max(received_ms - OVERLAP_MS, now_ms() - MAX_AGE_MS)
        newest: MissedReading | None = None
        past: Series | None = None
        while True:
            page = await self._history.series(owner, *feed.wanted, past, MAX_LIMIT, feed.within)
            for series in page:
                if feed.ended is not None:
                    return
                missed = await self._missed_readings(owner, series, lambda reading: reading.received_ms <= since_ms)
                seen_readings.add(missed)
                await _write(response, feed, missed, with_ids=False)
                newest = max((reading for reading in (newest, *missed) if reading), key=_received_ms, default=None)
            if len(page) < MAX_LIMIT:
                break
            past = page[-1]
        if newest is not None:
            await feed.write(response, id_line(newest.received_ms, newest.position))

    async def _missed_readings(self, owner: str, series: Series, known: IsKnown) -> list[MissedReading]:
        """Return the unknown readings, oldest first; stops at a whole page without a new one."""
        found: list[MissedReading] = []
        range_, ahead_ms = Range(*series, descending=True), now_ms() + OVERLAP_MS
        left, page_size = MAX_READINGS, FIRST_PAGE
        while left > 0:
            page_size = min(left, page_size)
            page = await self._history.page(owner, range_, page_size)
            fresh = [reading for reading in _readings(series, page) if not known(reading)]
            found += fresh
            if len(page) < page_size:
                break
            left, page_size = left - page_size, MAX_LIMIT
            position = position_of(page[-1])
            if fresh:
                range_ = replace(range_, past=position)
            elif position[0] > ahead_ms:  # the device's clock was ahead: skip these to reach later measurements
                range_ = replace(range_, past=(ahead_ms, 0))
            else:
                break
        return found[::-1]


def start_position(wanted: Filter, last_received_ms: int | None) -> tuple[int, Position]:
    """Return the (received_ms, position) of a feed without an event: what gateways receive from now on is new.

    `last_received_ms`: when the last reading broadcast so far was received; gateways' clocks and the queue may lag. For
    one series the overlap is subtracted here, for several during backfill; every position is before the start.
    """
    now = now_ms()
    received_ms = max(min(now, now if last_received_ms is None else last_received_ms), now - MAX_AGE_MS)
    return received_ms - (0 if None in wanted else OVERLAP_MS), (LAST_MS, 0)


def _readings(series: Series, page: list[Document]) -> Iterator[MissedReading]:
    for document in page:
        try:
            yield MissedReading(series, position_of(document), received_at_ms(document) or 0, document)
        except UNREADABLE as error:  # skipped, as in the live feed
            log.debug("A backfilled reading could not be decoded.", error=str(error))


async def _write(response: web.StreamResponse, feed: Feed, missed: list[MissedReading], *, with_ids: bool) -> None:
    """Write the newest reading of each 100 ms, as the live feed does."""
    thinned = list({reading.position[0] // int(FLUSH_EVERY_S * 1000): reading for reading in missed}.values())
    for start in range(0, len(thinned), MAX_LIMIT):
        events = [live_event(reading.document) for reading in thinned[start : start + MAX_LIMIT]]
        await feed.write(response, b"".join(event.data if with_ids else event.without_id for event in events))


def _received_ms(reading: MissedReading) -> int:
    return reading.received_ms
