"""How the persister changes the state document of `storage.places.state`. Every write is majority and journaled.

Each field has one writer at a time: the lease holder of `sealing` for `highest` and what is added to `waiting`, the
worker that enforces the retention for `retention`. Each change names its condition, so that a process whose lease ended
while it was stopped changes nothing that it may not. Times are the server's (`$$NOW`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Int64
from pymongo import ReturnDocument
from pymongo.read_concern import ReadConcern

from persister.collections import SAFE, ZSTD, create_if_missing
from persister.mongodb_errors import translating_errors
from storage.places.names import BLOCKS
from storage.places.state import STATE

# While this many sealed collections wait, no further one is sealed: each is one more for readers to ask.
MAX_WAITING = 8

# When a persister last said that its retention is the one in the state, and how often it says so.
CONFIRMED_AT = "retentionConfirmedAt"
CONFIRM_EVERY_S = 600

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULTS = {
    "highest": {"$ifNull": ["$highest", Int64(0)]},
    "waiting": {"$ifNull": ["$waiting", []]},
    "blocks": {"$ifNull": ["$blocks", False]},
}


@dataclass(frozen=True, slots=True)
class SealingState:
    """What sealing needs of the state. `born_at`: since when `hot_uuid` is the collection that readings go to.

    `waiting`: by seal number, when it was taken. `last_number`: the highest one taken, 0 if nothing was ever sealed.
    `now`: the server's time, None if there is no document yet.
    """

    waiting: Mapping[int, datetime]
    last_number: int = 0
    hot_uuid: Any = None
    born_at: datetime = _LONG_AGO
    now: datetime | None = None

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest number that waits; 0 if none does."""
        if self.now is None or not self.waiting:
            return 0.0
        return max(0.0, (self.now - min(self.waiting.values())).total_seconds())

    @property
    def age_seconds(self) -> float:
        """For how many seconds `hot_uuid` has received readings."""
        return 0.0 if self.now is None else (self.now - self.born_at).total_seconds()


class StateDocument:
    """The document of one database. Every method may raise WriteFailed."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._blocks = database.get_collection(BLOCKS, write_concern=SAFE, read_concern=ReadConcern("majority"))

    async def read(self) -> SealingState:
        """Read what sealing needs."""
        with translating_errors():
            found = await self._blocks.find_one(
                {"_id": STATE}, {"highest": 1, "waiting": 1, "sealing": 1, "now": "$$NOW"}
            )
        if found is None:
            return SealingState({})
        sealing = found.get("sealing", {})
        return SealingState(
            {int(one["number"]): one["sealedAt"] for one in found.get("waiting", ())},
            int(found.get("highest", 0)),
            sealing.get("hotUuid"),
            sealing.get("bornAt", _LONG_AGO),
            found["now"],
        )

    async def claim(self, holder: str, seconds: float) -> bool:
        """Take the lease of `sealing`, or extend it; False if another process has it. Creates the document."""
        is_free = {
            "$or": [
                {"$eq": ["$sealing.holder", holder]},
                {"$lte": [{"$ifNull": ["$sealing.until", _LONG_AGO]}, "$$NOW"]},
            ]
        }
        mine = {"holder": holder, "until": {"$add": ["$$NOW", round(seconds * 1000)]}}
        change = {
            **_DEFAULTS,
            "sealing": {"$cond": [is_free, {"$mergeObjects": ["$sealing", mine]}, "$sealing"]},
        }
        await self._create_collection()
        with translating_errors():
            found = await self._blocks.find_one_and_update(
                {"_id": STATE}, [{"$set": change}], {"sealing": 1}, upsert=True, return_document=ReturnDocument.AFTER
            )
        return bool(found["sealing"].get("holder") == holder)

    async def release(self, holder: str) -> None:
        """End the lease."""
        await self._change(holder, [{"$set": {"sealing.until": "$$NOW"}}])

    async def set_birth(self, holder: str, uuid: Any, renamed: Iterable[int]) -> bool:
        """Record that the collection with this UUID receives readings from now on; False if the lease is lost.

        `renamed`: the numbers under which collections exist, which gain nothing any more.
        """
        numbers = [Int64(number) for number in sorted(renamed)]
        is_renamed = {"$mergeObjects": ["$$one", {"renamed": {"$in": ["$$one.number", numbers]}}]}
        change = {
            "sealing.hotUuid": uuid,
            "sealing.bornAt": "$$NOW",
            "waiting": {"$map": {"input": "$waiting", "as": "one", "in": is_renamed}},
        }
        return await self._change(holder, [{"$set": change}])

    async def take_number(self, holder: str) -> int | None:
        """Take the next seal number, which waits from now on.

        None if the lease is lost, if MAX_WAITING wait already, and while `unseal` puts readings back.

        It is taken once, whatever becomes of it. The caller must have read the UUID of the collection that it means to
        rename before: then of two numbers the lower one is of the earlier collection, even if the lease was lost.
        """
        number = {"$add": [{"$max": ["$highest", {"$max": "$waiting.number"}]}, Int64(1)]}
        query = {
            "_id": STATE,
            "sealing.holder": holder,
            "unsealing": {"$exists": False},
            "$expr": {"$lt": [{"$size": "$waiting"}, MAX_WAITING]},
        }
        changes = [
            {"$set": {"highest": number}},
            {"$set": {"waiting": {"$concatArrays": ["$waiting", [_waiting("$highest")]]}}},
        ]
        with translating_errors():
            found = await self._blocks.find_one_and_update(
                query, changes, {"highest": 1}, return_document=ReturnDocument.AFTER
            )
        return None if found is None else int(found["highest"])

    async def withdraw(self, holder: str, number: int) -> None:
        """Take a number off the list that MongoDB has refused to rename a collection to; it is not used again."""
        others = {"$filter": {"input": "$waiting", "as": "one", "cond": {"$ne": ["$$one.number", Int64(number)]}}}
        await self._change(holder, [{"$set": {"waiting": others}}])

    async def include(self, numbers: Iterable[int]) -> None:
        """Let sealed collections that exist wait if they do not, and raise `highest` to the highest of their numbers.

        For a restored database: its state may be older than its collections.
        """
        wanted = [Int64(number) for number in sorted(numbers)]
        missing = {"$setDifference": [wanted, "$waiting.number"]}
        added = {"$map": {"input": missing, "as": "number", "in": _waiting("$$number")}}
        changes = [
            {"$set": _DEFAULTS},
            {
                "$set": {
                    "highest": {"$max": ["$highest", *wanted]},
                    "waiting": {"$concatArrays": ["$waiting", added]},
                }
            },
        ]
        await self._create_collection()
        with translating_errors():
            await self._blocks.update_one({"_id": STATE}, changes, upsert=True)

    async def publish_retention(self, days: int, by_sensor_type: Mapping[str, int]) -> None:
        """Let readers know for how long readings are kept; writes nothing if they know. 0: without limit.

        A limit is confirmed every ten minutes: a compactor removes nothing by one that is not (compaction/expired.py).
        """
        retention = {"days": days, "bySensorType": dict(sorted(by_sensor_type.items()))}
        with translating_errors():
            if days or any(by_sensor_type.values()):
                is_confirmed = {"$gt": [f"${CONFIRMED_AT}", {"$subtract": ["$$NOW", CONFIRM_EVERY_S * 1000]}]}
                known = await self._blocks.find_one({"_id": STATE}, {"retention": 1, "isConfirmed": is_confirmed})
                if known is None:
                    await self._create_collection()
                elif known.get("retention") == retention and known["isConfirmed"]:
                    return
                change = {"$set": {"retention": {"$literal": retention}, CONFIRMED_AT: "$$NOW"}}
                await self._blocks.update_one({"_id": STATE}, [{"$set": _DEFAULTS}, change], upsert=True)
            else:
                query = {"_id": STATE, "retention": {"$exists": True}}
                await self._blocks.update_one(query, {"$unset": {"retention": "", CONFIRMED_AT: ""}})

    async def _change(self, holder: str, changes: list[dict[str, Any]]) -> bool:
        """Change the document if this process has the lease; return whether it does."""
        with translating_errors():
            result = await self._blocks.update_one({"_id": STATE, "sealing.holder": holder}, changes)
        return bool(result.matched_count)

    async def _create_collection(self) -> None:
        with translating_errors():
            await create_if_missing(self._database, BLOCKS, **ZSTD)


def _waiting(number: str) -> dict[str, Any]:
    return {"number": number, "sealedAt": "$$NOW", "failures": 0, "aside": False}
