"""BROKER → READER: what persisters have stored a moment ago, thinned again and handed to every feed that wants it.

Persisters tell the newest of each series in 100 ms, each of them; here what all of them told within 100 ms becomes at
most one event a series. An event is made once, and those who want the same share the same bytes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from broker.interface import Broker, Subscriber
from broker.live import LiveReading, live_readings
from broker.topology import LIVE_EXCHANGE
from reader.live.audience import UNREADABLE, Audience, LiveEvent
from reader.live.feed import HEARTBEAT, Feed
from reader.metrics import ReaderMetrics
from readings.document import DocumentError, received_ms, split_documents
from runtime.background import background
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.live")

EVERY_S = 0.1
# Payloads of up to 1 MiB that wait to be heard; beyond it the oldest are dropped.
BOUND = 64
# Owners whose last reading is remembered, for their lag; then all are forgotten.
MAX_OWNERS = 10_000
# A lag that was seen longer ago says nothing of now.
LAG_KEPT_S = 10.0
# Events that are held for a feed which reads its gap; the oldest are dropped.
MAX_HELD = 10_000


class FromLive:
    """Everybody's feeds."""

    def __init__(self, subscriber: Subscriber, metrics: ReaderMetrics, *, heartbeat_s: float) -> None:
        self._subscriber = subscriber
        self._metrics = metrics
        self._heartbeat_s = heartbeat_s
        self._audiences: dict[str, Audience] = {}
        # Of each owner the last document that was heard, and when that was, in milliseconds since 1970.
        self._last: dict[str, tuple[bytes, int]] = {}
        self.check = subscriber.check

    @classmethod
    @asynccontextmanager
    async def heard(cls, broker: Broker, metrics: ReaderMetrics, *, heartbeat_s: float) -> AsyncIterator["FromLive"]:
        """Listen and serve as long as the context lasts."""
        async with broker.subscriber(LIVE_EXCHANGE, bound=BOUND) as subscriber:
            live = cls(subscriber, metrics, heartbeat_s=heartbeat_s)
            async with background(live.listen(), live.serve(), live.beat(), name="live"):
                yield live

    async def listen(self) -> None:
        """Take in what persisters tell, for ever."""
        async for payload in self._subscriber:
            self._take(self._readings(payload))

    def _readings(self, payload: bytes) -> list[LiveReading]:
        """Return the readings of a payload; what cannot be read of it is counted and left out."""
        try:
            return live_readings(payload)
        except UNREADABLE as error:
            log.debug("A live payload was not understood.", error=str(error))
        try:
            documents = split_documents(payload)
        except DocumentError:
            self._metrics.live_unreadable.inc()
            return []
        found: list[LiveReading] = []
        for document in documents:
            try:
                found += live_readings(document)
            except UNREADABLE:
                self._metrics.live_unreadable.inc()
        return found

    def _take(self, readings: list[LiveReading]) -> None:
        heard_ms = now_ms()
        if len(self._last) > MAX_OWNERS:
            self._last.clear()
        for reading in readings:
            self._last[reading.owner] = (reading.document, heard_ms)
            audience = self._audiences.get(reading.owner)
            if audience is None:
                continue
            try:
                audience.hear(reading)
            except UNREADABLE:  # its `ts` lies beyond its end
                self._metrics.live_unreadable.inc()

    async def serve(self) -> None:
        """Serve everybody every 100 ms, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            for owner, audience in self._audiences.items():
                heard = bool(audience.heard)
                if heard or audience.resumed:
                    audience.serve()
                if heard and (lag_s := self.lag_s(owner)) is not None:
                    self._metrics.live_lag_seconds.observe(lag_s)

    async def beat(self) -> None:
        """Show every feed that it lives, for ever."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            for feed in self.feeds():
                feed.offer(HEARTBEAT)

    def feeds(self) -> list[Feed]:
        """Return every open feed."""
        return [
            feed
            for audience in self._audiences.values()
            for feeds in (*audience.feeds.values(), audience.resuming)
            for feed in feeds
        ]

    @contextmanager
    def joined(self, owner: str, feed: Feed) -> Iterator[None]:
        """Let a feed have what comes, held for it until `resumed`; without a gap to fill, call that at once."""
        audience = self._audiences.setdefault(owner, Audience(self._metrics))
        audience.resuming[feed] = deque(maxlen=MAX_HELD)
        self._metrics.live_feeds.inc()
        try:
            yield
        finally:
            self._metrics.live_feeds.dec()
            audience.resuming.pop(feed, None)
            audience.resumed.pop(feed, None)
            if feed in (feeds := audience.feeds.get(feed.wanted, set())):
                feeds.remove(feed)
                if not feeds:
                    del audience.feeds[feed.wanted]
            if audience.empty:
                self._audiences.pop(owner, None)

    def resumed(self, owner: str, feed: Feed, known: Callable[[LiveEvent], bool]) -> None:
        """Let a feed have what was held for it, unless it is known already, and from now on what comes."""
        self._audiences[owner].resumed[feed] = known

    def last_received_ms(self, owner: str) -> int | None:
        """Return when a gateway received the last reading of an owner that was told; None where none was."""
        try:
            return received_ms(self._last[owner][0])
        except UNREADABLE:  # KeyError among them
            return None

    def lag_s(self, owner: str) -> float | None:
        """Return how long an owner's last reading took from its gateway to here; None where there was none lately."""
        document, heard_ms = self._last.get(owner, (b"", 0))
        if now_ms() - heard_ms > LAG_KEPT_S * 1000:
            return None
        try:
            return max(0, heard_ms - received_ms(document)) / 1000
        except UNREADABLE:
            return None
