"""PERSISTER → ALARMS: announces stored readings of series that rules watch, before the messages are acknowledged.

If a persister dies after the write, the messages come again, and their readings are found stored and announced: so
duplicates are announced, too. Readings come before alarms: while the alarms' queue is full, or refuses, they are stored
and acknowledged all the same, and what was not announced is counted and logged.
"""

from collections.abc import Iterator

from broker.alarms import WatchedReading, WatchedReadings, announcements
from broker.failpoints import failpoint
from broker.headers import SCHEMA_HEADER
from broker.interface import BrokerRefused, Publisher, QueueFull
from broker.message import Message
from broker.topology import ALARMS_EXCHANGE
from persister.batch import Batch, Outcome
from persister.metrics import PersisterMetrics
from persister.watched import WatchedSeries
from readings.document import DocumentError
from readings.fields import fields_of
from runtime.logs import logger

log = logger("persister.alarms")

SCHEMA = 1
_STORED = frozenset({Outcome.STORED, Outcome.DUPLICATE})


class ToAlarms:
    """Announces for one worker."""

    def __init__(self, publisher: Publisher, watched: WatchedSeries, metrics: PersisterMetrics) -> None:
        self._publisher = publisher
        self._watched = watched
        self._metrics = metrics
        self._is_refused = False

    def watched_of(self, batch: Batch) -> list[bytes]:
        """Return the names of a batch's series that rules watch: for most batches none."""
        return self._watched.of(batch.series.keys())

    async def announce(self, batch: Batch, names: list[bytes]) -> None:
        """Return once the stored readings of these series are announced; BrokerError if it has to be tried again."""
        failpoint("persister.before_announce")
        for body in announcements(self._stored(batch, names)):
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

    def _stored(self, batch: Batch, names: list[bytes]) -> Iterator[WatchedReadings]:
        """Yield the readings of these series that are stored."""
        documents, outcomes = batch.documents, batch.outcomes
        for name in names:
            readings, unit = [], None
            for index in batch.series[name]:
                if outcomes[index] not in _STORED:
                    continue
                try:
                    ts_ms, seq, value, received_ms, unit = fields_of(documents[index])
                except DocumentError as error:  # of a known series, whose documents are stored unopened
                    self._metrics.unannounced.inc()
                    log.error("What is stored is no reading; no rule sees it.", error=str(error))
                    continue
                readings.append(WatchedReading(ts_ms, seq, value, received_ms))
            if readings:
                yield WatchedReadings(*self._watched.series_of(name), unit, readings)
