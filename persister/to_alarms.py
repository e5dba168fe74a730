"""PERSISTER → ALARMS: announces what was stored of series that rules watch, before the messages are acknowledged.

A persister that dies behind the write gets the messages again, finds their readings stored, and announces them: so
duplicates are announced, too. Readings come before alarms: where the alarms' queue is full, or refuses, they are stored
and acknowledged all the same, and what was not announced is counted and logged.
"""

from collections.abc import Iterator

from bson import Int64

from broker.alarms import Value, WatchedReading, WatchedReadings, announcements
from broker.failpoints import failpoint
from broker.headers import SCHEMA_HEADER
from broker.interface import BrokerRefused, Publisher, QueueFull
from broker.message import Message
from broker.topology import ALARMS_EXCHANGE
from persister.batch import Batch, Outcome
from persister.known_series import key_of_name
from persister.metrics import PersisterMetrics
from persister.watched import WatchedSeries
from readings.document import decode_document, position_of, received_at_ms
from runtime.logs import logger

log = logger("persister.alarms")

SCHEMA = 1
_STORED = (Outcome.STORED, Outcome.DUPLICATE)


class ToAlarms:
    """Announces for one worker."""

    def __init__(self, publisher: Publisher, watched: WatchedSeries, metrics: PersisterMetrics) -> None:
        self._publisher = publisher
        self._watched = watched
        self._metrics = metrics
        self._is_refused = False

    def watched_of(self, batch: Batch) -> list[bytes]:
        """Return the names of a batch's series that rules watch: for most batches none."""
        if self._watched.none_at_all:
            return []
        return [name for name in batch.series if name and self._watched.watches(name)]

    async def announce(self, batch: Batch, names: list[bytes]) -> None:
        """Return when what is stored of these series is announced; BrokerError to try again."""
        failpoint("persister.before_announce")
        for body in announcements(_stored(batch, names)):
            try:
                await self._publisher.publish(Message(body, {SCHEMA_HEADER: SCHEMA}), ALARMS_EXCHANGE)
            except (QueueFull, BrokerRefused) as error:
                self._metrics.unannounced.inc()
                if not self._is_refused:
                    log.error("Stored readings cannot be announced; their alarms are missed.", error=str(error))
                self._is_refused = True
            else:
                if self._is_refused:
                    log.info("Stored readings are announced again.")
                self._is_refused = False
        failpoint("persister.announced")


def _stored(batch: Batch, names: list[bytes]) -> Iterator[WatchedReadings]:
    """Yield the readings of these series that are stored."""
    for name in names:
        key = key_of_name(name)
        stored = [batch.documents[index] for index in batch.series[name] if batch.outcomes[index] in _STORED]
        if not stored:
            continue
        readings, unit = [], None
        for document in map(decode_document, stored):
            ts_ms, seq = position_of(document)
            value, received_ms = _plain(document["value"]), received_at_ms(document)
            readings.append(WatchedReading(ts_ms, seq, value, ts_ms if received_ms is None else received_ms))
            unit = document.get("unit")
        yield WatchedReadings(key["owner"], key["device"], key["sensorType"], unit, readings)


def _plain(value: Value) -> Value:
    """Return a value without the type that BSON has for integers of 64 bits."""
    return int(value) if type(value) is Int64 else value
