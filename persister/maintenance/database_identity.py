"""Tells the database that a worker has learned from apart from another one, and from an older copy of the same.

Collection `database`: `{_id: "identity", id, generation}`, made by whoever is first, and a mark of each worker,
`{_id: "worker:…", mark, seenAt}`. A worker raises its mark, with majority, each time that it has learned something, and
remembers the highest that was confirmed. What does not have that mark does not have what was learned before it: it was
dropped, is another database, or was restored from a copy that is older. No clock is asked for that. `generation` is
raised by an operator's command that takes away what workers rely on. The UUIDs of the collections that workers rely on
belong to it too, for one of them may be dropped or restored by itself.
"""

import secrets
import time
from typing import Any

from pymongo import ReturnDocument, WriteConcern

from persister.failing import failing
from persister.maintenance.store import DELETIONS, TOMBSTONES
from persister.to_mongodb import WriteFailed
from readings.collections import SERIES

DATABASE = "database"
IDENTITY = "identity"
LEARNED_FROM = [SERIES, TOMBSTONES, DELETIONS]
# By the server's clock. A mark that is gone only makes its worker learn anew.
MARKS_KEPT_S = 86_400
REFRESH_EVERY_S = 3600.0


class Identity:
    """The identity of one database, as one worker knows it. Every call may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        # Read as it is on the primary: after a failover, what is known there to be safe may for a moment be less than
        # what was confirmed to this worker, and would look like an older copy.
        self._collection = database.get_collection(DATABASE, write_concern=WriteConcern(w="majority", j=True))
        self._database = database
        self._worker = f"worker:{secrets.token_hex(12)}"
        self._known: tuple[str, int] | None = None
        self._collections: dict[str, Any] = {}
        self._given = 0
        self._confirmed = 0
        self._marked_at = 0.0

    async def begin(self) -> None:
        """Take what is there now for the database that is learned from; its collections are there already."""
        with failing():
            await self._collection.create_index("seenAt", expireAfterSeconds=MARKS_KEPT_S)
            found = await self._collection.find_one_and_update(
                {"_id": IDENTITY},
                {"$setOnInsert": {"id": secrets.token_hex(16), "generation": 0}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            number = self._next()
            change = {"$set": {"mark": number}, "$currentDate": {"seenAt": True}}
            await self._collection.update_one({"_id": self._worker}, change, upsert=True)
            self._collections = await self._uuids()
        self._known = _named(found)
        self._has_confirmed(number)

    async def changed(self) -> str:
        """Return why this is not what was learned from, in words for a log; empty where it is."""
        expected = self._confirmed
        with failing():
            cursor = self._collection.find({"_id": {"$in": [IDENTITY, self._worker]}})
            found = {one["_id"]: one async for one in cursor}
            collections = await self._uuids()
        if IDENTITY not in found:
            return "it was dropped or is another one"
        now = _named(found[IDENTITY])
        if self._known is None or now[0] != self._known[0]:
            return "it is another one"
        if found.get(self._worker, {}).get("mark", 0) < expected:
            return "it is an older copy, or this worker was away for more than a day"
        if collections != self._collections:
            return "one of its collections was dropped or is another one"
        if now != self._known:
            return "an operator has erased an owner"
        if time.monotonic() - self._marked_at > REFRESH_EVERY_S:
            await self.mark()
        return ""

    async def mark(self) -> None:
        """Raise this worker's mark: call it when something was learned, before relying on that.

        WriteFailed also where the mark is not what it was: then this is not the database that was learned from.
        """
        expected, number = self._confirmed, self._next()
        with failing():
            result = await self._collection.update_one(
                {"_id": self._worker, "mark": {"$gte": expected}},
                {"$max": {"mark": number}, "$currentDate": {"seenAt": True}},
            )
        if not result.matched_count:
            raise WriteFailed("the database is not the one that it was")
        self._has_confirmed(number)

    async def next_generation(self) -> None:
        """Make every worker learn anew what it remembers; the identity is made where there is none."""
        with failing():
            change = {"$inc": {"generation": 1}, "$setOnInsert": {"id": secrets.token_hex(16)}}
            await self._collection.update_one({"_id": IDENTITY}, change, upsert=True)

    async def _uuids(self) -> dict[str, Any]:
        cursor = await self._database.list_collections(filter={"name": {"$in": LEARNED_FROM}})
        return {one["name"]: one.get("info", {}).get("uuid") async for one in cursor}

    def _next(self) -> int:
        self._given += 1
        return self._given

    def _has_confirmed(self, number: int) -> None:
        self._confirmed = max(self._confirmed, number)
        self._marked_at = time.monotonic()


def _named(found: dict[str, Any]) -> tuple[str, int]:
    return str(found.get("id")), int(found.get("generation", 0))
