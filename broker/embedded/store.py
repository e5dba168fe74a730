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
# Called in the event loop with the result, or with the error, whether or not anyone still waits for it.
Landed = Callable[[Any], None]

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


class _Job:
    """An operation on its way through the thread. One whose caller has gone is not begun any more."""

    __slots__ = ("abandoned", "done", "landed", "operation")

    def __init__(self, operation: Operation, done: "asyncio.Future[Any]", landed: Landed | None) -> None:
        self.operation = operation
        self.done = done
        self.landed = landed
        self.abandoned = False


class EmbeddedStore:
    """Runs operations on the file in a thread of its own. `run` after `close` raises BrokerUnavailable."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
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

    async def run(self, operation: Callable[[sqlite3.Connection], Result], *, landed: Landed | None = None) -> Result:
        """Run one operation and return its result once it is committed.

        A caller that is cancelled does not know its outcome; `landed` hears of it all the same.
        """
        if not self._open:
            raise BrokerUnavailable("the embedded broker is closed")
        job = _Job(operation, self._loop.create_future(), landed)
        self._waiting.put(job)
        try:
            return cast("Result", await asyncio.shield(job.done))
        except asyncio.CancelledError:
            job.abandoned = True
            raise

    async def close(self) -> None:
        """Finish what waits, then close the file."""
        if self._open:
            self._open = False
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        going_on = True
        while going_on:
            batch: list[_Job] = []
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

    def _commit(self, batch: list[_Job]) -> list[Any]:
        """Run a batch in one transaction. An error of the file fails all of it: nothing of it is promised."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            # Looked at only now: the wait for the file's lock is where callers give up.
            answers = [_ABANDONED if job.abandoned else job.operation(self._connection) for job in batch]
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


_ABANDONED = BrokerUnavailable("its caller has gone")


def _answer(batch: list[_Job], answers: list[Any]) -> None:
    for job, answer in zip(batch, answers, strict=True):
        if job.landed is not None:
            job.landed(answer)
        if isinstance(answer, Exception):
            job.done.set_exception(answer)
        else:
            job.done.set_result(answer)
