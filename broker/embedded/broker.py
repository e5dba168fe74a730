"""The broker in one file, for one machine: durable queues in SQLite behind the same interface as RabbitMQ.

For `make run` and small installations. One process owns the file at a time and holds a lock on it; the dead letters'
tool may read and move messages at the same time. It keeps every promise of `interface.py` through `kill -9`: a publish
returns after the commit, and unsettled messages are redelivered after the next start.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from broker.embedded import queue as embedded_queue
from broker.embedded.consumer import EmbeddedConsumer
from broker.embedded.fanout import EmbeddedFanout, EmbeddedSubscriber
from broker.embedded.publisher import EmbeddedPublisher
from broker.embedded.queue import QueueSize, QueueState, Row
from broker.embedded.queue_browser import EmbeddedQueueBrowser
from broker.embedded.store import Committer, CommitThread, EmbeddedStore, QueueFile
from broker.interface import BrokerUnavailable, Delivery, QueueFull, Unroutable
from broker.message import Message
from broker.topology import FANOUTS, QUEUES, Exchange, Queue
from runtime.background import background

# The file's version and the size of each queue in it.
Measured = tuple[int, dict[str, QueueSize]]


class EmbeddedBroker:
    """Durable queues in one SQLite file. Use it within `open_at`.

    An exchange leads to one queue: ValueError if two of `queues` have the same exchange.
    """

    def __init__(self, store: EmbeddedStore, queues: Sequence[Queue]) -> None:
        self._store = store
        self._states = {queue.name: QueueState(queue) for queue in queues}
        self._routes: dict[str, str] = {}
        for queue in queues:
            name = queue.exchange.name
            if name in self._routes:
                raise ValueError(
                    f"two queues on {name}: {self._routes[name]} and {queue.name}; only one gets its messages"
                )
            self._routes[name] = queue.name
        self._fanouts = {exchange.name: EmbeddedFanout() for exchange in FANOUTS}
        self._consumers = Counter[str]()
        self._version = 0

    @classmethod
    @asynccontextmanager
    async def open_at(
        cls, path: Path, queues: Sequence[Queue] = QUEUES, *, committer: Callable[[QueueFile], Committer] = CommitThread
    ) -> AsyncIterator["EmbeddedBroker"]:
        """Open the file at `path`, created if missing, for the duration of the context."""
        store = EmbeddedStore(path, committer)
        try:
            broker = cls(store, queues)
            await broker._refresh_sizes()
            yield broker
        finally:
            await store.close()

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[EmbeddedPublisher]:
        """Open a publisher."""
        yield EmbeddedPublisher(self.enqueue, self.check, confirm_timeout_s)

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator[EmbeddedConsumer]:
        """Open a consumer; on leaving, its unsettled messages return to the head of the queue."""
        consumer = EmbeddedConsumer(self, self._states[queue.name], prefetch)
        self._consumers[queue.name] += 1
        try:
            async with background(consumer.fetch(), name=f"consumer of {queue.name}"):
                yield consumer
        finally:
            consumer.requeue_all()
            self._consumers[queue.name] -= 1

    @asynccontextmanager
    async def broadcaster(self, exchange: Exchange) -> AsyncIterator[EmbeddedFanout]:
        """Open a broadcaster to the subscribers in this process."""
        yield self._fanouts[exchange.name]

    @asynccontextmanager
    async def subscriber(self, exchange: Exchange, *, bound: int) -> AsyncIterator[EmbeddedSubscriber]:
        """Subscribe to a fanout exchange."""
        subscriber = EmbeddedSubscriber(bound)
        self._fanouts[exchange.name].add(subscriber)
        try:
            yield subscriber
        finally:
            self._fanouts[exchange.name].remove(subscriber)

    @asynccontextmanager
    async def browser(self, queue: Queue) -> AsyncIterator[EmbeddedQueueBrowser]:
        """Browse a queue, also while another process consumes it."""
        state = self._states[queue.name]
        yield EmbeddedQueueBrowser(self._store, queue, lambda tag: self.delete(state, [tag]))

    @asynccontextmanager
    async def inspector(self) -> AsyncIterator["EmbeddedBroker"]:
        """Ask this broker itself."""
        yield self

    async def declare(self) -> None:
        """Check the file. There is nothing to declare: a queue exists from its first message on."""
        await self.check()

    async def depth(self, queue: Queue) -> int:
        """Return how many messages are waiting to be delivered."""
        state = self._states[queue.name]
        undelivered = await self._store.run(
            lambda db: db.execute(
                "SELECT COUNT(*) FROM messages WHERE queue = ? AND id > ?", (queue.name, state.cursor)
            ).fetchone()
        )
        return int(undelivered[0]) + len(state.requeued)

    async def consumers(self, queue: Queue) -> int:
        """Return how many consumers the queue has."""
        return self._consumers[queue.name]

    def unsettled(self, queue: Queue) -> int:
        """Return how many messages are in the queue, delivered or not, without reading the file."""
        return self._states[queue.name].messages

    async def bodies(self, queue: Queue) -> AsyncIterator[bytes]:
        """Yield the body of each message of the queue, without delivering any."""
        async with self.browser(queue) as browser:
            async for delivery in browser:
                yield delivery.message.body

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file cannot be read."""
        await self._store.run(lambda db: db.execute("SELECT 1 FROM messages LIMIT 1").fetchone())

    async def enqueue(self, message: Message, exchange: Exchange) -> None:
        """Append a message to the queue behind `exchange` and return once it is durable; BrokerError otherwise."""
        state = self._states.get(self._routes.get(exchange.name, ""))
        if state is None:
            raise Unroutable(f"no queue is bound to {exchange.name}")
        size = len(message.body)
        if not state.has_room(size):
            await self._refresh_sizes()
        if not state.has_room(size):
            raise QueueFull(f"{state.queue.name} holds {state.bytes} bytes, its bound is {state.queue.max_bytes}")
        state.pending_bytes += size

        def on_commit(result: QueueSize | Exception) -> None:
            state.pending_bytes -= size
            if isinstance(result, QueueSize):
                state.added(result)
                state.available.set()

        await self._store.run(lambda db: embedded_queue.insert(db, state.queue.name, message), on_commit=on_commit)

    async def deliver(self, state: QueueState, limit: int) -> list[Delivery]:
        """Deliver up to `limit` messages, requeued ones first; each counts as delivered from the commit on."""
        await self._retry_blocked(state)
        async with state.delivering:
            requeued = [state.requeued.popleft() for _ in range(min(limit, len(state.requeued)))]
            name, cursor = state.queue.name, state.cursor

            def deliver(db: sqlite3.Connection) -> tuple[list[Row], Measured | None]:
                rows = embedded_queue.deliver(db, name, requeued, cursor, limit - len(requeued))
                return rows, self._measure_if_changed(db)

            try:
                rows, measured = await self._store.run(deliver)
            except BaseException:
                state.requeued.extendleft(reversed(requeued))
                raise
            self._reset_sizes(measured)
            state.cursor = max([cursor, *(row[0] for row in rows)])
        return [Delivery(Message(body, json.loads(head), mid), tag, count) for tag, mid, head, count, body in rows]

    async def delete(self, state: QueueState, tags: Sequence[int]) -> None:
        """Delete settled messages."""

        def on_commit(result: QueueSize | Exception) -> None:
            if isinstance(result, QueueSize):
                state.removed(result)

        await self._store.run(lambda db: embedded_queue.delete(db, tags), on_commit=on_commit)
        for source in self._states.values():
            dead_letter_queue = source.queue.dead_letter_queue
            if dead_letter_queue is not None and dead_letter_queue.name == state.queue.name:
                await self._retry_blocked(source)

    async def dead_letter(self, state: QueueState, tag: int, size: int) -> None:
        """Move a message of `size` bytes to the dead-letter queue, as RabbitMQ does with a rejected one.

        While that is full the message stays in its queue, undelivered, and is moved once there is room.
        """
        dead_letter_queue = state.queue.dead_letter_queue
        dead = self._states.get(dead_letter_queue.name) if dead_letter_queue is not None else None
        if dead is None:
            await self.delete(state, [tag])
            return
        if not dead.has_room(size):
            state.blocked[tag] = size
            return
        dead.pending_bytes += size

        def on_commit(result: QueueSize | Exception) -> None:
            dead.pending_bytes -= size
            if isinstance(result, QueueSize):
                state.removed(result)
                dead.added(result)
                dead.available.set()

        await self._store.run(lambda db: embedded_queue.dead_letter(db, tag, dead.queue.name), on_commit=on_commit)

    async def _retry_blocked(self, state: QueueState) -> None:
        """Try again to dead-letter the messages that the dead-letter queue had no room for."""
        for tag, size in list(state.blocked.items()):
            if state.blocked.pop(tag, None) is None:  # another task has taken it
                continue
            try:
                await self.dead_letter(state, tag, size)
            except BrokerUnavailable:
                state.blocked[tag] = size
                raise
            if tag in state.blocked:  # still no room
                return

    async def _refresh_sizes(self) -> None:
        """Update the counts if another process has written to the file."""
        self._reset_sizes(await self._store.run(self._measure_if_changed))

    def _measure_if_changed(self, db: sqlite3.Connection) -> Measured | None:
        """Return the version and the sizes; None if no other process has written. Runs in the store's thread."""
        version = embedded_queue.version(db)
        return None if version == self._version else (version, embedded_queue.measure(db))

    def _reset_sizes(self, measured: Measured | None) -> None:
        if measured is not None:
            self._version, sizes = measured
            for name, state in self._states.items():
                state.reset(sizes.get(name, QueueSize(0, 0)))
