"""Deletes readings from all their places, and counts them there.

In the direction in which readings move: from `readings`, then from the sealed collections that the state names, then
pieces, then blocks, heads before columns. What moves meanwhile is met in a later place, and what a compactor was about
to write is met by a later sweep. A delete that a rename ends begins again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from bson import MaxKey, ObjectId
from bson.datetime_ms import DatetimeMS
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from persister.collections import SAFE
from persister.mongodb_errors import translating_errors
from readings.collections import READINGS, SERIES
from readings.document import AS_MILLISECONDS
from readings.filters import in_time_range, of_owner
from readings.keys import Key
from storage.places.moving import MOVED
from storage.places.names import BLOCKS, COLUMNS, PIECES, sealed_name
from storage.places.state import read_state

# Documents deleted by one command: about 10 ms of the server's time.
DOCUMENTS_PER_DELETE = 1000
READINGS_PER_COUNT = 100_000

Renew = Callable[[], Awaitable[None]]
Progress = Callable[[int], None]
Filter = dict[str, Any]


class Removal:
    """Deletes in one database. Every method may raise WriteFailed.

    `renew` is called at most every `renew_every_s`, `progress` after each step with the number of readings deleted.
    After each step it pauses for as long as the step took.
    """

    def __init__(
        self, database: Any, renew: Renew | None = None, progress: Progress | None = None, renew_every_s: float = 15.0
    ) -> None:
        self._database = database
        self._renew = renew
        self._progress = progress
        self._renew_every_s = renew_every_s
        self._renewed_at = time.monotonic()
        # Readings deleted so far.
        self.deleted = 0

    async def of_owner(self, owner: str) -> None:
        """Delete every reading of an owner."""
        bounds = of_owner(owner)
        async for name in self._collections_of_documents():
            await self._delete_range(name, bounds, None)
        await self.of_owner_in_blocks(owner)

    async def of_owner_in_blocks(self, owner: str) -> None:
        """Delete what pieces and blocks have of an owner: also what a compactor had read before it was deleted."""
        bounds = of_owner(owner)
        for name in (PIECES, BLOCKS):
            await self._delete_range(name, bounds, "$count")
        await self._delete_range(COLUMNS, bounds, None, counts=False)

    async def before(self, series: Key, limit_ms: int) -> None:
        """Delete the readings of a series before a time.

        Of pieces and blocks only those that have nothing else: readers show nothing before the limit, and the compactor
        cuts the others (persister/compaction/expired.py).
        """
        older = in_time_range(series, to_ms=limit_ms)
        async for name in self._collections_of_documents():
            await self._delete_range(name, older, None)
        all_of_series = _of_series(series)
        is_older = {"last.ts": {"$lt": DatetimeMS(limit_ms)}}
        await self._delete_range(PIECES, {**all_of_series, **is_older}, "$count")
        await self._delete_blocks({**all_of_series, **is_older})

    async def _delete_blocks(self, query: Filter) -> None:
        """Delete whole blocks, the oldest first, each only if it is still the one that was found.

        A pending block is live because of the one that ends where it begins (storage.places.documents). So it is made
        one that is not pending before that one goes, and is the next to go: there must be no gap after it.
        """
        query = {**query, "pending": {"$exists": False}}
        while await self._delete_blocks_before_a_pending_one(query):
            pass

    async def _delete_blocks_before_a_pending_one(self, query: Filter) -> bool:
        """Return whether there was a pending one, so that the rest has to be looked for again."""
        heads, columns = self._collection(BLOCKS), self._collection(COLUMNS)
        with translating_errors():
            found = heads.find(query, {"count": 1, "edit": 1, "columns": 1, "until": 1}).sort("_id", 1)
            blocks = [one async for one in found]
        for one in blocks:
            with translating_errors():
                next_one = {"_id": {**one["_id"], **one["until"]}, "pending": True}
                change = {"$unset": {"pending": ""}, "$set": {"edit": ObjectId()}}
                had_pending = bool((await heads.update_one(next_one, change)).modified_count)
                if not (await heads.delete_one({"_id": one["_id"], "edit": one["edit"]})).deleted_count:
                    return False  # it was changed, and is the first one of the next round
                self.deleted += int(one["count"])
                await columns.delete_one({"_id": {**one["_id"], "id": one["columns"]}})
            if had_pending:
                return True
            await self._pause(0.0)
        return False

    async def _delete_range(self, name: str, query: Filter, count: str | None, *, counts: bool = True) -> None:
        """Delete documents lowest key first; `count` is the field with how many readings each of them is."""
        collection = self._collection(name)
        low, high = query["_id"]["$gte"], query["_id"]["$lt"]
        while True:
            started = time.monotonic()
            with translating_errors():
                try:
                    step, is_last = await self._step(collection, query, low, high)
                    readings = await self._count(collection, step, count) if count else 0
                    documents = int((await collection.delete_many(step)).deleted_count)
                except OperationFailure as error:
                    if error.code not in MOVED:
                        raise
                    continue
            if counts:
                self.deleted += readings if count else documents
            if is_last:
                return
            low = step["_id"]["$lte"]
            if self._progress is not None:
                self._progress(self.deleted)
            await self._pause(time.monotonic() - started)

    @staticmethod
    async def _step(collection: Any, query: Filter, low: Key, high: Key) -> tuple[Filter, bool]:
        rest = {**query, "_id": {"$gte": low, "$lt": high}}
        last = collection.find(rest, {"_id": 1}).sort("_id", 1).skip(DOCUMENTS_PER_DELETE - 1).limit(1)
        ends = [found["_id"] async for found in last]
        return ({**query, "_id": {"$gte": low, "$lte": ends[0]}}, False) if ends else (rest, True)

    async def _pause(self, seconds: float) -> None:
        if self._renew is not None and time.monotonic() - self._renewed_at > self._renew_every_s:
            await self._renew()
            self._renewed_at = time.monotonic()
        await asyncio.sleep(seconds)

    async def _collections_of_documents(self) -> AsyncIterator[str]:
        """Yield `readings`, and when that is done the sealed collections that there are then."""
        yield READINGS
        with translating_errors():
            state = await read_state(self._collection(BLOCKS))
        for number in state.waiting:
            yield sealed_name(number)

    @staticmethod
    async def _count(collection: Any, query: Filter, field: str) -> int:
        group = {"$group": {"_id": None, "readings": {"$sum": field}}}
        found = [one async for one in collection.aggregate([{"$match": query}, group])]
        return int(found[0]["readings"]) if found else 0

    def _collection(self, name: str) -> Any:
        return self._database.get_collection(
            name, codec_options=AS_MILLISECONDS, write_concern=SAFE, read_concern=ReadConcern("majority")
        )

    async def count(self, owner: str) -> int:
        """Return the number of an owner's readings; those that are just moving may count twice."""
        bounds, counted = of_owner(owner), 0
        async for name in self._collections_of_documents():
            counted += await self._count_documents(name, bounds)
        with translating_errors():
            counted += await self._count(self._collection(PIECES), bounds, "$count")
            live = {**bounds, "pending": {"$exists": False}}
            return counted + await self._count(self._collection(BLOCKS), live, "$count")

    async def _count_documents(self, name: str, bounds: Filter) -> int:
        """Return the number of documents in a key range, counted in steps so that no call takes long."""
        low, high, counted, after = bounds["_id"]["$gte"], bounds["_id"]["$lt"], 0, "$gte"
        collection = self._collection(name)
        while True:
            query = {"_id": {after: low, "$lt": high}}
            with translating_errors():
                last = collection.find(query, {"_id": 1}).sort("_id", 1).skip(READINGS_PER_COUNT - 1).limit(1)
                ends = [found["_id"] async for found in last]
                if not ends:
                    return counted + int(await collection.count_documents(query))
            counted, low, after = counted + READINGS_PER_COUNT, ends[0], "$gt"

    async def rebuild_series(self, owner: str) -> None:
        """Write the documents of all series of which an owner has readings."""
        async for name in self._collections_of_documents():
            await self._rebuild_series(name, owner)
        for name in (PIECES, BLOCKS):
            await self._rebuild_series(name, owner)

    async def _rebuild_series(self, name: str, owner: str) -> None:
        bounds, series = of_owner(owner), self._collection(SERIES)
        with translating_errors():
            while found := await self._collection(name).find_one(bounds, {"_id": 1}, sort=[("_id", 1)]):
                names = {part: found["_id"][part] for part in ("owner", "device", "sensorType")}
                change = [{"$set": {"firstSeenAt": {"$ifNull": ["$firstSeenAt", "$$NOW"]}}}]
                await series.update_one({"_id": names}, change, upsert=True)
                bounds = {"_id": {"$gt": {**names, "ts": MaxKey()}, "$lt": bounds["_id"]["$lt"]}}


def _of_series(series: Key) -> Filter:
    """Match the pieces and blocks of a series."""
    return {"_id": {"$gte": series, "$lt": {**series, "ts": MaxKey()}}}
