"""The broker in one file, for one machine: a durable queue in SQLite behind the same interface as RabbitMQ.

For `make run` and small installations. One process owns the file at a time (its owner holds a lock; the dead letters'
tool may look and move messages beside it); it keeps every promise of `interface.py` through `kill -9`: a publish
returns after the commit, what was not settled is delivered again after the next start.
"""

import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from broker.embedded import queue as embedded_queue
from broker.embedded.consumer import EmbeddedConsumer, EmbeddedPublisher
from broker.embedded.fanout import EmbeddedFanout, EmbeddedSubscriber
from broker.embedded.queue import Amount, QueueState, Row
from broker.embedded.queue_browser import EmbeddedQueueBrowser
from broker.embedded.store import EmbeddedStore
from broker.interface import BrokerUnavailable, Delivery, QueueFull, Unroutable
from broker.message import Message
from broker.topology import FANOUTS, QUEUES, Exchange, Queue
from runtime.background import background

# The file's version and what each queue held in it.
Found = tuple[int, dict[str, Amount]]


class EmbeddedBroker:
    """Durable queues in one SQLite file. Enter `open_at` to use it; everything else lives inside."""

    def __init__(self, store: EmbeddedStore, queues: Sequence[Queue]) -> None:
        self._store = store
        self._states = {queue.name: QueueState(queue) for queue in queues}
        self._routes = {queue.exchange.name: queue.name for queue in queues}
        self._fanouts = {exchange.name: EmbeddedFanout() for exchange in FANOUTS}
        self._version = 0

    @classmethod
    @asynccontextmanager
    async def open_at(cls, path: Path, queues: Sequence[Queue] = QUEUES) -> AsyncIterator["EmbeddedBroker"]:
        """Open the file at `path`, made when it is missing, as long as the context lasts."""
        store = EmbeddedStore(path)
        try:
            broker = cls(store, queues)
            await broker._catch_up()
            yield broker
        finally:
            await store.close()

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[EmbeddedPublisher]:
        """Open a publisher."""
        yield EmbeddedPublisher(self, confirm_timeout_s)

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator[EmbeddedConsumer]:
        """Open a consumer; what it has not settled when it is left goes back to the head of the queue."""
        consumer = EmbeddedConsumer(self, self._states[queue.name], prefetch)
        try:
            async with background(consumer.fetch(), name=f"consumer of {queue.name}"):
                yield consumer
        finally:
            consumer.give_all_back()

    @asynccontextmanager
    async def broadcaster(self, exchange: Exchange) -> AsyncIterator[EmbeddedFanout]:
        """Open an announcer to those who listen in this process."""
        yield self._fanouts[exchange.name]

    @asynccontextmanager
    async def subscriber(self, exchange: Exchange, *, bound: int) -> AsyncIterator[EmbeddedSubscriber]:
        """Listen to a fanout exchange."""
        subscriber = EmbeddedSubscriber(bound)
        self._fanouts[exchange.name].join(subscriber)
        try:
            yield subscriber
        finally:
            self._fanouts[exchange.name].leave(subscriber)

    @asynccontextmanager
    async def browser(self, queue: Queue) -> AsyncIterator[EmbeddedQueueBrowser]:
        """Look into a queue, also one that another process works on."""
        state = self._states[queue.name]
        yield EmbeddedQueueBrowser(self._store, queue, lambda tag: self.remove(state, [tag]))

    async def declare(self) -> None:
        """Every queue is in the file from its first message on."""
        await self.check()

    async def depth(self, queue: Queue) -> int:
        """Count what is in the queue and not on loan to a consumer."""
        state = self._states[queue.name]
        later = await self._store.run(
            lambda db: db.execute(
                "SELECT COUNT(*) FROM messages WHERE queue = ? AND id > ?", (queue.name, state.cursor)
            ).fetchone()
        )
        return int(later[0]) + len(state.returned)

    def waiting(self, queue: Queue) -> int:
        """Return how many messages are in the queue, on loan or not: what memory knows, for a panel."""
        return self._states[queue.name].messages

    async def bodies(self, queue: Queue) -> AsyncIterator[bytes]:
        """Go through what the queue holds, a message at a time, without taking anything."""
        async with self.browser(queue) as browser:
            async for delivery in browser:
                yield delivery.message.body

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file does not answer."""
        await self._store.run(lambda db: db.execute("SELECT 1 FROM messages LIMIT 1").fetchone())

    async def add(self, message: Message, exchange: Exchange) -> None:
        """Put a message into the queue behind `exchange`; returns when it is durable."""
        state = self._states.get(self._routes.get(exchange.name, ""))
        if state is None:
            raise Unroutable(f"no queue is bound to {exchange.name}")
        size = len(message.body)
        if not state.has_room(size):
            await self._catch_up()
        if not state.has_room(size):
            raise QueueFull(f"{state.queue.name} holds {state.bytes} bytes, its bound is {state.queue.max_bytes}")
        state.coming_bytes += size

        def landed(answer: Amount | Exception) -> None:
            state.coming_bytes -= size
            if isinstance(answer, Amount):
                state.came(answer)
                state.waiting.set()

        await self._store.run(lambda db: embedded_queue.insert(db, state.queue.name, message), landed=landed)

    async def take(self, state: QueueState, most: int) -> list[Delivery]:
        """Lend up to `most` messages, what came back first; each counts as a delivery from the commit on."""
        await self._bury_held(state)
        async with state.lending:
            again = [state.returned.popleft() for _ in range(min(most, len(state.returned)))]
            name, cursor = state.queue.name, state.cursor

            def lend(db: sqlite3.Connection) -> tuple[list[Row], Found | None]:
                return embedded_queue.lend(db, name, again, cursor, most - len(again)), self._changed(db)

            try:
                rows, found = await self._store.run(lend)
            except BrokerUnavailable:
                state.returned.extendleft(reversed(again))
                raise
            self._measured(found)
            state.cursor = max([cursor, *(row[0] for row in rows)])
        return [Delivery(Message(body, json.loads(head), mid), tag, count) for tag, mid, head, count, body in rows]

    async def remove(self, state: QueueState, tags: Sequence[int]) -> None:
        """Forget settled messages."""

        def landed(answer: Amount | Exception) -> None:
            if isinstance(answer, Amount):
                state.went(answer)

        await self._store.run(lambda db: embedded_queue.delete(db, tags), landed=landed)
        for source in self._states.values():
            if source.queue.dead is not None and source.queue.dead.name == state.queue.name:
                await self._bury_held(source)

    async def bury(self, state: QueueState, tag: int, size: int) -> None:
        """Move a message to the queue's dead letters, as RabbitMQ does with a rejected one.

        Where they are full the message is held, in its queue and lent to nobody, until there is room.
        """
        dead = self._states.get(state.queue.dead.name) if state.queue.dead is not None else None
        if dead is None:
            await self.remove(state, [tag])
            return
        if not dead.has_room(size):
            state.held[tag] = size
            return
        dead.coming_bytes += size

        def landed(answer: Amount | Exception) -> None:
            dead.coming_bytes -= size
            if isinstance(answer, Amount):
                state.went(answer)
                dead.came(answer)
                dead.waiting.set()

        await self._store.run(lambda db: embedded_queue.bury(db, tag, dead.queue.name), landed=landed)

    async def _bury_held(self, state: QueueState) -> None:
        """Try again what the dead letters had no room for."""
        for tag, size in list(state.held.items()):
            if state.held.pop(tag, None) is None:  # another task was faster
                continue
            try:
                await self.bury(state, tag, size)
            except BrokerUnavailable:
                state.held[tag] = size
                raise
            if tag in state.held:  # still no room
                return

    async def _catch_up(self) -> None:
        """Count again if another process has written into the file."""
        self._measured(await self._store.run(self._changed))

    def _changed(self, db: sqlite3.Connection) -> Found | None:
        """In the store's thread: what every queue holds, or None while the file has no other writer."""
        version = embedded_queue.version(db)
        return None if version == self._version else (version, embedded_queue.measure(db))

    def _measured(self, found: Found | None) -> None:
        if found is not None:
            self._version, amounts = found
            for name, state in self._states.items():
                state.measured(amounts.get(name, Amount(0, 0)))
