"""The persister's loop: take a batch, write it, dead-letter what cannot be stored, and only then acknowledge.

A bounded number of batches is written at once, and the next one gathers meanwhile. What is true when the process dies:
before the write, nothing is stored, and the broker redelivers everything; between write and acknowledgement, everything
is stored, and the repetition ends as duplicates of the key; after the acknowledgement, nothing is left to do. While
MongoDB is away the batches are retried, and the queue grows to its bound. At the deadline of the oldest message
(`persister.retry`) the consumer ends, and the broker has everything again. That is recorded (`persister.requeues`),
because a message that was delivered very often is judged by it.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from broker.failpoints import failpoint
from broker.interface import BrokerError, Consumer, Delivery
from persister.acks import AckTracker
from persister.batch import MAX_DELIVERIES, Batch, Outcome
from persister.dead_letters import DeadLetterer, DeadLetterJob, ToDeadLetters
from persister.from_broker import FromBroker
from persister.known_series import KnownSeries, series_key_of
from persister.lanes import Lane
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteRefused
from persister.poison import PoisonIsolator
from persister.requeues import Requeues
from persister.retry import Retrier
from persister.to_alarms import ToAlarms
from persister.to_live import ToLive
from persister.to_mongodb import ToMongoDB, Written
from persister.to_receipts import ToReceipts
from persister.tracing import record_batch
from readings.document import DocumentError
from runtime.logs import logger
from runtime.tracing import Tracing
from runtime.waiting import StoppedError, unless_stopped

log = logger("persister")

# How long a consumer that ends may still take to acknowledge what is done.
SHUTDOWN_TIMEOUT_S = 1.0

OnSettled = Callable[[list[bytes], list[Outcome]], None]
"""Called with every settled message: its documents and their outcomes."""


class Persister:
    """Stores what one consumer delivers."""

    def __init__(
        self,
        consumer: Consumer,
        lane: Lane,
        store: ToMongoDB,
        dead_letters: ToDeadLetters,
        live: ToLive,
        receipts: ToReceipts,
        *,
        alarms: ToAlarms | None = None,
        retrier: Retrier,
        known: KnownSeries,
        deleted: DeletedOwners,
        requeues: Requeues,
        metrics: PersisterMetrics,
        batch_readings: int,
        linger_ms: int,
        prefetch: int,
        writes_in_flight: int,
        on_settled: OnSettled | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._consumer = consumer
        self._lane = lane
        self._slots = asyncio.Semaphore(writes_in_flight)
        self._store = store
        self._isolator = PoisonIsolator(store)
        self._live = live
        self._receipts = receipts
        self._alarms = alarms
        self._retrier = retrier
        self._known = known
        self._deleted = deleted
        self._requeues = requeues
        self._metrics = metrics
        self._on_settled = on_settled
        self._tracing = tracing
        self.acks = AckTracker(consumer)
        self._source = FromBroker(
            consumer, self.acks, batch_readings=batch_readings, linger_ms=linger_ms, prefetch=prefetch
        )
        self._dead_letterer = DeadLetterer(
            consumer,
            self.acks,
            dead_letters,
            lane.queue.exchange,
            retrier=retrier,
            requeues=requeues,
            metrics=metrics,
            on_settled=lambda job: self._report(job.documents, job.outcomes),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Store batches until `stop`; batches in progress are finished, messages in no batch go back to the queue.

        A batch that cannot be finished, because MongoDB or the broker is away, goes back too. An ExceptionGroup with
        HeldTooLongError if a message was held past its deadline.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._retrier.run("collections", self._store.prepare)
                await self._take_batches(stop, tasks)
        except* StoppedError:
            log.warning("Stopped before a batch could be written; the broker redelivers it.")
        finally:
            await self._finish()

    async def _finish(self) -> None:
        """Acknowledge what is done after an unfinished batch, so that only that batch is redelivered."""
        with suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                await self._consumer.stop()
                await self.acks.flush_done()
        returned = [*self.acks.unfinished(), *self._source.drain()]
        self._requeues.record(one for one in returned if one.generation == self._consumer.generation)

    async def _take_batches(self, stop: asyncio.Event, tasks: asyncio.TaskGroup) -> None:
        with suppress(StoppedError):
            while not stop.is_set():
                deliveries = await unless_stopped(self._next_batch(), stop)
                tasks.create_task(self._persist(deliveries, tasks), name="batch")

    async def _next_batch(self) -> list[Delivery]:
        """Return the next deliveries to write, once it is their turn and a slot is free: it is the caller's now."""
        await self._source.wait()
        await self._slots.acquire()
        most = await self._lane.turn()
        deliveries = await self._source.next_batch(most)
        for delivery in deliveries:
            self.acks.add(delivery)
        return deliveries

    async def _persist(self, deliveries: list[Delivery], tasks: asyncio.TaskGroup) -> None:
        began_ns = time.time_ns()
        slot = _Slot(self._slots)
        oldest = deliveries[0]
        retrier = self._retrier.with_deadline(
            self._retrier.deadline_of(oldest), is_stale=lambda: oldest.generation != self._consumer.generation
        )
        try:
            if oldest.delivery_count >= MAX_DELIVERIES:  # then it is alone in its batch
                deliveries = [await self._without_requeues(oldest, retrier)]
            batch = Batch(deliveries)
            with self._lane.writing():
                await self._store_batch(batch, slot, retrier)
        finally:
            slot.release()
        stored_ns = time.time_ns()
        failpoint("persister.inserted")
        self._live.add(batch.newest())
        if self._alarms is not None and (watched := self._alarms.watched_of(batch)):
            await retrier.run("announcement", partial(self._alarms.announce, batch, watched))
        settled = []
        for batched, documents, outcomes in batch.results():
            self._receipts.add(batched.delivery.message, documents, outcomes)
            if batched.unstorable:
                await self._dead_letterer.add(DeadLetterJob(batched, documents, outcomes), tasks)
            else:
                settled.append(batched.delivery)
                self._report(documents, outcomes)
        await retrier.run("acknowledgement", partial(self.acks.settle, settled))
        if self._tracing is not None:
            record_batch(self._tracing, batch, self._lane.queue.name, began_ns=began_ns, stored_ns=stored_ns)

    async def _without_requeues(self, delivery: Delivery, retrier: Retrier) -> Delivery:
        """Return the delivery with a `delivery_count` that leaves out those that ended in a worker's own requeue."""
        requeues = await retrier.run("question", partial(self._requeues.count, delivery.message))
        return replace(delivery, delivery_count=max(1, delivery.delivery_count - requeues))

    async def _store_batch(self, batch: Batch, slot: "_Slot", retrier: Retrier) -> None:
        """Give every document its outcome."""
        epoch, (new_series, erased) = self._known.epoch, self._examine(batch)
        if erased:
            # Only the database that answers now can confirm a deletion: in an older copy the owner may exist again.
            # Checking may also forget the known series, so the whole batch is examined again.
            await retrier.run("question", self._store.verify)
            for index in erased:
                batch.outcomes[index] = Outcome.RETRY
            epoch, (new_series, _) = self._known.epoch, self._examine(batch)
        started = time.perf_counter()
        if redelivered := batch.pending_redelivered():
            # A duplicate costs the server many times what a new document does: ask first.
            find = partial(self._store.find_stored, [batch.documents[index] for index in redelivered])
            for position in await retrier.run("question", find):
                batch.outcomes[redelivered[position]] = Outcome.DUPLICATE
        # By series, as in the index: that takes a tenth of mongod's time.
        if pending := batch.pending():
            failpoint("persister.before_insert")
            written = await self.write([batch.documents[index] for index in pending], slot.release, retrier)
            batch.set_outcomes(pending, written.outcomes)
            for position, error in written.errors.items():
                batch.mark_dead(pending[position], "refused", error)
            self._metrics.batch_readings.observe(len(pending))
            self._metrics.write_seconds.observe(time.perf_counter() - started)
        self._known.record_stored(batch.series)
        await self._write_series(batch, new_series, epoch, retrier)

    async def write(self, documents: Sequence[bytes], on_ambiguous: Callable[[], None], retrier: Retrier) -> Written:
        """Write documents until each has a final outcome. One write is enough unless MongoDB refuses some of them.

        `on_ambiguous` is called when only the success of other writes can tell whether a document is to blame, so that
        they need not wait for this one. StoppedError, HeldTooLongError.
        """
        try:
            written = await retrier.run("readings", partial(self._store.write, documents))
        except WriteRefused as refusal:
            return await self._isolator.isolate(documents, refusal, on_ambiguous, retrier)
        self._isolator.stored += written.outcomes.count(Outcome.STORED)
        if written.ambiguous:
            return await self._isolator.isolate(documents, written, on_ambiguous, retrier)
        return written

    async def _write_series(
        self, batch: Batch, new_series: dict[bytes, dict[str, str]], epoch: int, retrier: Retrier
    ) -> None:
        """Write the documents of new series; of every stored one if the known series were forgotten meanwhile."""
        while new_series or epoch != self._known.epoch:
            if epoch != self._known.epoch:
                epoch, new_series = self._known.epoch, stored_series(batch)
            if new_series:
                await retrier.run("series", partial(self._store.write_series, list(new_series.values())))
            if epoch == self._known.epoch:
                for name, key in new_series.items():
                    if key["owner"] not in self._deleted:  # the deletion may have been learned meanwhile
                        self._known.add(name)
                return

    def _examine(self, batch: Batch) -> tuple[dict[bytes, dict[str, str]], list[int]]:
        """Set the outcomes of documents that are not readings or whose owner is deleted.

        Returns the keys of new series, by the bytes of their names, and the indexes of the deleted owners' documents.
        """
        new_series: dict[bytes, dict[str, str]] = {}
        erased: list[int] = []
        for name, indexes in batch.series.items():
            if self._known.touch(name):
                continue
            for index in indexes:  # until something of a series is stored, each of its documents is decoded
                if batch.outcomes[index] is not Outcome.RETRY:
                    continue
                try:
                    key = series_key_of(batch.documents[index])
                except DocumentError as error:
                    batch.mark_dead(index, "undecodable", str(error))
                    continue
                if key["owner"] in self._deleted:
                    batch.outcomes[index] = Outcome.ERASED
                    erased.append(index)
                else:
                    new_series[name] = key
        return new_series, erased

    def _report(self, documents: list[bytes], outcomes: list[Outcome]) -> None:
        """Count the outcomes of a settled message, and pass them on."""
        left = len(outcomes)
        for outcome in (Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD, Outcome.ERASED):
            if left and (number := outcomes.count(outcome)):
                left -= number
                self._metrics.readings.labels(outcome.value).inc(number)
                if outcome is Outcome.DUPLICATE:
                    self._metrics.duplicates.inc(number)
        if self._on_settled is not None:
            self._on_settled(documents, outcomes)


def stored_series(batch: Batch) -> dict[bytes, dict[str, str]]:
    """Return the keys of the series of which documents are stored, by the bytes of their names."""
    stored = (Outcome.STORED, Outcome.DUPLICATE)
    found = {
        name: [index for index in indexes if batch.outcomes[index] in stored] for name, indexes in batch.series.items()
    }
    return {name: series_key_of(batch.documents[indexes[0]]) for name, indexes in found.items() if indexes}


class _Slot:
    """A slot for one write, released once."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = True

    def release(self) -> None:
        """Let another batch have the slot; a second call does nothing."""
        if self._held:
            self._held = False
            self._slots.release()
