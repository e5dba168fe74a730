"""The in-memory state of one queue of the embedded broker, and the SQL that moves its messages in the file."""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.headers import DEATH_QUEUE_HEADER, DEATH_REASON_HEADER, DEATH_TIME_HEADER
from broker.message import Message
from broker.topology import Queue

# (id, message id, headers as JSON, earlier deliveries, body)
Row = tuple[int, str, str, int, bytes]
_SELECT = "SELECT id, message_id, headers, deliveries, body FROM messages"
_INSERT = "INSERT INTO messages (queue, message_id, headers, body) VALUES (?,?,?,?)"


@dataclass(frozen=True, slots=True)
class QueueSize:
    """A number of messages and the bytes of their bodies."""

    messages: int
    bytes: int


class QueueState:
    """Counts and delivery state of one queue; the messages themselves are in the file."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        # Of all messages in the file, delivered or not.
        self.bytes = 0
        self.messages = 0
        # Bytes of messages that are being published and not yet committed.
        self.pending_bytes = 0
        # Highest id delivered since start; ids up to it are delivered, settled or in `requeued`.
        self.cursor = 0
        self.requeued: deque[int] = deque()
        # Rejected while the dead-letter queue was full: id to size. They move as soon as it has room.
        self.blocked: dict[int, int] = {}
        # Consumers read from the cursor one at a time: two would be delivered the same messages.
        self.delivering = asyncio.Lock()
        # Set when there may be something to deliver.
        self.available = asyncio.Event()

    def has_room(self, size: int) -> bool:
        """Return whether a body of `size` bytes fits within the queue's bound."""
        return self.bytes + self.pending_bytes + size <= self.queue.max_bytes

    def added(self, size: QueueSize) -> None:
        """Count what was committed into the queue."""
        self.messages += size.messages
        self.bytes += size.bytes

    def removed(self, size: QueueSize) -> None:
        """Count what was committed out of the queue."""
        self.messages -= size.messages
        self.bytes -= size.bytes

    def reset(self, size: QueueSize) -> None:
        """Replace the counts by those of the file."""
        self.messages, self.bytes = size.messages, size.bytes


def insert(db: sqlite3.Connection, queue: str, message: Message) -> QueueSize:
    """Append a message to the queue and return its size."""
    db.execute(_INSERT, (queue, message.message_id, json.dumps(dict(message.headers)), message.body))
    return QueueSize(1, len(message.body))


def deliver(db: sqlite3.Connection, queue: str, requeued: list[int], cursor: int, limit: int) -> list[Row]:
    """Return the messages with the ids `requeued`, then up to `limit` behind `cursor`, and count one delivery each."""
    rows: list[Row] = []
    for tag in requeued:
        rows += db.execute(f"{_SELECT} WHERE id = ?", (tag,)).fetchall()
    rows += db.execute(f"{_SELECT} WHERE queue = ? AND id > ? ORDER BY id LIMIT ?", (queue, cursor, limit)).fetchall()
    db.executemany("UPDATE messages SET deliveries = deliveries + 1 WHERE id = ?", [(row[0],) for row in rows])
    return rows


def next_after(db: sqlite3.Connection, queue: str, last: int) -> Row | None:
    """Return the first message behind id `last`, without changing it; None at the end."""
    row: Row | None = db.execute(f"{_SELECT} WHERE queue = ? AND id > ? ORDER BY id LIMIT 1", (queue, last)).fetchone()
    return row


def delete(db: sqlite3.Connection, ids: Sequence[int]) -> QueueSize:
    """Delete messages and return the size of those that existed, so that nothing is counted twice."""
    messages = size = 0
    for tag in ids:
        for (length,) in db.execute("SELECT LENGTH(body) FROM messages WHERE id = ?", (tag,)).fetchall():
            messages += 1
            size += length
        db.execute("DELETE FROM messages WHERE id = ?", (tag,))
    return QueueSize(messages, size)


def dead_letter(db: sqlite3.Connection, tag: int, dead_queue: str) -> QueueSize:
    """Move one message to `dead_queue` with the headers that RabbitMQ adds to a rejected one; return its size."""
    row = db.execute("SELECT queue, message_id, headers, body FROM messages WHERE id = ?", (tag,)).fetchone()
    if row is None:
        return QueueSize(0, 0)
    queue, message_id, headers, body = row
    headers = {
        **json.loads(headers),
        DEATH_REASON_HEADER: "rejected",
        DEATH_QUEUE_HEADER: queue,
        DEATH_TIME_HEADER: datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    db.execute(_INSERT, (dead_queue, message_id, json.dumps(headers), body))
    db.execute("DELETE FROM messages WHERE id = ?", (tag,))
    return QueueSize(1, len(body))


def measure(db: sqlite3.Connection) -> dict[str, QueueSize]:
    """Return the size of every queue that is not empty, by name."""
    found = db.execute("SELECT queue, COUNT(*), SUM(LENGTH(body)) FROM messages GROUP BY queue").fetchall()
    return {name: QueueSize(number, size) for name, number, size in found}


def version(db: sqlite3.Connection) -> int:
    """Return a number that changes when another process (the dead letters' tool) has written to the file."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])
