"""Browses a queue of the embedded broker: reads the file while others work on it, and delivers nothing."""

import json
import sqlite3
from collections.abc import Awaitable, Callable

from broker.embedded.queue import Row, next_after
from broker.embedded.store import EmbeddedStore
from broker.interface import Delivery
from broker.message import Message
from broker.topology import Queue


class EmbeddedQueueBrowser:
    """One pass over one queue."""

    def __init__(self, store: EmbeddedStore, queue: Queue, delete: Callable[[int], Awaitable[None]]) -> None:
        self._store = store
        self._queue = queue.name
        self._delete = delete
        self._position = 0
        # Highest id at the first read. Later messages, such as a replayed one that came back, are not visited.
        self._last: int | None = None

    def __aiter__(self) -> "EmbeddedQueueBrowser":
        return self

    async def __anext__(self) -> Delivery:
        row = await self._store.run(self._next)
        if row is None:
            raise StopAsyncIteration
        self._position, message_id, headers, deliveries, body = row
        return Delivery(Message(bytes(body), json.loads(headers), message_id), self._position, deliveries)

    async def settle(self, delivery: Delivery) -> None:
        """Delete this message from the file."""
        await self._delete(delivery.tag)

    def _next(self, db: sqlite3.Connection) -> Row | None:
        if self._last is None:
            query = "SELECT MAX(id) FROM messages WHERE queue = ?"
            self._last = int(db.execute(query, (self._queue,)).fetchone()[0] or 0)
        row = next_after(db, self._queue, self._position)
        return row if row is not None and row[0] <= self._last else None
