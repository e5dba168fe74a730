"""The persister's loop: take a batch, write it, bury what cannot be stored, and only then acknowledge.

A bounded number of batches is written at once, and the next one gathers meanwhile. Where the process can die, and what
is true then: before the write, nothing is stored and the broker delivers again; between write and acknowledgement,
everything is stored and the repetition ends as duplicates on the key; after the acknowledgement, nothing is left to do.
While MongoDB is away the batches are held and tried again, and the queue grows to its bound. At the deadline of the
oldest (`persister.retry`) the consumer ends and the broker has all of it again. That is noted (`persister.requeues`),
for what was delivered very often is judged by it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from broker.failpoints import failpoint
from broker.interface import BrokerError, Consumer, Delivery
from persister.acks import Ledger
from persister.batch import TOO_OFTEN, Batch, Outcome
from persister.dead_letters import Burial, Burials
from persister.from_broker import FromBroker
from persister.known_series import KnownSeries, series_key_of
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.poison import Sifter
from persister.requeues import Requeues
from persister.retry import GivenUpError, Holding
from persister.to_dead_letters import ToDeadLetters
from persister.to_live import ToLive
from persister.to_mongodb import ToMongoDB
from persister.tracing import note_batch
from readings.document import DocumentError
from runtime.logs import logger
from runtime.tracing import Tracing

log = logger("persister")

# What a consumer that ends may still take to acknowledge what is done.
LAST_WORDS_S = 1.0

Watch = Callable[[list[bytes], list[Outcome]], None]
"""Told of every settled message: its documents and what became of each."""


class Persister:
    """Stores what one consumer delivers."""

    def __init__(
        self,
        consumer: Consumer,
        store: ToMongoDB,
        dead_letters: ToDeadLetters,
        live: ToLive,
        *,
        holding: Holding,
        known: KnownSeries,
        deleted: DeletedOwners,
        requeues: Requeues,
        metrics: PersisterMetrics,
        batch_readings: int,
        linger_ms: int,
        prefetch: int,
        writes_in_flight: int,
        watch: Watch | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._consumer = consumer
        self._slots = asyncio.Semaphore(writes_in_flight)
        self._store = store
        self._sifter = Sifter(store, holding)
        self._live = live
        self._holding = holding
        self._known = known
        self._deleted = deleted
        self._requeues = requeues
        self._metrics = metrics
        self._watch = watch
        self._tracing = tracing
        self.ledger = Ledger(consumer)
        self._source = FromBroker(
            consumer,
            batch_readings=batch_readings,
            linger_ms=linger_ms,
            prefetch=prefetch,
            held=lambda: self.ledger.open,
        )
        self._burials = Burials(
            consumer,
            self.ledger,
            dead_letters,
            holding=holding,
            requeues=requeues,
            metrics=metrics,
            done=self._buried,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Store batches until `stop`; those at hand are finished first, what was only fetched goes back.

        A batch that cannot be finished, because MongoDB or the broker is away, goes back as well. A group with
        LetGoError when one was held for too long.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._holding.until_done("collections", self._store.prepare)
                await self._take(stop, tasks)
        except* GivenUpError:
            log.warning("Stopped in the middle of a batch that could not be written; the broker delivers it again.")
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        """Acknowledge what is done behind a batch that is not: that batch alone is to be delivered again."""
        with suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._consumer.stop()
                await self.ledger.settle_what_is_done()
        returned = [*self.ledger.held(), *self._source.rest()]
        self._requeues.note(one for one in returned if one.generation == self._consumer.generation)

    async def _take(self, stop: asyncio.Event, tasks: asyncio.TaskGroup) -> None:
        stopping = asyncio.ensure_future(stop.wait())
        ready: asyncio.Future[Any] = stopping
        try:
            while not stop.is_set():
                ready = asyncio.ensure_future(self._ready())
                await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    return
                tasks.create_task(self._persist(ready.result(), tasks), name="batch")
        finally:
            stopping.cancel()
            ready.cancel()

    async def _ready(self) -> list[Delivery]:
        """Return what is to be written, once there is something and room for a write, which the caller has."""
        await self._source.first()
        await self._slots.acquire()
        deliveries = await self._source.batch()
        for delivery in deliveries:
            self.ledger.add(delivery)
        return deliveries

    async def _persist(self, deliveries: list[Delivery], tasks: asyncio.TaskGroup) -> None:
        began_ns = time.time_ns()
        slot = _Slot(self._slots)
        oldest = deliveries[0]
        holding = self._holding.until(
            self._holding.deadline_of(oldest), gone=lambda: oldest.generation != self._consumer.generation
        )
        try:
            if oldest.delivery_count >= TOO_OFTEN:  # it is alone then
                deliveries = [await self._without_returns(oldest, holding)]
            batch = Batch(deliveries)
            await self._store_batch(batch, slot, holding)
        finally:
            slot.leave()
        stored_ns = time.time_ns()
        failpoint("persister.inserted")
        self._live.stored(batch.newest())
        settled = []
        for opened, documents, outcomes in batch.results():
            if opened.letters:
                await self._burials.add(Burial(opened, documents, outcomes), tasks)
            else:
                settled.append(opened.delivery)
                self._count(documents, outcomes)
        await holding.until_done("acknowledgement", partial(self.ledger.settle, settled))
        if self._tracing is not None:
            note_batch(self._tracing, batch, began_ns=began_ns, stored_ns=stored_ns, settled_ns=time.time_ns())

    async def _without_returns(self, delivery: Delivery, holding: Holding) -> Delivery:
        """Return the delivery with the count of those before it that no worker ended of its own will."""
        returns = await holding.until_done("question", partial(self._requeues.returns, delivery.message))
        return replace(delivery, delivery_count=max(1, delivery.delivery_count - returns))

    async def _store_batch(self, batch: Batch, slot: "_Slot", holding: Holding) -> None:
        """Give every document its outcome."""
        epoch, (fresh, erased) = self._known.epoch, self._examine(batch)
        if erased:
            # Only the database that answers now can say so: an older copy may have the owner among the living again.
            # What was known of it may have been forgotten in part as this batch was examined, so all is asked anew.
            await holding.until_done("question", self._store.look)
            for place in erased:
                batch.outcomes[place] = Outcome.RETRY
            epoch, (fresh, _) = self._known.epoch, self._examine(batch)
        started = time.perf_counter()
        if again := batch.waiting_again():
            # A duplicate costs the server many times what a fresh one does: ask first.
            ask = partial(self._store.present, [batch.documents[index] for index in again])
            for place in await holding.until_done("question", ask):
                batch.outcomes[again[place]] = Outcome.DUPLICATE
        # Each series together, as in the index: a tenth of mongod's time.
        if waiting := batch.waiting():
            failpoint("persister.before_insert")
            # What is in doubt is decided by the success of others: they must not wait for it.
            written = await self._sifter.write([batch.documents[index] for index in waiting], slot.leave, holding)
            batch.settle(waiting, written.outcomes)
            for place, error in written.errors.items():
                batch.bury(waiting[place], "refused", error)
            self._metrics.batch_readings.observe(len(waiting))
            self._metrics.write_seconds.observe(time.perf_counter() - started)
        self._known.stored(batch.series)
        await self._note_series(batch, fresh, epoch, holding)

    async def _note_series(
        self, batch: Batch, fresh: dict[bytes, dict[str, str]], epoch: int, holding: Holding
    ) -> None:
        """Write the documents of series that are new; of all, when what was known is not any more."""
        while fresh or epoch != self._known.epoch:
            if epoch != self._known.epoch:
                epoch, fresh = self._known.epoch, keys_of_stored(batch)
            if fresh:
                await holding.until_done("series", partial(self._store.write_series, list(fresh.values())))
            if epoch == self._known.epoch:
                for name, key in fresh.items():
                    if key["owner"] not in self._deleted:  # as may have become known meanwhile
                        self._known.add(name)
                return

    def _examine(self, batch: Batch) -> tuple[dict[bytes, dict[str, str]], list[int]]:
        """Mark what is no reading or a deleted owner's; return the keys of new series, and the places of the latter."""
        fresh: dict[bytes, dict[str, str]] = {}
        erased: list[int] = []
        for name, places in batch.series.items():
            if self._known.meet(name):
                continue
            for place in places:  # as long as nothing of it is stored, each is opened
                if batch.outcomes[place] is not Outcome.RETRY:
                    continue
                try:
                    key = series_key_of(batch.documents[place])
                except DocumentError as error:
                    batch.bury(place, "undecodable", str(error))
                    continue
                if key["owner"] in self._deleted:
                    batch.outcomes[place] = Outcome.ERASED
                    erased.append(place)
                else:
                    fresh[name] = key
        return fresh, erased

    def _buried(self, burial: Burial) -> None:
        self._count(burial.documents, burial.outcomes)

    def _count(self, documents: list[bytes], outcomes: list[Outcome]) -> None:
        left = len(outcomes)
        for outcome in (Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD, Outcome.ERASED):
            if left and (number := outcomes.count(outcome)):
                left -= number
                self._metrics.readings.labels(outcome.value).inc(number)
                if outcome is Outcome.DUPLICATE:
                    self._metrics.duplicates.inc(number)
        if self._watch is not None:
            self._watch(documents, outcomes)


def keys_of_stored(batch: Batch) -> dict[bytes, dict[str, str]]:
    """Return the keys of the series of which something is stored, by their names."""
    is_there = (Outcome.STORED, Outcome.DUPLICATE)
    stored = {
        name: [place for place in places if batch.outcomes[place] in is_there] for name, places in batch.series.items()
    }
    return {name: series_key_of(batch.documents[places[0]]) for name, places in stored.items() if places}


class _Slot:
    """The room for one write, which is left once."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = True

    def leave(self) -> None:
        """Let another batch have it."""
        if self._held:
            self._held = False
            self._slots.release()
