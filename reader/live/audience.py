"""The feeds of one owner: what was heard is thinned and handed to those who want it, or held for those who resume."""

import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import bson
from bson.errors import InvalidBSON

from broker.live import LiveReading
from reader.live.feed import Feed, Filter
from reader.metrics import ReaderMetrics
from reader.responses import AS_STORED, Document, as_json, reading_answer
from readings.document import DocumentError, document_ts_ms, position_of, received_at_ms
from readings.keys import Position
from runtime.logs import logger

log = logger("reader.live")

# What a document raises that is no reading's, whatever is wrong with it; it ends neither a feed nor the process.
UNREADABLE = (InvalidBSON, DocumentError, struct.error, KeyError, OverflowError, TypeError, ValueError)
Series = tuple[str, str]


class LiveEvent(NamedTuple):
    """A reading on its way to browsers."""

    series: Series
    position: Position
    received_ms: int
    data: bytes

    @property
    def without_id(self) -> bytes:
        """The event in a form from which no feed goes on."""
        return self.data.replace(b"\nid: " + event_id(self.received_ms, self.position), b"", 1)


class Audience:
    """The feeds of one owner, and what was heard for them since the last time that they were served."""

    def __init__(self, metrics: ReaderMetrics) -> None:
        self._metrics = metrics
        self.heard: dict[Series, LiveReading] = {}
        self.feeds: dict[Filter, set[Feed]] = {}
        # Feeds that still read their gap from history; what comes meanwhile is held for them.
        self.resuming: dict[Feed, deque[LiveEvent]] = {}
        # Those of them that have read it, and what they have already; with the next serving they are as the others.
        self.resumed: dict[Feed, Callable[[LiveEvent], bool]] = {}

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
        """Give resumed feeds what was held for them, unless they have it already."""
        resumed, self.resumed = self.resumed, {}
        for feed, known in resumed.items():
            held = self.resuming.pop(feed)
            fresh = [event.data for event in held if not known(event)]
            if fresh:
                feed.offer(b"".join(fresh))
            self.feeds.setdefault(feed.wanted, set()).add(feed)


def filters_of(device: str, sensor_type: str) -> tuple[Filter, ...]:
    """Return every filter that lets a series through."""
    return ((None, None), (device, None), (None, sensor_type), (device, sensor_type))


def event_id(received_ms: int, position: Position) -> bytes:
    """Return what a client says as `Last-Event-ID`: when it was received, and where it stands in its series."""
    return b"%d-%d-%d" % (received_ms, *position)


def id_line(received_ms: int, position: Position) -> bytes:
    """Return what gives a feed a place to go on from. It ends no event: there is none to it."""
    return b"id: " + event_id(received_ms, position) + b"\n"


def live_event(document: Document) -> LiveEvent:
    """Return a reading as an event."""
    key, position = document["_id"], position_of(document)
    received = received_at_ms(document)
    received = position[0] if received is None else received
    name = b"event: reading\n" + id_line(received, position) + b"data: "
    data = name + as_json(reading_answer(document)) + b"\n\n"
    return LiveEvent((key["device"], key["sensorType"]), position, received, data)
