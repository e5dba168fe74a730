"""The file behind the embedded broker: one SQLite database, one thread, one transaction for all that waits.

Operations from the event loop queue up; the thread takes all of them, runs them in one transaction, and answers each
only after the commit, which `synchronous=FULL` makes durable. So a commit's fsync is shared by everyone who waits.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from broker.interface import BrokerUnavailable

Result = TypeVar("Result")
Operation = Callable[[sqlite3.Connection], Any]
_Waiting = tuple[Operation, "asyncio.Future[Any]"]

# What one commit takes at most; more would make the first of them wait too long.
MAX_OPERATIONS_A_COMMIT = 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    message_id TEXT NOT NULL,
    headers TEXT NOT NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_queue ON messages (queue, id);
"""


class EmbeddedStore:
    """Runs operations on the file in a thread of its own. `run` after `close` raises BrokerUnavailable."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._open = True
        self._connection = self._connect()
        self._thread = threading.Thread(target=self._work, name="embedded broker", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.executescript(_SCHEMA)
        return connection

    async def run(self, operation: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run one operation and return its result once it is committed."""
        if not self._open:
            raise BrokerUnavailable("the embedded broker is closed")
        done: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.put((operation, done))
        return cast("Result", await done)

    async def close(self) -> None:
        """Finish what waits, then close the file."""
        if self._open:
            self._open = False
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        going_on = True
        while going_on:
            batch: list[_Waiting] = []
            first = self._waiting.get()
            while True:
                if first is None:
                    going_on = False
                    break
                batch.append(first)
                if len(batch) >= MAX_OPERATIONS_A_COMMIT:
                    break
                try:
                    first = self._waiting.get_nowait()
                except queue.Empty:
                    break
            if batch:
                answers = self._commit(batch)
                self._loop.call_soon_threadsafe(_answer, batch, answers)
        self._connection.close()

    def _commit(self, batch: list[_Waiting]) -> list[Any]:
        """Run a batch in one transaction. An error of the file fails all of it: nothing of it is promised."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers = [operation(self._connection) for operation, _ in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [BrokerUnavailable(f"{self._path.name}: {error}")] * len(batch)
        except Exception as error:  # noqa: BLE001 - a fault of an operation: its waiters must hear of it, the thread lives on
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [error] * len(batch)
        return answers


def _answer(batch: list[_Waiting], answers: list[Any]) -> None:
    for (_, done), answer in zip(batch, answers, strict=True):
        if done.done():  # its waiter was cancelled
            continue
        if isinstance(answer, Exception):
            done.set_exception(answer)
        else:
            done.set_result(answer)
