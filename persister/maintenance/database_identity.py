"""Detects that a worker's cached state came from another database, or from a newer copy of this one.

Collection `database`: `{_id: "identity", id, generation}`, written by the first worker, and one mark for each worker,
`{_id: "worker:…", mark, seenAt}`. A worker raises its mark, with majority, whenever it has learned something, and
remembers the highest confirmed one. A database without that mark lacks what was learned before it: it was dropped, is
another database, or was restored from an older copy. No clock is involved. `generation` is raised by an operator's
command that removes what workers rely on. The UUIDs of the collections that workers rely on are part of the identity
too, because a collection may be dropped or restored by itself.
"""

import secrets
import time
from typing import Any

from pymongo import ReturnDocument

from persister.collections import DATABASE, DELETIONS, SAFE, TOMBSTONES
from persister.mongodb_errors import WriteFailed, translating_errors
from readings.collections import SERIES

IDENTITY = "identity"
TRACKED_COLLECTIONS = [SERIES, TOMBSTONES, DELETIONS]
# By the server's clock. A worker whose mark has expired only has to learn everything again.
MARK_TTL_S = 86_400
REFRESH_EVERY_S = 3600.0


class DatabaseIdentity:
    """The identity of one database, as one worker knows it. Every method may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        # Read from the primary without majority: after a failover, what is known there to be safe may briefly be less
        # than what was confirmed to this worker, and would look like an older copy.
        self._collection = database.get_collection(DATABASE, write_concern=SAFE)
        self._database = database
        self._worker = f"worker:{secrets.token_hex(12)}"
        self._known: tuple[str, int] | None = None
        self._collections: dict[str, Any] = {}
        self._last_mark = 0
        self._confirmed_mark = 0
        self._marked_at = 0.0

    async def adopt(self) -> None:
        """Take the database that answers now as the one that is learned from; its collections exist already."""
        with translating_errors():
            await self._collection.create_index("seenAt", expireAfterSeconds=MARK_TTL_S)
            found = await self._collection.find_one_and_update(
                {"_id": IDENTITY},
                {"$setOnInsert": {"id": secrets.token_hex(16), "generation": 0}},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
            mark = self._next_mark()
            change = {"$set": {"mark": mark}, "$currentDate": {"seenAt": True}}
            await self._collection.update_one({"_id": self._worker}, change, upsert=True)
            self._collections = await self._uuids()
        self._known = _id_and_generation(found)
        self._confirm(mark)

    async def mismatch(self) -> str:
        """Return why this is not the database that was adopted, in words for a log; an empty string if it is."""
        expected = self._confirmed_mark
        with translating_errors():
            cursor = self._collection.find({"_id": {"$in": [IDENTITY, self._worker]}})
            found = {one["_id"]: one async for one in cursor}
            collections = await self._uuids()
        if IDENTITY not in found:
            return "it was dropped or is another one"
        now = _id_and_generation(found[IDENTITY])
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
        """Raise this worker's mark: call it when something was learned, before relying on it.

        WriteFailed also if the mark is lower than it was: then this is not the database that was adopted.
        """
        expected, mark = self._confirmed_mark, self._next_mark()
        with translating_errors():
            result = await self._collection.update_one(
                {"_id": self._worker, "mark": {"$gte": expected}},
                {"$max": {"mark": mark}, "$currentDate": {"seenAt": True}},
            )
        if not result.matched_count:
            raise WriteFailed("the database is not the one that it was")
        self._confirm(mark)

    async def next_generation(self) -> None:
        """Make every worker learn everything again; creates the identity if there is none."""
        with translating_errors():
            change = {"$inc": {"generation": 1}, "$setOnInsert": {"id": secrets.token_hex(16)}}
            await self._collection.update_one({"_id": IDENTITY}, change, upsert=True)

    async def _uuids(self) -> dict[str, Any]:
        cursor = await self._database.list_collections(filter={"name": {"$in": TRACKED_COLLECTIONS}})
        return {one["name"]: one.get("info", {}).get("uuid") async for one in cursor}

    def _next_mark(self) -> int:
        self._last_mark += 1
        return self._last_mark

    def _confirm(self, mark: int) -> None:
        self._confirmed_mark = max(self._confirmed_mark, mark)
        self._marked_at = time.monotonic()


def _id_and_generation(found: dict[str, Any]) -> tuple[str, int]:
    return str(found.get("id")), int(found.get("generation", 0))
