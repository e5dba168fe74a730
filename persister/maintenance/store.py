"""PERSISTER → MONGODB, in the background: tombstones of deleted owners, leases, and deletes in small steps.

A tombstone is the work item of an erasure and outlives its worker: `{_id: owner, deletedAt, notedAt, sweeps,
nextSweepAt?, claim?, logged}`. Who claims one moves `nextSweepAt` ahead by a lease and keeps moving it; a worker that
dies lets it come due. A claim that was lost meanwhile changes nothing any more.

No host's clock is asked: what is due is compared with the server's (`$$NOW`, `$currentDate`). And what is new is not a
matter of time at all: `deletions` has a document `{_id: number, owner}` for each announced deletion. Who writes one
takes the next number after the highest that it sees, and meets the other in `_id` where two do so at once; so a number
is there only when all before it are, and whoever has read up to one misses nothing.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from bson import Int64, MaxKey
from pymongo import ReturnDocument, WriteConcern
from pymongo.errors import CollectionInvalid, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from broker.deleted_owner import DeletedOwner
from persister.failing import failing
from readings.collections import READINGS, SERIES, SERIES_BY_SENSOR_TYPE
from readings.document import AS_MILLISECONDS
from readings.filters import of_owner
from readings.keys import Key

TOMBSTONES = "deleted_owners"
DELETIONS = "deletions"
CHORES = "chores"

LEASE = timedelta(seconds=60)
# Deleted by one command: some 10 ms of the server's time.
STEP_READINGS = 1000
COUNTED_AT_ONCE = 100_000
# An index is built while writes go on, some 10 s for a million series; a replica set ends it when all members have it.
INDEX_S = 600.0

Renew = Callable[[], Awaitable[None]]
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A claimed tombstone: whose, how many sweeps there were, and what tells this claim from others."""

    owner: str
    sweeps: int
    claim: str


class Upkeep:
    """Deletes in one database, and what workers tell each other about it. Every call may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        safe = WriteConcern(w="majority", j=True)
        majority = ReadConcern("majority")
        self._database = database
        self._readings = database.get_collection(READINGS, codec_options=AS_MILLISECONDS, write_concern=safe)
        self._series = database.get_collection(SERIES, write_concern=safe)
        self._tombstones = database.get_collection(TOMBSTONES, write_concern=safe, read_concern=majority)
        self._deletions = database.get_collection(DELETIONS, write_concern=safe, read_concern=majority)
        # As it is on the primary, safe or not: for the next number.
        self._newest = database.get_collection(DELETIONS)
        self._chores = database.get_collection(CHORES, write_concern=safe)

    async def prepare(self) -> None:
        """Make the collections that are learned from, and the index of the tombstones."""
        with failing():
            for name in (SERIES, DELETIONS):
                with suppress(CollectionInvalid):  # it is there
                    await self._database.create_collection(name)
            await self._tombstones.create_index("nextSweepAt", sparse=True)

    async def index_series(self) -> None:
        """Make the index of the series by their sensorType; where it is there, nothing happens."""
        with failing(), pymongo.timeout(INDEX_S):
            await self._series.create_index(SERIES_BY_SENSOR_TYPE)

    async def note_deleted(self, deleted: DeletedOwner) -> None:
        """Write a tombstone, due at once. A repetition makes it due again: an older copy may hold readings again."""
        change = {
            "$set": {
                "deletedAt": datetime.fromtimestamp(deleted.deleted_at_ms / 1000, UTC),
                "sweeps": 0,
                "logged": True,
            },
            "$currentDate": {"notedAt": True, "nextSweepAt": True},
            "$unset": {"claim": ""},
        }
        with failing():
            await self._tombstones.update_one({"_id": deleted.owner}, change, upsert=True)
            while True:
                last = await self._newest.find_one({}, sort=[("_id", -1)])
                try:
                    number = Int64(last["_id"] + 1 if last else 1)
                    await self._deletions.insert_one({"_id": number, "owner": deleted.owner})
                except DuplicateKeyError:
                    continue  # another worker has taken this number
                return

    async def all_deleted(self) -> tuple[list[str], int]:
        """Return every deleted owner, and the number up to which deletions are among them."""
        with failing():
            # First: a tombstone is there before its number.
            last = await self._deletions.find_one({}, sort=[("_id", -1)])
            owners = [found["_id"] async for found in self._tombstones.find({}, {"_id": 1})]
        return owners, int(last["_id"]) if last else 0

    async def deleted_after(self, number: int) -> tuple[list[str], int]:
        """Return the owners of the deletions after a number, and the highest number; those without one, too."""
        with failing():
            found = [one async for one in self._deletions.find({"_id": {"$gt": Int64(number)}}).sort("_id", 1)]
            # Written by a version that gave no numbers; its sweeps last for an hour.
            unnumbered = self._tombstones.find({"nextSweepAt": {"$exists": True}, "logged": {"$exists": False}})
            owners = [one["_id"] async for one in unnumbered]
        owners += [one["owner"] for one in found]
        return owners, int(found[-1]["_id"]) if found else number

    async def claim_sweep(self) -> Sweep | None:
        """Take a tombstone that is due; None when nothing is."""
        claim = secrets.token_hex(8)
        with failing():
            found = await self._tombstones.find_one_and_update(
                {"nextSweepAt": {"$exists": True}, "$expr": {"$lte": ["$nextSweepAt", "$$NOW"]}},
                [{"$set": {"nextSweepAt": _after(LEASE), "claim": claim}}],
                sort=[("nextSweepAt", 1)],
            )
        return None if found is None else Sweep(found["_id"], int(found["sweeps"]), claim)

    async def renew_sweep(self, sweep: Sweep) -> None:
        """Keep a claimed tombstone from coming due."""
        with failing():
            mine = {"_id": sweep.owner, "claim": sweep.claim}
            await self._tombstones.update_one(mine, [{"$set": {"nextSweepAt": _after(LEASE)}}])

    async def swept(self, sweep: Sweep, *, next_in_s: float | None) -> None:
        """Note the end of a sweep, and when the next one is due (None: it was the last).

        Where another worker has claimed it, or the owner was announced again meanwhile, that stands.
        """
        change: list[dict[str, Any]] = [{"$set": {"sweeps": sweep.sweeps + 1}}, {"$unset": "claim"}]
        if next_in_s is None:
            change.append({"$unset": "nextSweepAt"})
        else:
            change.append({"$set": {"nextSweepAt": _after(timedelta(seconds=next_in_s))}})
        with failing():
            await self._tombstones.update_one({"_id": sweep.owner, "claim": sweep.claim}, change)

    async def claim_chore(self, name: str) -> int | None:
        """Take a chore that is due, for the time of a lease; None while another worker has it.

        Returns the server's time, in milliseconds since 1970.
        """
        claim = secrets.token_hex(8)
        is_due = {"$lte": [{"$ifNull": ["$dueAt", _LONG_AGO]}, "$$NOW"]}
        change = {
            "claim": {"$cond": [is_due, claim, "$claim"]},
            "claimedAt": {"$cond": [is_due, "$$NOW", "$claimedAt"]},
            "dueAt": {"$cond": [is_due, _after(LEASE), "$dueAt"]},
        }
        with failing():
            found = await self._chores.find_one_and_update(
                {"_id": name}, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
            )
        return round(found["claimedAt"].timestamp() * 1000) if found.get("claim") == claim else None

    async def chore_due_in(self, name: str, seconds: float) -> None:
        """Say when a chore is due again; in the middle of it, this renews the lease."""
        with failing():
            await self._chores.update_one({"_id": name}, [{"$set": {"dueAt": _after(timedelta(seconds=seconds))}}])

    async def series_after(self, last: Key | None, limit: int) -> list[Key]:
        """Return the next series in the order of their keys."""
        query = {} if last is None else {"_id": {"$gt": last}}
        with failing():
            cursor = self._series.find(query, {"_id": 1}).sort("_id", 1).limit(limit)
            return [found["_id"] async for found in cursor]

    async def erase_owner(self, owner: str, renew: Renew) -> int:
        """Delete every reading and series of an owner; return how many readings there were."""
        erased = await self.delete_range(of_owner(owner), renew)
        await self.delete_series(owner)
        return erased

    async def delete_series(self, owner: str) -> None:
        """Delete the documents of an owner's series."""
        with failing():
            await self._series.delete_many(of_owner(owner))

    async def delete_range(
        self, bounds: dict[str, Any], renew: Renew | None, progress: Callable[[int], None] | None = None
    ) -> int:
        """Delete the readings of a key range, oldest key first, in steps with a rest after each as long as the step.

        `progress` is told after each step how many were deleted so far.
        """
        low, high = bounds["_id"]["$gte"], bounds["_id"]["$lt"]
        deleted, renewed_at = 0, time.monotonic()
        while True:
            started = time.monotonic()
            with failing():
                query = {"_id": {"$gte": low, "$lt": high}}
                last = self._readings.find(query, {"_id": 1}).sort("_id", 1).skip(STEP_READINGS - 1).limit(1)
                ends = [found["_id"] async for found in last]
                step = {"_id": {"$gte": low, "$lte": ends[0]}} if ends else query
                deleted += int((await self._readings.delete_many(step)).deleted_count)
            if not ends:
                return deleted
            low = ends[0]
            if progress is not None:
                progress(deleted)
            if renew is not None and time.monotonic() - renewed_at > LEASE.total_seconds() / 4:
                await renew()
                renewed_at = time.monotonic()
            await asyncio.sleep(time.monotonic() - started)

    async def count_readings(self, bounds: dict[str, Any]) -> int:
        """Return how many readings there are in a key range; counted in steps, so that no call takes long."""
        low, high, counted = bounds["_id"]["$gte"], bounds["_id"]["$lt"], 0
        after = "$gte"
        while True:
            query = {"_id": {after: low, "$lt": high}}
            with failing():
                last = self._readings.find(query, {"_id": 1}).sort("_id", 1).skip(COUNTED_AT_ONCE - 1).limit(1)
                ends = [found["_id"] async for found in last]
                if not ends:
                    return counted + int(await self._readings.count_documents(query))
            counted, low, after = counted + COUNTED_AT_ONCE, ends[0], "$gt"

    async def count_series(self, owner: str) -> int:
        """Return how many series an owner has."""
        with failing():
            return int(await self._series.count_documents(of_owner(owner)))

    async def note_series_of(self, owner: str) -> None:
        """Write the documents of the series of which an owner has readings."""
        bounds = of_owner(owner)
        with failing():
            while found := await self._readings.find_one(bounds, {"_id": 1}, sort=[("_id", 1)]):
                name = {part: found["_id"][part] for part in ("owner", "device", "sensorType")}
                change = [{"$set": {"firstSeenAt": {"$ifNull": ["$firstSeenAt", "$$NOW"]}}}]
                await self._series.update_one({"_id": name}, change, upsert=True)
                bounds = {"_id": {"$gt": {**name, "ts": MaxKey()}, "$lt": bounds["_id"]["$lt"]}}


def _after(time_from_now: timedelta) -> dict[str, Any]:
    """Return a moment by the server's clock, for a pipeline."""
    return {"$add": ["$$NOW", round(time_from_now.total_seconds() * 1000)]}
