"""What a live feed missed while it was away, out of history: as the feed would have shown it, and within bounds.

Of one series it is exact: what came behind the position of the last event. Of several it goes by the time of receipt,
each series back from its newest reading, because devices' clocks differ and the gateways' do not.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from aiohttp import web

from reader.answers import Document, received_at_ms
from reader.from_live import EVERY_S, Series, live_event
from reader.from_mongodb import FromMongoDB, HistoryUnavailable, Range, position_of
from reader.live_feed import Feed
from reader.queries import MAX_LIMIT, Position
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.live")

# Two persisters tell of neighbours in either order.
OVERLAP_MS = 2000
# How much of a gap is filled: so many readings are looked at in each series, and not what was received longer ago.
MAX_GAP_READINGS = 5000
MAX_GAP_MS = 10 * 60_000
# When a reader is restarted all its feeds come back at once: so many gaps are read together, the others wait.
GAPS_AT_ONCE = 8
# Live goes on after this, whatever is still missing: history has it.
GIVE_UP_S = 10.0


class LiveGap:
    """Fills the gaps of all feeds."""

    def __init__(self, history: FromMongoDB) -> None:
        self._history = history
        self._room = asyncio.Semaphore(GAPS_AT_ONCE)

    async def fill(
        self, response: web.StreamResponse, owner: str, feed: Feed, since: tuple[int, Position] | None
    ) -> dict[Series, Position]:
        """Write what was missed; return up to where that goes in each series. Without MongoDB nothing is filled."""
        written: dict[Series, Position] = {}
        if since is None:
            return written
        try:
            async with asyncio.timeout(GIVE_UP_S) as limit, self._room:
                await self._fill(response, owner, feed, since, written)
        except HistoryUnavailable as error:
            log.warning("A gap in a live feed could not be filled.", error=str(error))
        except TimeoutError:
            if not limit.expired():
                raise  # the browser does not read
            log.warning("A gap in a live feed could not be filled.", error=f"it took more than {GIVE_UP_S:g} s")
        return written

    async def _fill(
        self,
        response: web.StreamResponse,
        owner: str,
        feed: Feed,
        since: tuple[int, Position],
        written: dict[Series, Position],
    ) -> None:
        received_ms, position = since
        device, sensor_type = feed.wanted
        if device is not None and sensor_type is not None:
            written[device, sensor_type] = position
            stretch = Range(device, sensor_type, from_ms=position[0], descending=True)
            missed = await self._back_to(owner, stretch, lambda document: position_of(document) <= position)
            await _write(response, feed, missed, written)
            return
        since_ms = max(received_ms - OVERLAP_MS, now_ms() - MAX_GAP_MS)
        for series in await self._history.series(owner, device, sensor_type, None, MAX_LIMIT):
            if feed.ended is not None:
                return
            stretch = Range(*series, descending=True)
            missed = await self._back_to(owner, stretch, lambda document: _received_ms(document) <= since_ms)
            await _write(response, feed, missed, written)

    async def _back_to(self, owner: str, newest_first: Range, known: Callable[[Document], bool]) -> list[Document]:
        """Return what came after the newest reading that is known, oldest first."""
        found: list[Document] = []
        async with aclosing(self._history.stream(owner, newest_first, MAX_GAP_READINGS)) as batches:
            async for batch in batches:
                for document in batch:
                    if known(document):
                        return found[::-1]
                    found.append(document)
        return found[::-1]


async def _write(
    response: web.StreamResponse, feed: Feed, found: list[Document], written: dict[Series, Position]
) -> None:
    """Write the newest reading of each 100 ms, as the live feed would have."""
    thinned = list({position_of(document)[0] // int(EVERY_S * 1000): document for document in found}.values())
    for start in range(0, len(thinned), MAX_LIMIT):
        events = [live_event(document) for document in thinned[start : start + MAX_LIMIT]]
        await feed.write(response, b"".join(event.data for event in events))
        written[events[-1].series] = events[-1].position


def _received_ms(document: Document) -> int:
    received = received_at_ms(document)
    return 0 if received is None else received
