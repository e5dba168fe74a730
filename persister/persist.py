"""The persister's loop: take a batch, write it, bury what cannot be stored, and only then acknowledge.

Where the process can die, and what is true then: before the write, nothing is stored and the broker delivers again;
between write and acknowledgement, everything is stored and the repetition ends as duplicates on the key; after the
acknowledgement, nothing is left to do. While MongoDB is away the batch is held and tried again, so nothing is requeued
and the queue grows to its bound.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from broker.document import DocumentError
from broker.interface import BrokerError
from persister.batch import Batch, DeadLetter, Outcome
from persister.from_broker import FromBroker
from persister.metrics import PersisterMetrics
from persister.series import KnownSeries
from persister.to_dead_letters import ToDeadLetters
from persister.to_mongodb import ToMongoDB, WriteFailed, WriteRefused, Written
from runtime.logs import logger

log = logger("persister")

RETRY_S = (0.1, 5.0)
# A stop waits this long for the write at hand: below the time that a drain has.
LAST_ATTEMPT_S = 5.0
Result = TypeVar("Result")
Watch = Callable[[list[bytes], list[Outcome]], None]
"""Told of every settled message: its documents and what became of each."""


class _GivenUp(Exception):
    """A stop was asked for and the attempt did not succeed: the batch stays with the broker."""


class Persister:
    """Stores what one consumer delivers."""

    def __init__(
        self,
        source: FromBroker,
        store: ToMongoDB,
        dead_letters: ToDeadLetters,
        *,
        known: KnownSeries,
        metrics: PersisterMetrics,
        watch: Watch | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._dead_letters = dead_letters
        self._known = known
        self._metrics = metrics
        self._watch = watch
        self._stop = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Store batches until `stop`; the batch at hand is finished first, what was only fetched goes back.

        A batch that cannot be finished, because MongoDB or the broker is away, goes back as well.
        """
        self._stop = stop
        try:
            await self._until_done("collections", self._store.prepare)
            await self._run(stop)
        except _GivenUp:
            log.warning("Stopped in the middle of a batch that could not be written; the broker delivers it again.")

    async def _run(self, stop: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                fetching = asyncio.ensure_future(self._source.batch())
                await asyncio.wait((fetching, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not fetching.done():
                    fetching.cancel()
                    await asyncio.wait((fetching,))
                    return
                batch = Batch.of(fetching.result())
                await self._persist(batch)
        finally:
            stopping.cancel()

    async def _persist(self, batch: Batch) -> None:
        outcomes, fresh = self._examine(batch)
        await self._write(batch, outcomes)
        if fresh:
            await self._until_done("series", lambda: self._store.write_series(list(fresh.values())))
            for name in fresh:
                self._known.add(name)
        for letter in batch.dead:
            await self._until_done("dead letter", partial(self._dead_letters.bury, letter))
        await self._until_done("acknowledgement", partial(self._source.acknowledge, batch.deliveries))
        self._count(batch, outcomes)

    def _examine(self, batch: Batch) -> tuple[list[Outcome], dict[bytes, dict[str, str]]]:
        """Decode what is of an unknown series; mark what is no reading as dead."""
        outcomes = [Outcome.RETRY] * len(batch.documents)
        fresh: dict[bytes, dict[str, str]] = {}
        for index, document in enumerate(batch.documents):
            try:
                met = self._known.meet(document)
            except DocumentError as error:
                outcomes[index] = Outcome.DEAD
                batch.dead.append(DeadLetter(document, "undecodable", str(error), readable=True))
                continue
            if met is not None:
                fresh[met[0]] = met[1]
        return outcomes, fresh

    async def _write(self, batch: Batch, outcomes: list[Outcome]) -> None:
        waiting = [index for index, outcome in enumerate(outcomes) if outcome is Outcome.RETRY]
        if not waiting:
            return
        documents = [batch.documents[index] for index in waiting]
        self._metrics.batch_readings.observe(len(documents))
        started = time.perf_counter()
        written = await self._store_all(documents)
        self._metrics.write_seconds.observe(time.perf_counter() - started)
        for place, outcome in zip(waiting, written.outcomes, strict=True):
            outcomes[place] = outcome
        for at, error in written.errors.items():
            batch.dead.append(DeadLetter(documents[at], "refused", error, readable=True))

    async def _store_all(self, documents: list[bytes]) -> Written:
        """Write the documents; where one makes all of them impossible, halve until it is alone, and it is dead."""
        try:
            return await self._until_done("readings", lambda: self._store.write(documents))
        except WriteRefused as error:
            if len(documents) == 1:
                return Written([Outcome.DEAD], {0: str(error)})
        half = len(documents) // 2
        first, second = await self._store_all(documents[:half]), await self._store_all(documents[half:])
        errors = {**first.errors, **{half + index: why for index, why in second.errors.items()}}
        return Written(first.outcomes + second.outcomes, errors)

    async def _until_done(self, what: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Try until it succeeds, with growing, jittered pauses: nothing is given back, nothing is dropped."""
        pause = RETRY_S[0]
        failures = 0
        while True:
            try:
                result = await self._unless_stopping(attempt)
            except (WriteFailed, BrokerError) as error:
                if self._stopping():
                    raise _GivenUp from error
                failures += 1
                self._metrics.retries.labels(what).inc()
                if failures == 1:
                    log.warning("A write failed; holding the batch and trying again.", what=what, error=str(error))
                await self._pause(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, RETRY_S[1])
                continue
            if failures:
                log.info("Writing goes on.", what=what, failures=failures)
            return result

    async def _unless_stopping(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Let an attempt end; once a stop was asked for, for so long only."""
        trying = asyncio.ensure_future(attempt())
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait((trying, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not trying.done():
                await asyncio.wait((trying,), timeout=LAST_ATTEMPT_S)
            if not trying.done():
                raise _GivenUp
            return trying.result()
        finally:
            trying.cancel()
            stopping.cancel()

    def _stopping(self) -> bool:
        return self._stop.is_set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return

    def _count(self, batch: Batch, outcomes: list[Outcome]) -> None:
        for outcome in (Outcome.STORED, Outcome.DUPLICATE, Outcome.DEAD):
            if number := outcomes.count(outcome):
                self._metrics.readings.labels(outcome.value).inc(number)
                if outcome is Outcome.DUPLICATE:
                    self._metrics.duplicates.inc(number)
        if self._watch is not None:
            for start, end in zip(batch.starts, [*batch.starts[1:], len(batch.documents)], strict=True):
                self._watch(batch.documents[start:end], outcomes[start:end])
