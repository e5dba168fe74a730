"""The file behind the embedded broker: one SQLite database, one thread, group commit.

Operations from the event loop queue up; the thread takes all that are waiting, runs them in one transaction, and
resolves each only after the commit, which `synchronous=FULL` makes durable. So waiting operations share one fsync. What
commits is an argument: the simulation commits without a thread, at moments of its own clock.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from broker.interface import BrokerUnavailable
from runtime.process import CannotGoOnError

Result = TypeVar("Result")
Operation = Callable[[sqlite3.Connection], Any]
# Called in the event loop with the result or the error, even if the caller no longer waits for it.
OnCommit = Callable[[Any], None]

# More operations in one commit would make the first of them wait too long.
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


class Job:
    """An operation that waits for a commit. It is skipped if its caller was cancelled before it began."""

    __slots__ = ("abandoned", "done", "on_commit", "operation")

    def __init__(self, operation: Operation, done: "asyncio.Future[Any]", on_commit: OnCommit | None) -> None:
        self.operation = operation
        self.done = done
        self.on_commit = on_commit
        self.abandoned = False


class QueueFileError(BrokerUnavailable, CannotGoOnError):
    """The file cannot be opened, or is none of SQLite's."""


class QueueFile:
    """The file, open. Only one thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
        except (OSError, sqlite3.Error) as error:
            raise QueueFileError(f"The queue's file {path} cannot be used: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.executescript(_SCHEMA)
        return connection

    def commit(self, batch: list[Job]) -> list[Any]:
        """Run a batch in one transaction; return a result or an exception for each. An error fails the whole batch."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            # Checked only now: callers give up while BEGIN waits for the file's lock.
            results = [_ABANDONED if job.abandoned else job.operation(self._connection) for job in batch]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [BrokerUnavailable(f"{self._path.name}: {error}")] * len(batch)
        except Exception as error:  # noqa: BLE001 - a bug in an operation: its callers get the error, the thread goes on
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return [error] * len(batch)
        return results

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


_ABANDONED = BrokerUnavailable("its caller was cancelled")


def resolve(batch: list[Job], results: list[Any]) -> None:
    """Tell the callers of a batch what `commit` returned; called in the event loop."""
    for job, result in zip(batch, results, strict=True):
        if job.on_commit is not None:
            job.on_commit(result)
        if isinstance(result, Exception):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)


class Committer(Protocol):
    """Commits jobs in the order in which they were submitted, and resolves them in the event loop."""

    def submit(self, job: Job) -> None:
        """Commit a job soon, with others."""

    async def close(self) -> None:
        """Commit what was submitted, then close the file."""


class CommitThread:
    """Commits in a thread of its own."""

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="embedded broker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Commit a job soon, with others."""
        self._waiting.put(job)

    async def close(self) -> None:
        """Commit what was submitted, then close the file."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        running = True
        while running:
            batch: list[Job] = []
            first = self._waiting.get()
            while True:
                if first is None:
                    running = False
                    break
                batch.append(first)
                if len(batch) >= MAX_OPERATIONS_A_COMMIT:
                    break
                try:
                    first = self._waiting.get_nowait()
                except queue.Empty:
                    break
            if batch:
                results = self._file.commit(batch)
                self._loop.call_soon_threadsafe(resolve, batch, results)
        self._file.close()


class EmbeddedStore:
    """Runs operations on the file at `path`. `run` after `close` raises BrokerUnavailable."""

    def __init__(self, path: Path, committer: Callable[[QueueFile], Committer] = CommitThread) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._committer = committer(QueueFile(path))

    async def run(
        self, operation: Callable[[sqlite3.Connection], Result], *, on_commit: OnCommit | None = None
    ) -> Result:
        """Run one operation and return its result once it is committed; BrokerUnavailable when the file fails.

        A caller that is cancelled does not learn the outcome; `on_commit` is called all the same.
        """
        if not self._open:
            raise BrokerUnavailable("the embedded broker is closed")
        job = Job(operation, self._loop.create_future(), on_commit)
        self._committer.submit(job)
        try:
            return cast("Result", await asyncio.shield(job.done))
        except asyncio.CancelledError:
            job.abandoned = True
            raise

    async def close(self) -> None:
        """Finish the waiting operations, then close the file."""
        if self._open:
            self._open = False
            await self._committer.close()
