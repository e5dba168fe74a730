"""Looks into a queue of the embedded broker: reads the file beside whoever works on it, and lends nothing."""

import json
import sqlite3
from collections.abc import Awaitable, Callable

from broker.embedded.queue import Row, following
from broker.embedded.store import EmbeddedStore
from broker.interface import Delivery
from broker.message import Message
from broker.topology import Queue


class EmbeddedQueueBrowser:
    """One walk through one queue."""

    def __init__(self, store: EmbeddedStore, queue: Queue, remove: Callable[[int], Awaitable[None]]) -> None:
        self._store = store
        self._queue = queue.name
        self._remove = remove
        self._at = 0
        # The newest message at the first look; what a replay brings back meanwhile is not met again.
        self._last: int | None = None

    def __aiter__(self) -> "EmbeddedQueueBrowser":
        return self

    async def __anext__(self) -> Delivery:
        row = await self._store.run(self._next)
        if row is None:
            raise StopAsyncIteration
        self._at, message_id, headers, deliveries, body = row
        return Delivery(Message(bytes(body), json.loads(headers), message_id), self._at, deliveries)

    async def settle(self, delivery: Delivery) -> None:
        """Take this message out of the file."""
        await self._remove(delivery.tag)

    def _next(self, db: sqlite3.Connection) -> Row | None:
        if self._last is None:
            ask = "SELECT MAX(id) FROM messages WHERE queue = ?"
            self._last = int(db.execute(ask, (self._queue,)).fetchone()[0] or 0)
        row = following(db, self._queue, self._at)
        return row if row is not None and row[0] <= self._last else None
