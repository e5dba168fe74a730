"""BROKER → READER: readings that persisters have just stored, thinned again and sent to every matching feed.

Each persister broadcasts the newest reading of each series in 100 ms; here the broadcasts of all persisters within
100 ms become at most one event per series. An event is encoded once, and feeds with the same filter share its bytes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from broker.interface import Broker, Subscriber
from broker.live import LiveReading, forget_series, live_readings
from broker.topology import LIVE_EXCHANGE
from reader.live.feed import HEARTBEAT, Feed
from reader.live.owner_feeds import FLUSH_EVERY_S, UNREADABLE, LiveEvent, OwnerFeeds
from reader.metrics import ReaderMetrics
from readings.document import DocumentError, received_ms, split_documents
from runtime.background import background
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.live")

# Queued payloads of up to 1 MiB each; beyond it the oldest are dropped.
MAX_QUEUED_PAYLOADS = 64
# Owners whose last reading is kept to compute their lag; beyond it all are cleared.
MAX_OWNERS = 10_000
# An older lag says nothing about the present.
LAG_VALID_S = 10.0
# Devices come and go: the memory of the series of those that are gone is freed.
FORGET_SERIES_EVERY_S = 600.0
# Events held for a feed that reads its backfill; beyond it the oldest are dropped.
MAX_HELD = 10_000


class FromLive:
    """The feeds of all owners."""

    def __init__(self, subscriber: Subscriber, metrics: ReaderMetrics, *, heartbeat_s: float) -> None:
        self._subscriber = subscriber
        self._metrics = metrics
        self._heartbeat_s = heartbeat_s
        self._owner_feeds: dict[str, OwnerFeeds] = {}
        # By owner: the last document received, and when, in milliseconds since 1970.
        self._last: dict[str, tuple[bytes, int]] = {}
        self.check = subscriber.check

    @classmethod
    @asynccontextmanager
    async def subscribed(
        cls, broker: Broker, metrics: ReaderMetrics, *, heartbeat_s: float
    ) -> AsyncIterator["FromLive"]:
        """Subscribe and serve feeds while the context is open."""
        async with broker.subscriber(LIVE_EXCHANGE, bound=MAX_QUEUED_PAYLOADS) as subscriber:
            live = cls(subscriber, metrics, heartbeat_s=heartbeat_s)
            async with background(
                live.receive(), live.flush(), live.send_heartbeats(), live.forget_series(), name="live"
            ):
                yield live

    async def receive(self) -> None:
        """Take in what persisters broadcast; never returns."""
        async for payload in self._subscriber:
            self._add(self._readings(payload))

    def _readings(self, payload: bytes) -> list[LiveReading]:
        """Return the readings of a payload; those that cannot be decoded are counted and skipped."""
        try:
            return live_readings(payload)
        except UNREADABLE as error:
            log.debug("A live payload could not be decoded.", error=str(error))
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

    def _add(self, readings: list[LiveReading]) -> None:
        received_at_ms = now_ms()
        if len(self._last) > MAX_OWNERS:
            self._last.clear()
        for reading in readings:
            self._last[reading.owner] = (reading.document, received_at_ms)
            feeds = self._owner_feeds.get(reading.owner)
            if feeds is None:
                continue
            try:
                feeds.add(reading)
            except UNREADABLE:  # its `ts` lies beyond its end
                self._metrics.live_unreadable.inc()

    async def flush(self) -> None:
        """Flush the feeds of all owners every 100 ms; never returns."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            for owner, feeds in self._owner_feeds.items():
                pending = bool(feeds.pending)
                if pending or feeds.resumed:
                    feeds.flush()
                if pending and (lag_s := self.lag_s(owner)) is not None:
                    self._metrics.live_lag_seconds.observe(lag_s)

    async def send_heartbeats(self) -> None:
        """Send a heartbeat to every feed every `heartbeat_s`; never returns."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            for feed in self.feeds():
                feed.offer(HEARTBEAT)

    async def forget_series(self) -> None:
        """Forget every ten minutes which series were received; never returns."""
        while True:
            await asyncio.sleep(FORGET_SERIES_EVERY_S)
            forget_series()

    def feeds(self) -> list[Feed]:
        """Return every open feed."""
        return list(
            dict.fromkeys(
                feed
                for owner_feeds in self._owner_feeds.values()
                for feeds in (*owner_feeds.feeds.values(), owner_feeds.resuming)
                for feed in feeds
            )
        )

    def offer_alarm(self, owner: str, device: str, sensor_type: str, event: bytes) -> None:
        """Give an alarm to the owner's feeds that see alarms and want its series, those that resume included."""
        owner_feeds = self._owner_feeds.get(owner)
        if owner_feeds is not None:
            for feed in owner_feeds.wanting(device, sensor_type):
                if feed.sees_alarms:
                    feed.offer(event)

    @contextmanager
    def joined(self, owner: str, feed: Feed) -> Iterator[None]:
        """Register a feed while the context is open; events are held for it until `resumed` is called."""
        owner_feeds = self._owner_feeds.setdefault(owner, OwnerFeeds(self._metrics))
        owner_feeds.resuming[feed] = deque(maxlen=MAX_HELD)
        self._metrics.live_feeds.inc()
        try:
            yield
        finally:
            self._metrics.live_feeds.dec()
            owner_feeds.resuming.pop(feed, None)
            owner_feeds.resumed.pop(feed, None)
            for wanted in feed.filters:
                if feed in (feeds := owner_feeds.feeds.get(wanted, set())):
                    feeds.remove(feed)
                    if not feeds:
                        del owner_feeds.feeds[wanted]
            if owner_feeds.empty:
                self._owner_feeds.pop(owner, None)

    def resumed(self, owner: str, feed: Feed, known: Callable[[LiveEvent], bool]) -> None:
        """Give a feed the events held for it, except those `known` accepts, and from now on all that match."""
        self._owner_feeds[owner].resumed[feed] = known

    def last_received_ms(self, owner: str) -> int | None:
        """Return when a gateway received the last reading broadcast for an owner; None if there was none."""
        try:
            return received_ms(self._last[owner][0])
        except UNREADABLE:  # includes KeyError
            return None

    def lag_s(self, owner: str) -> float | None:
        """Return the seconds from a gateway's receipt of an owner's last reading to here; None without a recent one."""
        document, received_at_ms = self._last.get(owner, (b"", 0))
        if now_ms() - received_at_ms > LAG_VALID_S * 1000:
            return None
        try:
            return max(0, received_at_ms - received_ms(document)) / 1000
        except UNREADABLE:
            return None
