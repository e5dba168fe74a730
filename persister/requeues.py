"""Counts how often workers have requeued each message themselves.

A message that was delivered 100 times and never settled is dead-lettered as `too_often`: it may be what kills its
workers. But RabbitMQ counts more than crashes. On 3.10 and 4.0 every return counts, on 4.3 all but a `nack`; and a
worker requeues what it has held for HOLD_SECONDS, good messages too, while MongoDB or the dead-letter queue is away. So
each requeue is recorded here, and what counts against a message is its deliveries minus its requeues.

When it is recorded: what could not be held any longer because MongoDB is away is remembered, and written once MongoDB
takes writes again, before the worker consumes anything. That write is also the proof that the worker may consume: it
needs the same as a write of readings (a primary, a majority, a journal with room), which a ping does not. An outage
therefore costs a message one requeue for each worker that held it, not one for every HOLD_SECONDS. Only a worker that
is killed during the outage forgets its own. What a lost connection returns is not recorded: it counts against the
message, as a crash does.

A document: `{_id: id of the message, by: {worker: requeues}, at: Date}`. A worker writes only its own number, so that a
write whose reply was lost may be repeated.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo import UpdateOne
from pymongo.read_concern import ReadConcern

from broker.interface import Delivery
from broker.message import Message
from persister.collections import REQUEUES, SAFE
from persister.mongodb_errors import translating_errors

# More than one worker holds (64 in its prefetch window, 4,096 that wait for the dead-letter queue), so that a message
# that comes round again is still remembered; about 150 bytes each.
MAX_REMEMBERED = 20_000
TTL = timedelta(days=30)
PROBE = "probe"


class Requeues:
    """The requeues of this worker, and through MongoDB those of all. Methods that ask MongoDB may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        self._collection = database.get_collection(REQUEUES, write_concern=SAFE, read_concern=ReadConcern("majority"))
        self._worker = uuid4().hex
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._unwritten: set[str] = set()

    def record(self, deliveries: Iterable[Delivery]) -> None:
        """Remember that these are requeued, for the next write."""
        for delivery in deliveries:
            name = _name(delivery.message)
            self._counts[name] = self._counts.pop(name, 0) + 1
            self._unwritten.add(name)
        while len(self._counts) > MAX_REMEMBERED:
            name, _ = self._counts.popitem(last=False)
            self._unwritten.discard(name)

    async def write(self) -> None:
        """Write what was recorded."""
        if self._unwritten:
            await self._write([])

    async def probe(self) -> None:
        """Return once MongoDB has taken a write, which includes what was recorded; WriteFailed."""
        with translating_errors():
            await self._collection.create_index("at", expireAfterSeconds=int(TTL.total_seconds()))
        # Only the time in the document changes, which is enough to need the journal.
        await self._write([UpdateOne({"_id": PROBE}, {"$set": {"at": datetime.now(UTC)}}, upsert=True)])

    async def count(self, message: Message) -> int:
        """Return how often workers have requeued this message themselves."""
        name = _name(message)
        with translating_errors():
            found = await self._collection.find_one({"_id": name})
        by: dict[str, int] = (found or {}).get("by", {})
        by[self._worker] = max(by.get(self._worker, 0), self._counts.get(name, 0))
        return sum(by.values())

    async def _write(self, updates: list[UpdateOne]) -> None:
        now, written = datetime.now(UTC), {name: self._counts[name] for name in self._unwritten}
        for name, count in written.items():
            change = {"$max": {f"by.{self._worker}": count}, "$set": {"at": now}}
            updates.append(UpdateOne({"_id": name}, change, upsert=True))
        # Fails too if two workers insert the same message at once: the next attempt finds it there.
        with translating_errors():
            await self._collection.bulk_write(updates, ordered=False)
        self._unwritten -= {name for name, count in written.items() if self._counts.get(name) == count}


def _name(message: Message) -> str:
    return message.message_id or hashlib.sha256(message.body).hexdigest()
