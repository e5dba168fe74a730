"""PERSISTER → MONGODB, in the background: tombstones of deleted owners, and leases.

A tombstone is the work item of an erasure and outlives its worker: `{_id: owner, deletedAt, notedAt, sweeps,
nextSweepAt?, claim?, logged}`. A worker that claims one moves `nextSweepAt` ahead by a lease and keeps extending it; if
the worker dies, the tombstone comes due again. A claim that was lost meanwhile has no effect any more.

No host's clock is involved: due times are compared with the server's clock (`$$NOW`, `$currentDate`). What is new does
not depend on time at all: `deletions` has a document `{_id: number, owner}` for each announced deletion. Its writer
takes the number after the highest that it sees, and of two that take the same one, `_id` refuses the second. A number
therefore exists only if all before it do, and a reader that has read up to it has missed nothing.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from bson import Int64
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from broker.deleted_owner import DeletedOwner
from persister.collections import DELETIONS, JOBS, SAFE, TOMBSTONES, create_if_missing
from persister.mongodb_errors import translating_errors
from readings.collections import SERIES, SERIES_BY_SENSOR_TYPE
from readings.filters import of_owner
from readings.keys import Key

LEASE = timedelta(seconds=60)
# An index is built while writes go on, about 10 s for a million series; on a replica set until all members have it.
INDEX_TIMEOUT_S = 600.0

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A claimed tombstone: its owner, the number of sweeps so far, and the id of this claim."""

    owner: str
    sweeps: int
    claim: str


class MaintenanceStore:
    """How the workers of one database share its maintenance. Every method may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        majority = ReadConcern("majority")
        self._database = database
        self._series = database.get_collection(SERIES, write_concern=SAFE)
        self._tombstones = database.get_collection(TOMBSTONES, write_concern=SAFE, read_concern=majority)
        self._deletions = database.get_collection(DELETIONS, write_concern=SAFE, read_concern=majority)
        # Read from the primary, safe or not: for the next number.
        self._newest = database.get_collection(DELETIONS)
        self._jobs = database.get_collection(JOBS, write_concern=SAFE)

    @property
    def database(self) -> Any:
        """The database."""
        return self._database

    async def prepare(self) -> None:
        """Create the collections that workers learn from, and the index of the tombstones, if they are missing."""
        with translating_errors():
            for name in (SERIES, DELETIONS, TOMBSTONES):
                await create_if_missing(self._database, name)
            await self._tombstones.create_index("nextSweepAt", sparse=True)

    async def index_series(self) -> None:
        """Create the index of the series by their sensorType if it is missing."""
        with translating_errors(), pymongo.timeout(INDEX_TIMEOUT_S):
            await self._series.create_index(SERIES_BY_SENSOR_TYPE)

    async def write_tombstone(self, deleted: DeletedOwner) -> None:
        """Write a tombstone, due at once. Repeating it makes it due again: a restored copy may hold readings again."""
        change = {
            "$set": {
                "deletedAt": datetime.fromtimestamp(deleted.deleted_at_ms / 1000, UTC),
                "sweeps": 0,
                "logged": True,
            },
            "$currentDate": {"notedAt": True, "nextSweepAt": True},
            "$unset": {"claim": ""},
        }
        with translating_errors():
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
        """Return every deleted owner, and the number up to which deletions are included."""
        with translating_errors():
            # Read first: a tombstone is written before its number.
            last = await self._deletions.find_one({}, sort=[("_id", -1)])
            owners = [found["_id"] async for found in self._tombstones.find({}, {"_id": 1})]
        return owners, int(last["_id"]) if last else 0

    async def deleted_after(self, number: int) -> tuple[list[str], int]:
        """Return the owners of the deletions after a number and of those without a number, and the highest number."""
        with translating_errors():
            found = [one async for one in self._deletions.find({"_id": {"$gt": Int64(number)}}).sort("_id", 1)]
            # Written by a version without numbers, whose sweeps last for an hour.
            unnumbered = self._tombstones.find({"nextSweepAt": {"$exists": True}, "logged": {"$exists": False}})
            owners = [one["_id"] async for one in unnumbered]
        owners += [one["owner"] for one in found]
        return owners, int(found[-1]["_id"]) if found else number

    async def claim_sweep(self) -> Sweep | None:
        """Claim a tombstone that is due; None if there is none."""
        claim = secrets.token_hex(8)
        with translating_errors():
            found = await self._tombstones.find_one_and_update(
                {"nextSweepAt": {"$exists": True}, "$expr": {"$lte": ["$nextSweepAt", "$$NOW"]}},
                [{"$set": {"nextSweepAt": _after(LEASE), "claim": claim}}],
                sort=[("nextSweepAt", 1)],
            )
        return None if found is None else Sweep(found["_id"], int(found["sweeps"]), claim)

    async def renew_sweep(self, sweep: Sweep) -> None:
        """Extend the lease on a claimed tombstone."""
        with translating_errors():
            mine = {"_id": sweep.owner, "claim": sweep.claim}
            await self._tombstones.update_one(mine, [{"$set": {"nextSweepAt": _after(LEASE)}}])

    async def finish_sweep(self, sweep: Sweep, *, next_in_s: float | None) -> None:
        """Record the end of a sweep, and in how many seconds the next one is due (None: it was the last).

        No effect if another worker has claimed the tombstone, or the owner was announced again, in the meantime.
        """
        change: list[dict[str, Any]] = [{"$set": {"sweeps": sweep.sweeps + 1}}, {"$unset": "claim"}]
        if next_in_s is None:
            change.append({"$unset": "nextSweepAt"})
        else:
            change.append({"$set": {"nextSweepAt": _after(timedelta(seconds=next_in_s))}})
        with translating_errors():
            await self._tombstones.update_one({"_id": sweep.owner, "claim": sweep.claim}, change)

    async def claim_job(self, name: str) -> int | None:
        """Claim a job that is due for the time of a lease; None if it is not due or another worker has it.

        Returns the server's time, in milliseconds since 1970.
        """
        claim = secrets.token_hex(8)
        is_due = {"$lte": [{"$ifNull": ["$dueAt", _LONG_AGO]}, "$$NOW"]}
        change = {
            "claim": {"$cond": [is_due, claim, "$claim"]},
            "claimedAt": {"$cond": [is_due, "$$NOW", "$claimedAt"]},
            "dueAt": {"$cond": [is_due, _after(LEASE), "$dueAt"]},
        }
        with translating_errors():
            found = await self._jobs.find_one_and_update(
                {"_id": name}, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
            )
        return round(found["claimedAt"].timestamp() * 1000) if found.get("claim") == claim else None

    async def schedule_job(self, name: str, seconds: float) -> None:
        """Make a job due again `seconds` from now; while it runs, this extends the lease."""
        with translating_errors():
            await self._jobs.update_one({"_id": name}, [{"$set": {"dueAt": _after(timedelta(seconds=seconds))}}])

    async def series_after(self, last: Key | None, limit: int) -> list[Key]:
        """Return the next series in the order of their keys."""
        query = {} if last is None else {"_id": {"$gt": last}}
        with translating_errors():
            cursor = self._series.find(query, {"_id": 1}).sort("_id", 1).limit(limit)
            return [found["_id"] async for found in cursor]

    async def delete_series(self, owner: str) -> None:
        """Delete the documents of an owner's series."""
        with translating_errors():
            await self._series.delete_many(of_owner(owner))

    async def count_series(self, owner: str) -> int:
        """Return the number of an owner's series."""
        with translating_errors():
            return int(await self._series.count_documents(of_owner(owner)))


def _after(time_from_now: timedelta) -> dict[str, Any]:
    """Return a time by the server's clock, for an update pipeline."""
    return {"$add": ["$$NOW", round(time_from_now.total_seconds() * 1000)]}
