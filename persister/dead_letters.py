"""PERSISTER → DEAD LETTERS: publishes what cannot be stored, apart from the flow of good messages and within bounds.

A message whose dead letters are not confirmed stays unacknowledged. It is parked, so that it takes no room in the
prefetch window and the others go on. At its deadline (`persister.retry`) it is requeued, whether it is being tried or
still waits: otherwise RabbitMQ would close the channel, and good messages would stand still. Beyond the bound the
prefetch window fills up, and messages are requeued before their deadline, one after the other. Their place is at the
head of the queue, so this frees memory and another worker may get them, but no more. Each requeue is recorded
(`persister.requeues`): however long the dead-letter queue refuses, a message keeps its own reason, and what is good in
it does not become a dead letter.

If the process dies between a dead letter's confirm and the message's acknowledgement, the message is redelivered: its
dead letters are published again, and its stored readings end as duplicates of the key.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from broker.headers import (
    ERROR_HEADER,
    EXCHANGE_HEADER,
    FIRST_SEEN_HEADER,
    REASON_HEADER,
    REPLAYS_HEADER,
    SCHEMA_HEADER,
    SERVICE_HEADER,
)
from broker.interface import Consumer, Delivery, Publisher
from broker.message import Header, Message
from broker.topology import DEAD_EXCHANGE, READINGS_EXCHANGE, Exchange
from persister.acks import AckTracker
from persister.batch import BatchedDelivery, Outcome, Unstorable
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteFailed
from persister.requeues import Requeues
from persister.retry import HeldTooLongError, Retrier
from runtime.logs import logger
from runtime.times import now_ms, rfc3339

log = logger("persister.dead_letters")

# Bounds on parked messages; the bytes include the documents cut from them.
MAX_PARKED = 4096
MAX_PARKED_BYTES = 16 * 1024 * 1024
REQUEUE_EVERY_S = 1.0
# A queue that refuses should not be asked by thousands.
MAX_WORKERS = 8
DEADLINE_CHECK_EVERY_S = 1.0
# A requeue that is not recorded in time goes on, and is recorded with the next one.
RECORD_TIMEOUT_S = 1.0

SERVICE = "persister"
MAX_ERROR_CHARS = 500
KEPT_HEADERS = (SCHEMA_HEADER, REPLAYS_HEADER, FIRST_SEEN_HEADER)


class ToDeadLetters:
    """Publishes dead letters."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def publish(self, dead: Unstorable, origin: Message, source: Exchange = READINGS_EXCHANGE) -> None:
        """Return once the dead letter is confirmed; BrokerError otherwise.

        The message's own headers are kept: its schema, how often it was replayed, when it first became a dead letter.
        """
        headers: dict[str, Header] = {
            FIRST_SEEN_HEADER: rfc3339(now_ms()),
            **{name: origin.headers[name] for name in KEPT_HEADERS if name in origin.headers},
            REASON_HEADER: dead.reason,
            ERROR_HEADER: dead.error[:MAX_ERROR_CHARS],
            SERVICE_HEADER: SERVICE,
        }
        if source is not READINGS_EXCHANGE:
            headers[EXCHANGE_HEADER] = source.name
        await self._publisher.publish(Message(dead.body, headers), DEAD_EXCHANGE)


@dataclass(frozen=True, slots=True)
class DeadLetterJob:
    """One message of which something is dead, its documents, and the outcome of each."""

    batched: BatchedDelivery
    documents: list[bytes]
    outcomes: list[Outcome]

    @property
    def delivery(self) -> Delivery:
        """The message."""
        return self.batched.delivery

    @property
    def size(self) -> int:
        """About how many bytes it holds: the message, and the documents cut from it."""
        return len(self.delivery.message.body) + sum(map(len, self.documents))


class DeadLetterer:
    """Dead-letters for one consumer of the queue behind the exchange `source`.

    Calls `on_settled` with each job whose dead letters are confirmed and settled.
    """

    def __init__(
        self,
        consumer: Consumer,
        acks: AckTracker,
        dead_letters: ToDeadLetters,
        source: Exchange,
        *,
        retrier: Retrier,
        requeues: Requeues,
        metrics: PersisterMetrics,
        on_settled: Callable[[DeadLetterJob], None],
    ) -> None:
        self._consumer = consumer
        self._acks = acks
        self._dead_letters = dead_letters
        self._source = source
        self._retrier = retrier
        self._requeues = requeues
        self._metrics = metrics
        self._on_settled = on_settled
        self._backlog: deque[DeadLetterJob] = deque()
        # Of the backlog and of what is being published.
        self._bytes = 0
        self._workers = 0
        self._requeuing_overflow = False
        self._watching_deadlines = False

    @property
    def full(self) -> bool:
        """Whether no more messages may be parked."""
        return self._acks.parked >= MAX_PARKED or self._bytes >= MAX_PARKED_BYTES

    async def add(self, job: DeadLetterJob, tasks: asyncio.TaskGroup) -> None:
        """Park a message; tasks of this group publish its dead letters and settle it."""
        if not self._acks.park(job.delivery):
            return
        self._drop_stale()
        self._backlog.append(job)
        self._bytes += job.size
        if self._workers < MAX_WORKERS:
            self._workers += 1
            tasks.create_task(self._work(), name="dead letters")
        if not self._watching_deadlines:
            self._watching_deadlines = True
            tasks.create_task(self._requeue_at_deadlines(), name="deadlines")
        if not self.full:
            await self._consumer.park(job.delivery)
        elif not self._requeuing_overflow:
            self._requeuing_overflow = True
            tasks.create_task(self._requeue_overflow(), name="requeue")

    def _drop_stale(self) -> None:
        """Drop what an earlier connection delivered: the broker redelivers it."""
        if self._backlog and not self._acks.is_parked(self._backlog[0].delivery):
            for job in self._backlog:
                self._bytes -= job.size
            self._backlog.clear()

    async def _work(self) -> None:
        try:
            while self._backlog:
                job = self._backlog.popleft()
                try:
                    if self._acks.is_parked(job.delivery):
                        await self._publish(job)
                finally:
                    self._bytes -= job.size
        finally:
            self._workers -= 1

    async def _publish(self, job: DeadLetterJob) -> None:
        """Publish the dead letters of one message, then settle the message."""
        retrier = self._retrier.with_deadline(
            self._retrier.deadline_of(job.delivery), is_stale=lambda: not self._acks.is_parked(job.delivery)
        )
        try:
            for dead in job.batched.unstorable:
                publish = partial(self._dead_letters.publish, dead, job.delivery.message, self._source)
                await retrier.run("dead letter", publish)
                self._metrics.dead_letters.labels(dead.reason).inc()
        except HeldTooLongError:
            log.warning("The dead-letter queue still refuses; a message is requeued.")
            await self._requeue([job])
            return
        settle = partial(self._acks.settle_parked, job.delivery)
        if await self._retrier.run("acknowledgement", settle):
            self._on_settled(job)

    async def _requeue(self, jobs: Iterable[DeadLetterJob]) -> None:
        parked = [job.delivery for job in jobs if self._acks.is_parked(job.delivery)]
        self._requeues.record(parked)
        with suppress(WriteFailed, TimeoutError):
            async with asyncio.timeout(RECORD_TIMEOUT_S):
                await self._requeues.write()
        for delivery in parked:
            requeue = partial(self._acks.requeue_parked, delivery)
            await self._retrier.run("acknowledgement", requeue)

    async def _requeue_at_deadlines(self) -> None:
        """Requeue backlogged messages at their deadline. A message being published is its worker's concern."""
        try:
            while self._backlog:
                now = time.monotonic()
                in_time: deque[DeadLetterJob] = deque()
                late: deque[DeadLetterJob] = deque()
                for job in self._backlog:
                    (late if self._retrier.deadline_of(job.delivery) <= now else in_time).append(job)
                self._backlog = in_time
                if late:
                    self._bytes -= sum(job.size for job in late)
                    log.warning("The dead-letter queue refuses; its backlog is requeued.", messages=len(late))
                    await self._requeue(late)
                else:
                    soonest = min(self._retrier.deadline_of(job.delivery) for job in self._backlog)
                    await asyncio.sleep(min(DEADLINE_CHECK_EVERY_S, soonest - now))
        finally:
            self._watching_deadlines = False

    async def _requeue_overflow(self) -> None:
        """Requeue the oldest backlogged message every second until there is room."""
        try:
            log.warning("Too many messages wait for the dead-letter queue; requeueing.", parked=self._acks.parked)
            while self.full and self._backlog:
                job = self._backlog.popleft()
                self._bytes -= job.size
                await self._requeue([job])
                await asyncio.sleep(REQUEUE_EVERY_S)
        finally:
            self._requeuing_overflow = False
