"""PERSISTER → MONGODB, in the background: tombstones of deleted owners, leases, and deletes in small steps.

A tombstone is the work item of an erasure and outlives its worker: `{_id: owner, deletedAt, notedAt, sweeps,
nextSweepAt?}`. Who claims one moves `nextSweepAt` ahead by a lease and keeps moving it; a worker that dies lets it come
due. Two workers whose clocks disagree may do the same work twice, which is harmless: a delete has no second effect.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from pymongo import WriteConcern
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern

from broker.deleted_owner import DeletedOwner
from broker.document import AS_MILLISECONDS
from broker.keys import SERIES_BY_SENSOR_TYPE, Key, devices_of
from persister.to_mongodb import READINGS, SERIES, WriteFailed

TOMBSTONES = "deleted_owners"
CHORES = "chores"

LEASE = timedelta(seconds=60)
# Deleted by one command: some 10 ms of the server's time.
STEP_READINGS = 1000
# An index is built while writes go on, some 10 s for a million series; a replica set ends it when all members have it.
INDEX_S = 600.0

Renew = Callable[[], Awaitable[None]]


class Upkeep:
    """Deletes in one database, and what workers tell each other about it. Every call may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        safe = WriteConcern(w="majority", j=True)
        majority = ReadConcern("majority")
        self._readings = database.get_collection(READINGS, codec_options=AS_MILLISECONDS, write_concern=safe)
        self._series = database.get_collection(SERIES, write_concern=safe)
        self._tombstones = database.get_collection(TOMBSTONES, write_concern=safe, read_concern=majority)
        self._chores = database.get_collection(CHORES, write_concern=safe)

    async def prepare(self) -> None:
        """Make the indexes of the tombstones."""
        with _failing():
            await self._tombstones.create_index("notedAt")
            await self._tombstones.create_index("nextSweepAt", sparse=True)

    async def index_series(self) -> None:
        """Make the index of the series by their sensorType; where it is there, nothing happens."""
        with _failing(), pymongo.timeout(INDEX_S):
            await self._series.create_index(SERIES_BY_SENSOR_TYPE)

    async def note_deleted(self, deleted: DeletedOwner) -> None:
        """Write a tombstone, due at once; a repetition changes nothing."""
        now = datetime.now(UTC)
        fields = {
            "deletedAt": datetime.fromtimestamp(deleted.deleted_at_ms / 1000, UTC),
            "notedAt": now,
            "sweeps": 0,
            "nextSweepAt": now,
        }
        with _failing():
            await self._tombstones.update_one({"_id": deleted.owner}, {"$setOnInsert": fields}, upsert=True)

    async def deleted_since(self, since: datetime | None) -> list[str]:
        """Return the owners whose tombstones were written since then, or all of them."""
        query = {} if since is None else {"notedAt": {"$gte": since}}
        with _failing():
            return [found["_id"] async for found in self._tombstones.find(query, {"_id": 1})]

    async def claim_sweep(self) -> tuple[str, int] | None:
        """Take a tombstone that is due: its owner, and how many sweeps there were. None when nothing is due."""
        now = datetime.now(UTC)
        with _failing():
            found = await self._tombstones.find_one_and_update(
                {"nextSweepAt": {"$lte": now}}, {"$set": {"nextSweepAt": now + LEASE}}, sort=[("nextSweepAt", 1)]
            )
        return None if found is None else (found["_id"], int(found["sweeps"]))

    async def renew_sweep(self, owner: str) -> None:
        """Keep a claimed tombstone from coming due."""
        with _failing():
            await self._tombstones.update_one({"_id": owner}, {"$set": {"nextSweepAt": datetime.now(UTC) + LEASE}})

    async def swept(self, owner: str, *, next_in_s: float | None) -> None:
        """Note the end of a sweep, and when the next one is due (None: it was the last)."""
        change: dict[str, Any] = {"$inc": {"sweeps": 1}}
        if next_in_s is None:
            change["$unset"] = {"nextSweepAt": ""}
        else:
            change["$set"] = {"nextSweepAt": datetime.now(UTC) + timedelta(seconds=next_in_s)}
        with _failing():
            await self._tombstones.update_one({"_id": owner}, change)

    async def claim_chore(self, name: str) -> bool:
        """Take a chore that is due, for the time of a lease; False while another worker has it."""
        now = datetime.now(UTC)
        with _failing():
            try:
                await self._chores.update_one(
                    {"_id": name, "dueAt": {"$lte": now}}, {"$set": {"dueAt": now + LEASE}}, upsert=True
                )
            except DuplicateKeyError:
                return False
        return True

    async def chore_due_in(self, name: str, seconds: float) -> None:
        """Say when a chore is due again; in the middle of it, this renews the lease."""
        due_at = datetime.now(UTC) + timedelta(seconds=seconds)
        with _failing():
            await self._chores.update_one({"_id": name}, {"$set": {"dueAt": due_at}})

    async def series_after(self, last: Key | None, limit: int) -> list[Key]:
        """Return the next series in the order of their keys."""
        query = {} if last is None else {"_id": {"$gt": last}}
        with _failing():
            cursor = self._series.find(query, {"_id": 1}).sort("_id", 1).limit(limit)
            return [found["_id"] async for found in cursor]

    async def erase_owner(self, owner: str, renew: Renew) -> int:
        """Delete every reading and series of an owner; return how many readings there were."""
        bounds = devices_of(owner)
        erased = await self.delete_range(bounds, renew)
        with _failing():
            await self._series.delete_many(bounds)
        return erased

    async def delete_range(self, bounds: dict[str, Any], renew: Renew) -> int:
        """Delete the readings of a key range, oldest key first, in steps with a rest after each as long as the step."""
        low, high = bounds["_id"]["$gte"], bounds["_id"]["$lt"]
        deleted, renewed_at = 0, time.monotonic()
        while True:
            started = time.monotonic()
            with _failing():
                query = {"_id": {"$gte": low, "$lt": high}}
                last = self._readings.find(query, {"_id": 1}).sort("_id", 1).skip(STEP_READINGS - 1).limit(1)
                ends = [found["_id"] async for found in last]
                step = {"_id": {"$gte": low, "$lte": ends[0]}} if ends else query
                deleted += int((await self._readings.delete_many(step)).deleted_count)
            if not ends:
                return deleted
            low = ends[0]
            if time.monotonic() - renewed_at > LEASE.total_seconds() / 4:
                await renew()
                renewed_at = time.monotonic()
            await asyncio.sleep(time.monotonic() - started)


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise WriteFailed(f"{type(error).__name__}: {str(error)[:300]}") from error
