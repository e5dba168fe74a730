"""The live feeds of one owner: readings are thinned, then sent to matching feeds or held for feeds that resume."""

import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import bson
from bson.errors import InvalidBSON

from broker.live import LiveReading
from reader.live.feed import Feed, Filter
from reader.metrics import ReaderMetrics
from reader.responses import AS_STORED, Document, encode_json, reading_object
from readings.document import DocumentError, document_ts_ms, position_of, received_at_ms
from readings.keys import Position
from runtime.logs import logger

log = logger("reader.live")

# How often feeds are flushed; the newest reading of each series in that time is sent.
FLUSH_EVERY_S = 0.1
# Raised by documents that are not readings, whatever is wrong with them; they end neither a feed nor the process.
UNREADABLE = (InvalidBSON, DocumentError, struct.error, KeyError, OverflowError, TypeError, ValueError)
Series = tuple[str, str]


class LiveEvent(NamedTuple):
    """A reading, encoded as a Server-Sent Event."""

    series: Series
    position: Position
    received_ms: int
    data: bytes

    @property
    def without_id(self) -> bytes:
        """The event without its id: no feed resumes from it."""
        return self.data.replace(b"\nid: " + event_id(self.received_ms, self.position), b"", 1)


class OwnerFeeds:
    """The feeds of one owner, and the readings received for them since the last flush."""

    def __init__(self, metrics: ReaderMetrics) -> None:
        self._metrics = metrics
        self.pending: dict[Series, LiveReading] = {}
        self.feeds: dict[Filter, set[Feed]] = {}
        # Feeds still reading their backfill from history; what arrives meanwhile is held for them.
        self.resuming: dict[Feed, deque[LiveEvent]] = {}
        # Feeds whose backfill is complete, with the filter of what they already got; merged at the next flush.
        self.resumed: dict[Feed, Callable[[LiveEvent], bool]] = {}

    @property
    def empty(self) -> bool:
        """Whether there is no feed."""
        return not self.feeds and not self.resuming

    def add(self, reading: LiveReading) -> None:
        """Keep the newest reading of each series for the next flush."""
        series = (reading.device, reading.sensor_type)
        known = self.pending.get(series)
        if known is None or document_ts_ms(known.document) <= document_ts_ms(reading.document):
            self.pending[series] = reading

    def wanting(self, device: str, sensor_type: str) -> set[Feed]:
        """Return the feeds whose filter a series matches, those that resume included."""
        filters = filters_of(device, sensor_type)
        resuming = {feed for feed in self.resuming if not feed.filters.isdisjoint(filters)}
        return resuming.union(*(self.feeds.get(one, ()) for one in filters))

    def flush(self) -> None:
        """Send the pending readings to the feeds whose filter they match."""
        pending, self.pending = self.pending, {}
        offers: dict[Filter, list[bytes]] = {}
        for (device, sensor_type), reading in pending.items():
            filters = filters_of(device, sensor_type)
            matching = [wanted for wanted in filters if wanted in self.feeds]
            backlogs = [held for feed, held in self.resuming.items() if not feed.filters.isdisjoint(filters)]
            if not matching and not backlogs:
                continue
            try:
                event = live_event(bson.decode(reading.document, AS_STORED))
            except UNREADABLE as error:  # skip this one, send the others
                self._metrics.live_unreadable.inc()
                log.debug("A live reading could not be decoded.", error=str(error))
                continue
            for wanted in matching:
                offers.setdefault(wanted, []).append(event.data)
            for held in backlogs:
                held.append(event)
        for wanted, events in offers.items():
            together = b"".join(events)
            for feed in self.feeds[wanted]:
                feed.offer(together)
        self._merge_resumed()

    def _merge_resumed(self) -> None:
        """Give resumed feeds the events held for them, except those they already have."""
        resumed, self.resumed = self.resumed, {}
        for feed, known in resumed.items():
            held = self.resuming.pop(feed)
            fresh = [event.data for event in held if not known(event)]
            if fresh:
                feed.offer(b"".join(fresh))
            for wanted in feed.filters:
                self.feeds.setdefault(wanted, set()).add(feed)


def filters_of(device: str, sensor_type: str) -> tuple[Filter, ...]:
    """Return every filter that matches a series."""
    return ((None, None), (device, None), (None, sensor_type), (device, sensor_type))


def event_id(received_ms: int, position: Position) -> bytes:
    """Return the `Last-Event-ID` of a reading: its time of receipt, and its position in its series."""
    return b"%d-%d-%d" % (received_ms, *position)


def id_line(received_ms: int, position: Position) -> bytes:
    """Return an `id` line, from which a feed can resume. It does not end an event."""
    return b"id: " + event_id(received_ms, position) + b"\n"


def live_event(document: Document) -> LiveEvent:
    """Return a reading as an event."""
    key, position = document["_id"], position_of(document)
    received = received_at_ms(document)
    received = position[0] if received is None else received
    name = b"event: reading\n" + id_line(received, position) + b"data: "
    data = name + encode_json(reading_object(document)) + b"\n\n"
    return LiveEvent((key["device"], key["sensorType"]), position, received, data)
