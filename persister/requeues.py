"""PERSISTER → MONGODB: which messages workers have put back into the queue of their own will, and how often.

A message that was delivered 100 times and never settled is a dead letter, `too_often`: it may be what ends its workers.
But RabbitMQ counts more than crashes. On 3.10 and 4.0 every return counts, on 4.3 all but a `nack`; and a worker
returns what it has held for HOLD_SECONDS, good messages too, for as long as MongoDB or the dead-letter queue is away.
So each return is written down here, and what counts against a message is its deliveries less its returns.

When it is written: what could not be held any longer because MongoDB is away is remembered, and written down once
MongoDB takes writes again, before the worker consumes anything. That write is also the proof that it may consume: it
asks for the same as a write of readings (a primary, a majority, a journal with room), which a ping does not. So an
outage costs a message one return for each worker that had it at hand, not one for every HOLD_SECONDS; only a worker
that is killed during the outage forgets its own. What a lost connection returns is not noted: that is the broker's word
against a message, as a crash is.

A document: `{_id: id of the message, by: {worker: returns}, at: Date}`. A worker writes its own number only, so that a
write whose answer was lost may be repeated.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from pymongo import UpdateOne, WriteConcern
from pymongo.read_concern import ReadConcern

from broker.interface import Delivery
from broker.message import Message
from persister.failing import failing

REQUEUES = "requeues"
# Larger than what one worker has at hand (64 in its window, 4,096 that wait for the dead-letter queue), so that what
# goes round is remembered; some 150 bytes each.
MOST_REMEMBERED = 20_000
KEPT = timedelta(days=30)
PROBE = "probe"


class Requeues:
    """What this worker has returned, and what all have. Every call of MongoDB may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        self._requeues = database.get_collection(
            REQUEUES, write_concern=WriteConcern(w="majority", j=True), read_concern=ReadConcern("majority")
        )
        self._worker = uuid4().hex
        self._returns: OrderedDict[str, int] = OrderedDict()
        self._unwritten: set[str] = set()

    def note(self, deliveries: Iterable[Delivery]) -> None:
        """Remember that these are put back into the queue, for the next write."""
        for delivery in deliveries:
            name = _name(delivery.message)
            self._returns[name] = self._returns.pop(name, 0) + 1
            self._unwritten.add(name)
        while len(self._returns) > MOST_REMEMBERED:
            name, _ = self._returns.popitem(last=False)
            self._unwritten.discard(name)

    async def write(self) -> None:
        """Write down what was noted."""
        if self._unwritten:
            await self._write([])

    async def probe(self) -> None:
        """Return when MongoDB has taken a write, and with it what was noted."""
        with failing():
            await self._requeues.create_index("at", expireAfterSeconds=int(KEPT.total_seconds()))
        # Of the document's content only the time changes, and that is enough to have to be journaled.
        await self._write([UpdateOne({"_id": PROBE}, {"$set": {"at": datetime.now(UTC)}}, upsert=True)])

    async def returns(self, message: Message) -> int:
        """Return how often workers have put this message back of their own will."""
        name = _name(message)
        with failing():
            found = await self._requeues.find_one({"_id": name})
        by: dict[str, int] = (found or {}).get("by", {})
        by[self._worker] = max(by.get(self._worker, 0), self._returns.get(name, 0))
        return sum(by.values())

    async def _write(self, updates: list[UpdateOne]) -> None:
        now, written = datetime.now(UTC), {name: self._returns[name] for name in self._unwritten}
        for name, returns in written.items():
            change = {"$max": {f"by.{self._worker}": returns}, "$set": {"at": now}}
            updates.append(UpdateOne({"_id": name}, change, upsert=True))
        with failing():  # also of two workers that write of a message first: the next attempt finds it there
            await self._requeues.bulk_write(updates, ordered=False)
        self._unwritten -= {name for name, returns in written.items() if self._returns.get(name) == returns}


def _name(message: Message) -> str:
    return message.message_id or hashlib.sha256(message.body).hexdigest()
