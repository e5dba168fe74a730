"""What memory knows of one queue of the embedded broker, and the statements that move its messages in the file."""

import asyncio
import json
import sqlite3
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.message import Message
from broker.topology import Queue

# id, message's id, headers as JSON, deliveries before this one, body
Row = tuple[int, str, str, int, bytes]
_FIELDS = "SELECT id, message_id, headers, deliveries, body FROM messages"
_INSERT = "INSERT INTO messages (queue, message_id, headers, body) VALUES (?,?,?,?)"


@dataclass(frozen=True, slots=True)
class Amount:
    """A number of messages and the bytes of their bodies."""

    messages: int
    bytes: int


class QueueState:
    """Counts, and who is lent what; the messages themselves are in the file."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        # In the file, on loan or not.
        self.bytes = 0
        self.messages = 0
        # On its way into the file.
        self.coming_bytes = 0
        # Every message up to here was handed to a consumer since the start, or has come back.
        self.cursor = 0
        self.returned: deque[int] = deque()
        # Rejected while the dead letters had no room: id to size. They stay here and move once there is room.
        self.held: dict[int, int] = {}
        # One consumer at a time reads from the cursor: two would be lent the same messages.
        self.lending = asyncio.Lock()
        self.waiting = asyncio.Event()

    def has_room(self, size: int) -> bool:
        """Say whether a body of `size` bytes fits under the bound."""
        return self.bytes + self.coming_bytes + size <= self.queue.max_bytes

    def came(self, amount: Amount) -> None:
        """Note what was committed into the queue."""
        self.messages += amount.messages
        self.bytes += amount.bytes

    def went(self, amount: Amount) -> None:
        """Note what was committed out of the queue."""
        self.messages -= amount.messages
        self.bytes -= amount.bytes

    def measured(self, amount: Amount) -> None:
        """Replace the counts by what was found in the file."""
        self.messages, self.bytes = amount.messages, amount.bytes


def insert(db: sqlite3.Connection, queue: str, message: Message) -> Amount:
    """Put a message at the end of the queue."""
    db.execute(_INSERT, (queue, message.message_id, json.dumps(dict(message.headers)), message.body))
    return Amount(1, len(message.body))


def lend(db: sqlite3.Connection, queue: str, again: list[int], cursor: int, most: int) -> list[Row]:
    """Read what came back, then what stands behind the cursor, and count it as delivered."""
    rows: list[Row] = []
    for tag in again:
        rows += db.execute(f"{_FIELDS} WHERE id = ?", (tag,)).fetchall()
    rows += db.execute(f"{_FIELDS} WHERE queue = ? AND id > ? ORDER BY id LIMIT ?", (queue, cursor, most)).fetchall()
    db.executemany("UPDATE messages SET deliveries = deliveries + 1 WHERE id = ?", [(row[0],) for row in rows])
    return rows


def following(db: sqlite3.Connection, queue: str, last: int) -> Row | None:
    """Read the next message behind `last`, and leave it as it is."""
    row: Row | None = db.execute(f"{_FIELDS} WHERE queue = ? AND id > ? ORDER BY id LIMIT 1", (queue, last)).fetchone()
    return row


def delete(db: sqlite3.Connection, ids: Sequence[int]) -> Amount:
    """Forget messages; the amount is what was really there, so that nothing is ever counted twice."""
    messages = size = 0
    for tag in ids:
        for (length,) in db.execute("SELECT LENGTH(body) FROM messages WHERE id = ?", (tag,)).fetchall():
            messages += 1
            size += length
        db.execute("DELETE FROM messages WHERE id = ?", (tag,))
    return Amount(messages, size)


def bury(db: sqlite3.Connection, tag: int, dead: str) -> Amount:
    """Move one message to the dead letters, with the headers that RabbitMQ gives a rejected one."""
    row = db.execute("SELECT queue, message_id, headers, body FROM messages WHERE id = ?", (tag,)).fetchone()
    if row is None:
        return Amount(0, 0)
    queue, message_id, headers, body = row
    told = {
        **json.loads(headers),
        "x-first-death-reason": "rejected",
        "x-first-death-queue": queue,
        "x-first-death-time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    db.execute(_INSERT, (dead, message_id, json.dumps(told), body))
    db.execute("DELETE FROM messages WHERE id = ?", (tag,))
    return Amount(1, len(body))


def measure(db: sqlite3.Connection) -> dict[str, Amount]:
    """Count what every queue holds."""
    found = db.execute("SELECT queue, COUNT(*), SUM(LENGTH(body)) FROM messages GROUP BY queue").fetchall()
    return {name: Amount(number, size) for name, number, size in found}


def version(db: sqlite3.Connection) -> int:
    """Return a number that changes when another process (the dead letters' tool) has written into the file."""
    return int(db.execute("PRAGMA data_version").fetchone()[0])
