"""BROKER → READER: what persisters have stored a moment ago, thinned again and handed to every feed that wants it.

Persisters tell the newest of each series in 100 ms, each of them; here what all of them told within 100 ms becomes at
most one event a series. An event is made once, and those who want the same share the same bytes.
"""

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import bson
from bson.errors import InvalidBSON

from broker.document import DocumentError, document_ts_ms, received_ms, split_documents
from broker.interface import Broker, Listener
from broker.live import LiveReading, live_readings
from broker.topology import LIVE_EXCHANGE
from reader.answers import AS_STORED, Document, as_json, reading_answer, received_at_ms
from reader.from_mongodb import position_of
from reader.live_feed import HEARTBEAT, Feed, Filter
from reader.metrics import ReaderMetrics
from reader.queries import Position
from runtime.beside import beside
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
# What a document raises that is no reading's, whatever is wrong with it; it ends neither a feed nor the process.
UNREADABLE = (InvalidBSON, DocumentError, struct.error, KeyError, OverflowError, TypeError, ValueError)
Series = tuple[str, str]
BEFORE_ALL: Position = (-(2**63), 0)


class LiveEvent(NamedTuple):
    """A reading on its way to browsers."""

    series: Series
    position: Position
    data: bytes


class Audience:
    """The feeds of one owner, and what was heard for them since the last time that they were served."""

    def __init__(self, metrics: ReaderMetrics) -> None:
        self._metrics = metrics
        self.heard: dict[Series, LiveReading] = {}
        self.feeds: dict[Filter, set[Feed]] = {}
        # Feeds that still read their gap from history; what comes meanwhile is held for them.
        self.resuming: dict[Feed, deque[LiveEvent]] = {}
        # Those of them that have read it, and up to where in each series; with the next serving they are as the others.
        self.resumed: dict[Feed, dict[Series, Position]] = {}

    @property
    def empty(self) -> bool:
        """Whether nobody is here."""
        return not self.feeds and not self.resuming

    def hear(self, reading: LiveReading) -> None:
        """Keep the newest reading of each series."""
        series = (reading.device, reading.sensor_type)
        known = self.heard.get(series)
        if known is None or document_ts_ms(known.document) <= document_ts_ms(reading.document):
            self.heard[series] = reading

    def serve(self) -> None:
        """Hand what was heard to those who want it."""
        heard, self.heard = self.heard, {}
        offers: dict[Filter, list[bytes]] = {}
        for (device, sensor_type), reading in heard.items():
            filters = filters_of(device, sensor_type)
            wanting = [wanted for wanted in filters if wanted in self.feeds]
            holding = [held for feed, held in self.resuming.items() if feed.wanted in filters]
            if not wanting and not holding:
                continue
            try:
                event = live_event(bson.decode(reading.document, AS_STORED))
            except UNREADABLE as error:  # this one is left out; the others are served
                self._metrics.live_unreadable.inc()
                log.debug("A live reading was not understood.", error=str(error))
                continue
            for wanted in wanting:
                offers.setdefault(wanted, []).append(event.data)
            for held in holding:
                held.append(event)
        for wanted, events in offers.items():
            together = b"".join(events)
            for feed in self.feeds[wanted]:
                feed.offer(together)
        self._take_in_resumed()

    def _take_in_resumed(self) -> None:
        """Give resumed feeds what was held for them, unless history had it already."""
        resumed, self.resumed = self.resumed, {}
        for feed, up_to in resumed.items():
            held = self.resuming.pop(feed)
            fresh = [event.data for event in held if event.position > up_to.get(event.series, BEFORE_ALL)]
            if fresh:
                feed.offer(b"".join(fresh))
            self.feeds.setdefault(feed.wanted, set()).add(feed)


class FromLive:
    """Everybody's feeds."""

    def __init__(self, listener: Listener, metrics: ReaderMetrics, *, heartbeat_s: float) -> None:
        self._listener = listener
        self._metrics = metrics
        self._heartbeat_s = heartbeat_s
        self._audiences: dict[str, Audience] = {}
        # Of each owner the last document that was heard, and when that was, in milliseconds since 1970.
        self._last: dict[str, tuple[bytes, int]] = {}
        self.check = listener.check

    @classmethod
    @asynccontextmanager
    async def heard(cls, broker: Broker, metrics: ReaderMetrics, *, heartbeat_s: float) -> AsyncIterator["FromLive"]:
        """Listen and serve as long as the context lasts."""
        async with broker.listener(LIVE_EXCHANGE, bound=BOUND) as listener:
            live = cls(listener, metrics, heartbeat_s=heartbeat_s)
            async with beside(live.listen(), live.serve(), live.beat(), name="live"):
                yield live

    async def listen(self) -> None:
        """Take in what persisters tell, for ever."""
        async for payload in self._listener:
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

    def resumed(self, owner: str, feed: Feed, up_to: dict[Series, Position]) -> None:
        """Let a feed have what was held for it, unless history had it already, and from now on what comes."""
        self._audiences[owner].resumed[feed] = up_to

    def lag_s(self, owner: str) -> float | None:
        """Return how long an owner's last reading took from its gateway to here; None where there was none lately."""
        document, heard_ms = self._last.get(owner, (b"", 0))
        if now_ms() - heard_ms > LAG_KEPT_S * 1000:
            return None
        try:
            return max(0, heard_ms - received_ms(document)) / 1000
        except UNREADABLE:
            return None


def filters_of(device: str, sensor_type: str) -> tuple[Filter, ...]:
    """Return every filter that lets a series through."""
    return ((None, None), (device, None), (None, sensor_type), (device, sensor_type))


def live_event(document: Document) -> LiveEvent:
    """Return a reading as an event; its id says when it was received, and where it stands in its series."""
    key, position = document["_id"], position_of(document)
    received = received_at_ms(document)
    received = position[0] if received is None else received
    name = f"event: reading\nid: {received}-{position[0]}-{position[1]}\ndata: ".encode()
    data = name + as_json(reading_answer(document)) + b"\n\n"
    return LiveEvent((key["device"], key["sensorType"]), position, data)
