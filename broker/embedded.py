"""The broker in one file, for one machine: a durable queue in SQLite behind the same interface as RabbitMQ.

For `make run` and small installations. One process owns the file at a time (its owner holds a lock); it keeps every
promise of `interface.py` through `kill -9`: a publish returns after the commit, what was not settled is delivered again
after the next start.
"""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from broker.embedded_store import EmbeddedStore
from broker.interface import BrokerUnavailable, ConfirmLate, Delivery, QueueFull, Unroutable
from broker.message import Message
from broker.topology import QUEUES, Exchange, Queue

# Messages that another process put into the file (a replayed dead letter) are found within this time.
LOOK_EVERY_S = 1.0


class _QueueState:
    """What memory knows of one queue; the messages themselves are in the file."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.bytes = 0
        self.messages = 0
        # Every message up to here was handed to a consumer since the start, or has come back.
        self.cursor = 0
        self.returned: deque[int] = deque()
        # One consumer at a time reads from the cursor: two would be lent the same messages.
        self.lending = asyncio.Lock()
        self.waiting = asyncio.Event()

    def count(self, messages: int, size: int) -> None:
        """Note that so many messages of so many bytes together came, or with a minus, went."""
        self.messages += messages
        self.bytes += size


class EmbeddedBroker:
    """Durable queues in one SQLite file. Enter `open_at` to use it; publishers and consumers live inside."""

    def __init__(self, store: EmbeddedStore, queues: Sequence[Queue]) -> None:
        self._store = store
        self._states = {queue.name: _QueueState(queue) for queue in queues}
        self._routes = {queue.exchange.name: queue.name for queue in queues}

    @classmethod
    @asynccontextmanager
    async def open_at(cls, path: Path, queues: Sequence[Queue] = QUEUES) -> AsyncIterator["EmbeddedBroker"]:
        """Open the file at `path`, made when it is missing, as long as the context lasts."""
        store = EmbeddedStore(path)
        try:
            broker = cls(store, queues)
            await broker._measure()
            yield broker
        finally:
            await store.close()

    async def _measure(self) -> None:
        sizes = await self._store.run(
            lambda db: db.execute("SELECT queue, COUNT(*), SUM(LENGTH(body)) FROM messages GROUP BY queue").fetchall()
        )
        for name, number, size in sizes:
            if name in self._states:
                self._states[name].count(number, size)

    @asynccontextmanager
    async def publisher(self, *, confirm_timeout_s: float = 4.0) -> AsyncIterator["EmbeddedPublisher"]:
        """Open a publisher."""
        yield EmbeddedPublisher(self, confirm_timeout_s)

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator["EmbeddedConsumer"]:
        """Open a consumer; what it has not settled when it is left goes back to the head of the queue."""
        consumer = EmbeddedConsumer(self, self._states[queue.name], prefetch)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(consumer.fetch(), name=f"consumer of {queue.name}")
            try:
                yield consumer
            finally:
                task.cancel()
                consumer.give_back()

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
        last = 0
        ask = "SELECT id, body FROM messages WHERE queue = ? AND id > ? ORDER BY id LIMIT 1"
        while row := await self._store.run(lambda db, last=last: db.execute(ask, (queue.name, last)).fetchone()):  # type: ignore[misc]
            last = int(row[0])
            yield bytes(row[1])

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file does not answer."""
        await self._store.run(lambda db: db.execute("SELECT 1 FROM messages LIMIT 1").fetchone())

    async def add(self, message: Message, exchange: Exchange) -> None:
        """Put a message into the queue behind `exchange`; returns when it is durable."""
        state = self._states.get(self._routes.get(exchange.name, ""))
        if state is None:
            raise Unroutable(f"no queue is bound to {exchange.name}")
        size = len(message.body)
        if state.bytes + size > state.queue.max_bytes:
            raise QueueFull(f"{state.queue.name} holds {state.bytes} bytes, its bound is {state.queue.max_bytes}")
        row = (state.queue.name, message.message_id, json.dumps(dict(message.headers)), message.body)
        state.count(1, size)
        try:
            await self._store.run(
                lambda db: db.execute("INSERT INTO messages (queue, message_id, headers, body) VALUES (?,?,?,?)", row)
            )
        except BrokerUnavailable:
            state.count(-1, -size)
            raise
        state.waiting.set()

    async def take(self, state: _QueueState, most: int) -> list[Delivery]:
        """Lend up to `most` messages, what came back first; each counts as a delivery from the commit on."""
        async with state.lending:
            again = [state.returned.popleft() for _ in range(min(most, len(state.returned)))]
            name, cursor = state.queue.name, state.cursor
            try:
                rows = await self._store.run(lambda db: _lend(db, name, again, cursor, most - len(again)))
            except BrokerUnavailable:
                state.returned.extendleft(reversed(again))
                raise
            state.cursor = max([cursor, *(row[0] for row in rows)])
        return [Delivery(Message(body, json.loads(head), mid), tag, count) for tag, mid, head, count, body in rows]

    async def remove(self, state: _QueueState, lent: Sequence[tuple[int, int]]) -> None:
        """Forget settled messages, given as (id, size)."""
        ids = [(tag,) for tag, _ in lent]
        await self._store.run(lambda db: db.executemany("DELETE FROM messages WHERE id = ?", ids))
        state.count(-len(lent), -sum(size for _, size in lent))

    async def bury(self, state: _QueueState, delivery: Delivery) -> None:
        """Move a message to the queue's dead letters, as RabbitMQ does with a rejected one."""
        dead = state.queue.dead
        size = len(delivery.message.body)
        if dead is None:
            await self.remove(state, [(delivery.tag, size)])
            return
        headers = {**delivery.message.headers, "x-first-death-reason": "rejected"}
        headers["x-first-death-queue"] = state.queue.name
        moved = (dead.name, delivery.message.message_id, json.dumps(headers), delivery.message.body)

        def move(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO messages (queue, message_id, headers, body) VALUES (?,?,?,?)", moved)
            db.execute("DELETE FROM messages WHERE id = ?", (delivery.tag,))

        await self._store.run(move)
        state.count(-1, -size)
        if dead.name in self._states:
            self._states[dead.name].count(1, size)
            self._states[dead.name].waiting.set()


Row = tuple[int, str, str, int, bytes]


def _lend(db: sqlite3.Connection, queue: str, again: list[int], cursor: int, most: int) -> list[Row]:
    fields = "SELECT id, message_id, headers, deliveries, body FROM messages"
    rows: list[Row] = []
    for tag in again:
        rows += db.execute(f"{fields} WHERE id = ?", (tag,)).fetchall()
    rows += db.execute(f"{fields} WHERE queue = ? AND id > ? ORDER BY id LIMIT ?", (queue, cursor, most)).fetchall()
    db.executemany("UPDATE messages SET deliveries = deliveries + 1 WHERE id = ?", [(row[0],) for row in rows])
    return rows


class EmbeddedPublisher:
    """Publishes into the file; the commit is the confirm."""

    def __init__(self, broker: EmbeddedBroker, confirm_timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = confirm_timeout_s

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the message is durable; BrokerError in every other case."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._broker.add(message, exchange)
        except TimeoutError as error:
            raise ConfirmLate(f"the disk did not confirm within {self._timeout_s:g} s") from error

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file does not answer."""
        await self._broker.check()


class EmbeddedConsumer:
    """Takes messages from one queue, at most `prefetch` at a time."""

    def __init__(self, broker: EmbeddedBroker, state: _QueueState, prefetch: int) -> None:
        self._broker = broker
        self._state = state
        self._prefetch = prefetch
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        # Lent and not settled: tag to size, in the order of delivery.
        self._lent: dict[int, int] = {}
        self._room = asyncio.Event()
        self._room.set()

    async def fetch(self) -> None:
        """Keep the window filled for as long as the consumer is open."""
        while True:
            await self._room.wait()
            self._state.waiting.clear()
            deliveries = await self._take()
            if not deliveries:
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._state.waiting.wait()
                except TimeoutError:
                    continue

    async def _take(self) -> list[Delivery]:
        # Shielded: a window that is cancelled half-way must still know what was lent to it.
        taking = asyncio.ensure_future(self._broker.take(self._state, self._prefetch - len(self._lent)))
        try:
            deliveries = await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(BrokerUnavailable):  # nothing was lent then
                self._state.returned.extend(delivery.tag for delivery in await taking)
                self._state.waiting.set()
            raise
        except BrokerUnavailable:
            await asyncio.sleep(LOOK_EVERY_S)
            return []
        for delivery in deliveries:
            self._lent[delivery.tag] = len(delivery.message.body)
            self._arrived.put_nowait(delivery)
        self._mark()
        return deliveries

    def _mark(self) -> None:
        if len(self._lent) < self._prefetch:
            self._room.set()
        else:
            self._room.clear()

    async def get(self) -> Delivery:
        """Wait for the next message."""
        return await self._arrived.get()

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Settle one message, or all that were delivered up to it."""
        if delivery.tag not in self._lent:
            return
        order = list(self._lent)
        tags = order[: order.index(delivery.tag) + 1] if multiple else [delivery.tag]
        await self._broker.remove(self._state, [(tag, self._lent[tag]) for tag in tags])
        self._settled(tags)

    async def reject(self, delivery: Delivery) -> None:
        """Move this message to the dead letters."""
        if delivery.tag in self._lent:
            await self._broker.bury(self._state, delivery)
            self._settled([delivery.tag])

    def _settled(self, tags: Sequence[int]) -> None:
        for tag in tags:
            self._lent.pop(tag, None)
        self._mark()

    def give_back(self) -> None:
        """Return what was not settled to the head of the queue, in its order."""
        self._state.returned.extendleft(sorted(self._lent, reverse=True))
        self._lent.clear()
        self._state.waiting.set()

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file does not answer."""
        await self._broker.depth(self._state.queue)
