"""The lease of compaction in the state document, the position saved there, and the list of sealed collections.

`compaction: {holder, until, turn, unclean, number, uuid, done, repeats, deletions}`: who has it and until when, by the
server's clock; a token that each renewal replaces, so that a holder notices when the database has become an older copy
of itself, in which less was done than it knows; whether a holder lost the lease without giving it up, so that there may
be something to clean up; the sealed collection that is being compacted, by its number and UUID; the key of the last
reading that is in its place; how many readings were repeats so far; and the number of the last known deletion of an
owner when it was begun.
"""

import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from bson import Int64
from pymongo import ReturnDocument
from pymongo.read_concern import ReadConcern

from persister.collections import SAFE
from readings.document import AS_MILLISECONDS
from readings.keys import Key
from storage.places.names import BLOCKS
from storage.places.state import STATE

# After a kill nothing is compacted until it has run out. A batch takes up to 1 s, and MongoDB is given half of this.
LEASE_S = 10.0
# A sealed collection that failed this many times is given up: it stays where it is.
FAILURES = 3
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
# Until it is renewed, a bit less than on the server: the answer took some time.
_MARGIN_S = 1.0


class LeaseLostError(Exception):
    """Another process has the lease, or may have it."""


class UnsealingError(LeaseLostError):
    """`unseal` has begun, and nobody else gets the lease until it is done."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sealed collection in the list. `sealed_ms`: when it was sealed, in milliseconds since 1970."""

    number: int
    sealed_ms: int
    failures: int
    is_given_up: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known of the compaction of one sealed collection."""

    number: int
    uuid: Any
    done: Key | None = None
    repeats: int = 0
    deletions: int = 0


class Lease:
    """One holder of the lease. Every method raises the driver's errors."""

    def __init__(self, database: Any) -> None:
        self._state = database.get_collection(
            BLOCKS, codec_options=AS_MILLISECONDS, write_concern=SAFE, read_concern=ReadConcern("majority")
        )
        self._holder = secrets.token_hex(8)
        self._turn = ""
        self._until = 0.0
        self._document: dict[str, Any] = {}
        # Whether this holder itself was interrupted in the middle of a change.
        self.is_dirty = False

    @property
    def _mine(self) -> dict[str, Any]:
        return {"_id": STATE, "compaction.holder": self._holder, "compaction.turn": self._turn}

    @property
    def left_s(self) -> float:
        """How many seconds are left, by this machine's clock; LeaseLostError if none are."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise LeaseLostError("the lease has run out")
        return left

    async def acquire(self, *, to_unseal: bool = False, session: Any = None) -> bool:
        """Take the lease if nobody has it; a repetition renews it. False if nothing was ever sealed.

        What is read in the session afterwards is of no older time.

        LeaseLostError as long as another process has it, and from the first time that it was taken `to_unseal` on until
        everything is put back.
        """
        asked_at, turn = time.monotonic(), secrets.token_hex(8)
        is_mine: dict[str, Any] = {"$eq": ["$compaction.holder", self._holder]}
        is_free = {"$lte": [{"$ifNull": ["$compaction.until", _LONG_AGO]}, "$$NOW"]}
        was_lost = {"$and": [{"$ne": [{"$ifNull": ["$compaction.holder", ""]}, ""]}, {"$not": [is_mine]}]}
        change: dict[str, Any] = {
            "compaction.unclean": {"$or": [{"$ifNull": ["$compaction.unclean", False]}, was_lost, self.is_dirty]},
            "compaction.holder": self._holder,
            "compaction.until": _after(LEASE_S),
            "compaction.turn": turn,
        }
        query: dict[str, Any] = {"_id": STATE, "$expr": {"$or": [is_mine, is_free]}}
        if to_unseal:
            change["unsealing"] = {"$ifNull": ["$unsealing", {"$literal": {}}]}
        else:
            query["unsealing"] = {"$exists": False}
        with pymongo.timeout(LEASE_S / 2):  # a later answer is of little use, and a stop waits for it
            found = await self._state.find_one_and_update(
                query,
                [{"$set": change}],
                return_document=ReturnDocument.AFTER,
                session=session,
            )
        if found is None:
            state = await self._state.find_one({"_id": STATE}, {"unsealing": 1})
            if state is None:
                return False
            if "unsealing" in state and not to_unseal:
                raise UnsealingError("`unseal` has begun and is not done")
            raise LeaseLostError("another process has the lease")
        self._renewed(asked_at, turn)
        self._document = found
        return True

    @property
    def waiting(self) -> list[Waiting]:
        """The list as of `acquire`, lowest number first."""
        return waiting_of(self._document)

    @property
    def is_unclean(self) -> bool:
        """Whether a holder has lost the lease since garbage was last removed."""
        return bool(self._document["compaction"].get("unclean"))

    def was_begun(self, number: int) -> bool:
        """Return whether a compaction of this number was begun last: then its collection existed."""
        return bool(self._document["compaction"].get("number") == number)

    def progress_of(self, number: int, uuid: Any) -> Progress | None:
        """Return what was saved for this collection; None if it has not been begun."""
        saved = self._document["compaction"]
        if saved.get("number") != number or saved.get("uuid") != uuid:
            return None
        return Progress(number, uuid, saved.get("done"), int(saved["repeats"]), int(saved["deletions"]))

    async def save(self, progress: Progress) -> None:
        """Save the position, and renew the lease; LeaseLostError."""
        await self._change(
            {
                "compaction.number": Int64(progress.number),
                "compaction.uuid": progress.uuid,
                # Names may begin with "$".
                "compaction.done": {"$literal": progress.done},
                "compaction.repeats": Int64(progress.repeats),
                "compaction.deletions": Int64(progress.deletions),
                "compaction.until": _after(LEASE_S),
            }
        )

    async def renew(self) -> None:
        """Renew the lease; LeaseLostError."""
        await self._change({"compaction.until": _after(LEASE_S)})

    async def cleaned(self) -> None:
        """Note that garbage was removed; LeaseLostError."""
        await self._change({"compaction.unclean": False, "compaction.until": _after(LEASE_S)})

    async def _change(self, change: dict[str, Any]) -> None:
        asked_at, turn = time.monotonic(), secrets.token_hex(8)
        result = await self._state.update_one(self._mine, [{"$set": change | {"compaction.turn": turn}}])
        if not result.matched_count:
            raise LeaseLostError("another process has the lease, or the database is an older copy")
        self._renewed(asked_at, turn)

    async def mark_blocks(self) -> None:
        """Record that there may be pieces and blocks: before the first of them is written."""
        result = await self._state.update_one(self._mine, {"$set": {"blocks": True}})
        if not result.matched_count:
            raise LeaseLostError("another process has the lease")

    async def remove(self, number: int) -> None:
        """Take a number off the list, and its position if it is saved; its collection is gone. LeaseLostError."""
        saved = ("number", "uuid", "done", "repeats", "deletions")
        others = {"$filter": {"input": "$waiting", "cond": {"$ne": ["$$this.number", Int64(number)]}}}
        is_saved = {"$eq": ["$compaction.number", Int64(number)]}
        kept = {f"compaction.{name}": {"$cond": [is_saved, "$$REMOVE", f"$compaction.{name}"]} for name in saved}
        change = [{"$set": {"waiting": others, **kept}}]
        result = await self._state.update_one(self._mine, change)
        if not result.matched_count:
            raise LeaseLostError("another process has the lease")

    async def record_failure(self, number: int) -> bool:
        """Count a failure; return whether the collection is given up now. LeaseLostError."""
        found = await self._state.find_one_and_update(
            self._mine,
            {"$inc": {"waiting.$[one].failures": 1}},
            array_filters=[{"one.number": Int64(number)}],
            return_document=ReturnDocument.AFTER,
        )
        if found is None:
            raise LeaseLostError("another process has the lease")
        failures = next((one.failures for one in waiting_of(found) if one.number == number), 0)
        if failures < FAILURES:
            return False
        await self._state.update_one(
            self._mine, {"$set": {"waiting.$[one].aside": True}}, array_filters=[{"one.number": Int64(number)}]
        )
        return True

    async def release(self) -> None:
        """Give the lease up. Nothing happens if another process has it."""
        self._until = 0.0
        change: dict[str, Any] = {"$unset": {"compaction.holder": "", "compaction.until": "", "compaction.turn": ""}}
        if self.is_dirty:
            change["$set"] = {"compaction.unclean": True}
        await self._state.update_one(self._mine, change)

    async def read(self) -> list[Waiting]:
        """Read the list, with or without the lease."""
        return waiting_of(await self._state.find_one({"_id": STATE}) or {})

    async def server_ms(self) -> int:
        """Return the server's time in milliseconds since 1970."""
        return int((await self._state.database.command("hello", codec_options=AS_MILLISECONDS))["localTime"])

    def _renewed(self, asked_at: float, turn: str) -> None:
        self._turn = turn
        self._until = asked_at + LEASE_S - _MARGIN_S


def waiting_of(document: dict[str, Any]) -> list[Waiting]:
    """Return the list in a state document decoded with AS_MILLISECONDS, lowest number first."""
    found = [
        Waiting(int(one["number"]), int(one["sealedAt"]), int(one.get("failures", 0)), bool(one.get("aside")))
        for one in document.get("waiting", ())
    ]
    return sorted(found, key=lambda one: one.number)


def _after(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", round(timedelta(seconds=seconds).total_seconds() * 1000)]}
