"""MONGODB → READER: every question as a range of the one key, within one owner.

The only file here that asks the driver. Each method takes the owner first, which comes from the token, and builds its
range with readings/keys.py: there is no way to ask past it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from bson import decode_all
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from reader.history.pipelines import kinds_pipeline, newest_pipeline, numbers_pipeline
from reader.history.places import Places
from reader.responses import AS_STORED, Document
from readings.collections import READINGS, SERIES, SERIES_BY_SENSOR_TYPE
from readings.document import position_of
from readings.filters import in_time_range, of_device, of_owner
from readings.keys import Key, Position, reading_key, series_key
from runtime.mongodb import THREADS, mongodb_client

# Documents that are fetched and turned into bytes at once: some 5 ms, in which nobody else is served.
ROWS_AT_ONCE = 1000
# Questions that are with the driver at once, which has some threads; their answers are in memory, a page of 1,000 takes
# some 2 MB. One owner has a share of the places. Who waits for one waits in turn, and its time runs.
ASKED_AT_ONCE = min(16, THREADS)
ASKED_AT_ONCE_BY_ONE = max(1, min(4, ASKED_AT_ONCE // 2))
# Series whose newest reading is asked for in one question, of some 10 ms: each by itself takes the driver ten times as
# long. So many questions one list asks at once: more would only wait for each other.
TOGETHER = 50
NEWEST_AT_ONCE = ASKED_AT_ONCE_BY_ONE
# Lists of more than so many series gather their readings a few lists at a time, for the same reason; the others wait.
SHORT_LIST = 32
LONG_LISTS_AT_ONCE = 8
LONG_LISTS_AT_ONCE_OF_ONE = 2
# Buckets of texts may hold seven of 256 characters each: so many answers of 5,000 of them are in memory together.
ALL_BUCKETS_AT_ONCE = 4
ALL_BUCKETS_AT_ONCE_OF_ONE = 2
# BadValue and NoQueryExecutionPlans: what mongod answers where the index that a question names is not there.
NO_SUCH_INDEX = (2, 291)


class HistoryUnavailable(Exception):
    """MongoDB does not answer, or not in time."""


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of one series: from a time (included) to another (not), None for an open end, and past a position."""

    device: str
    sensor_type: str
    from_ms: int | None = None
    to_ms: int | None = None
    descending: bool = False
    past: Position | None = None

    def query(self, owner: str) -> dict[str, Any]:
        """Return the filter: always with both bounds, and no position widens it."""
        series = series_key(owner, self.device, self.sensor_type)
        bounds = in_time_range(series, self.from_ms, self.to_ms)["_id"]
        if self.past is None:
            return {"_id": bounds}
        ts_ms, at = self.past[0], reading_key(owner, self.device, self.sensor_type, *self.past)
        if self.descending:
            inside = self.to_ms is None or ts_ms < self.to_ms
            return {"_id": {"$gte": bounds["$gte"], "$lt": at if inside else bounds["$lt"]}}
        inside = self.from_ms is None or ts_ms >= self.from_ms
        return {"_id": {"$gt": at, "$lt": bounds["$lt"]} if inside else bounds}


class FromMongoDB:
    """Asks one database; what is safe only: a reading that a failover may still take back is not shown."""

    def __init__(self, client: Any, database: str, *, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._places = Places(ASKED_AT_ONCE, ASKED_AT_ONCE_BY_ONE)
        self._places_of_long_lists = Places(LONG_LISTS_AT_ONCE, LONG_LISTS_AT_ONCE_OF_ONE)
        self._places_of_all_buckets = Places(ALL_BUCKETS_AT_ONCE, ALL_BUCKETS_AT_ONCE_OF_ONE)
        majority = ReadConcern("majority")
        self._readings = client[database].get_collection(READINGS, codec_options=AS_STORED, read_concern=majority)
        self._series = client[database].get_collection(SERIES, codec_options=AS_STORED, read_concern=majority)

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, database: str, *, timeout_s: float) -> AsyncIterator["FromMongoDB"]:
        """Open a client, which connects when it is first used and again after every loss."""
        async with mongodb_client(url, name="tidegate reader", timeout_s=timeout_s) as client:
            yield cls(client, database, timeout_s=timeout_s)

    async def page(self, owner: str, stretch: Range, limit: int) -> list[Document]:
        """Return at most `limit` readings of a stretch, in its order. Every method raises HistoryUnavailable."""
        async with self._asked(owner):
            cursor = self._readings.find_raw_batches(stretch.query(owner), limit=limit, batch_size=limit)
            batches = cursor.sort("_id", -1 if stretch.descending else 1)
            return [document async for batch in batches for document in decode_all(batch, AS_STORED)]

    async def stream(self, owner: str, stretch: Range, limit: int | None = None) -> AsyncGenerator[list[Document]]:
        """Give a stretch of any length, some documents at a time.

        Each part is a question of its own, with its own time limit and past the last one's position: a cursor of
        MongoDB's has one limit for all that it ever gives, and does not outlive a failover or a client that pauses.
        """
        left = limit
        while left is None or left > 0:
            most = ROWS_AT_ONCE if left is None else min(left, ROWS_AT_ONCE)
            part = await self.page(owner, stretch, most)
            if not part:
                return
            found, stretch = len(part), replace(stretch, past=position_of(part[-1]))
            yield part
            if found < most:
                return
            left = None if left is None else left - most

    async def knows(self, owner: str, device: str) -> bool:
        """Say whether anything of a device was ever stored: its series stay when retention has taken its readings."""
        async with self._asked(owner):
            for collection in (self._series, self._readings):  # the first may be behind, by as long as a write
                if await collection.find_one(of_device(owner, device), {"_id": 1}) is not None:
                    return True
        return False

    async def ends(self, owner: str, device: str, sensor_type: str) -> tuple[int, int] | None:
        """Return the times of a series' first and last reading in milliseconds since 1970; None where it has none."""
        first = await self.page(owner, Range(device, sensor_type), 1)
        last = await self.page(owner, Range(device, sensor_type, descending=True), 1)
        return (position_of(first[0])[0], position_of(last[0])[0]) if first and last else None

    async def series(
        self, owner: str, device: str | None, sensor_type: str | None, past: tuple[str, str] | None, limit: int
    ) -> list[tuple[str, str]]:
        """Return the next series of an owner, or of one of the owner's devices, in the order of their keys."""
        async with self._asked(owner):
            if device is None and sensor_type is not None:
                return await self._series_of_a_type(owner, sensor_type, past, limit)
            names = {"owner": owner} if device is None else {"owner": owner, "device": device}
            query = of_owner(owner) if device is None else of_device(owner, device)
            if sensor_type is not None:
                query = {
                    "_id": {"$gte": names | {"sensorType": sensor_type}, "$lte": names | {"sensorType": sensor_type}}
                }
            if past is not None and (device is None or past[0] == device):
                query["_id"] = {**query["_id"], "$gt": series_key(owner, *past)}
            return await self._names(query, limit)

    async def series_documents(self, owner: str, most: int) -> list[bytes]:
        """Return the documents of at most so many series of an owner in the order of their keys, as they came."""
        async with self._asked(owner):
            cursor = self._series.find_raw_batches(of_owner(owner), {"_id": 1}, limit=most, batch_size=ROWS_AT_ONCE)
            return [bytes(batch) async for batch in cursor.sort("_id", 1)]

    async def _series_of_a_type(
        self, owner: str, sensor_type: str, past: tuple[str, str] | None, limit: int
    ) -> list[tuple[str, str]]:
        """Return the next series of one sensorType: out of its index, or where that is not there by a longer way.

        The index comes with the persister, which may be older than this reader, or still be building it.
        """
        device: dict[str, Any] = {"$gte": ""}
        if past is not None:
            device = {"$gt" if past[1] >= sensor_type else "$gte": past[0]}
        query = {"_id.owner": owner, "_id.sensorType": sensor_type, "_id.device": device}
        try:
            return await self._names(query, limit, by=SERIES_BY_SENSOR_TYPE)
        except OperationFailure as error:
            if error.code not in NO_SUCH_INDEX:
                raise
        # Over all series of the owner, some 2 us each; of those that do not fit nothing is sent here.
        within = of_owner(owner)["_id"]
        if past is not None:
            within = {"$gt": series_key(owner, *past), "$lt": within["$lt"]}
        return await self._names({"_id": within, "_id.sensorType": sensor_type}, limit)

    async def _names(
        self, query: dict[str, Any], limit: int, *, by: list[tuple[str, int]] | None = None
    ) -> list[tuple[str, str]]:
        cursor = self._series.find(query, {"_id": 1}, limit=limit, batch_size=limit)
        cursor = cursor.sort("_id", 1) if by is None else cursor.sort(by).hint(by)
        keys: list[Key] = [document["_id"] async for document in cursor]
        return [(key["device"], key["sensorType"]) for key in keys]

    async def newest(
        self, owner: str, series: Sequence[tuple[str, str]], before_ms: int | None = None
    ) -> list[Document | None]:
        """Return the newest reading of each series (before a time), None of one that has none; some 0.2 ms each."""
        found: dict[tuple[str, str], Document] = {}
        parts = iter([series[start : start + TOGETHER] for start in range(0, len(series), TOGETHER)])

        async def ask() -> None:
            for part in parts:
                found.update(await self._newest_together(owner, part, before_ms))

        asking = [asyncio.ensure_future(ask()) for _ in range(min(NEWEST_AT_ONCE, -(-len(series) // TOGETHER)))]
        try:
            await asyncio.gather(*asking)
        finally:
            for one in asking:  # when one of them fails, the others would go on by themselves
                one.cancel()
        return [found.get(one) for one in series]

    async def _newest_together(
        self, owner: str, series: Sequence[tuple[str, str]], before_ms: int | None
    ) -> dict[tuple[str, str], Document]:
        ranges = (Range(*one, to_ms=before_ms, descending=True) for one in series)
        pipeline = newest_pipeline([one.query(owner) for one in ranges], READINGS)
        async with self._asked(owner):
            # One more than there can be, so that no second trip asks for more; raw batches would always take a second.
            cursor = self._readings.aggregate(pipeline, batchSize=len(series) + 1)
            documents = [document async for document in cursor]
        return {(document["_id"]["device"], document["_id"]["sensorType"]): document for document in documents}

    async def series_with_newest(
        self, owner: str, device: str | None, sensor_type: str | None, past: tuple[str, str] | None, limit: int
    ) -> list[tuple[tuple[str, str], Document | None]]:
        """Return what `series` does, and the newest reading of each; a long list waits for its room."""
        found = await self.series(owner, device, sensor_type, past, limit)
        if len(found) <= SHORT_LIST:
            return list(zip(found, await self.newest(owner, found), strict=True))
        found.clear()  # names take memory, too: they are read again
        async with self._places_of_long_lists.one(owner):
            found = await self.series(owner, device, sensor_type, past, limit)
            return list(zip(found, await self.newest(owner, found), strict=True))

    async def newest_until(
        self, owner: str, series: Sequence[tuple[str, str]], until_ms: int
    ) -> list[tuple[Document | None, Document | None]]:
        """Return of each series the newest reading up to a time (included), and the newest one beyond it, if any."""
        if len(series) > SHORT_LIST:
            async with self._places_of_long_lists.one(owner):
                newest = await self.newest(owner, series)
        else:
            newest = await self.newest(owner, series)
        ahead = [number for number, one in enumerate(newest) if one and position_of(one)[0] > until_ms]
        before = await self.newest(owner, [series[number] for number in ahead], before_ms=until_ms + 1)
        found: list[tuple[Document | None, Document | None]] = [(one, None) for one in newest]
        for number, one in zip(ahead, before, strict=True):
            found[number] = one, newest[number]
        return found

    async def buckets(
        self, owner: str, device: str, sensor_type: str, from_ms: int, to_ms: int, every_ms: int
    ) -> list[dict[str, Any]]:
        """Return what the numeric readings of each `every_ms` come to, `_id` the bucket's beginning."""
        async with self._asked(owner):
            pipeline = numbers_pipeline(Range(device, sensor_type, from_ms, to_ms).query(owner), every_ms)
            return [bucket async for bucket in self._readings.aggregate(pipeline)]

    async def buckets_of_all(
        self, owner: str, device: str, sensor_type: str, from_ms: int, to_ms: int, every_ms: int
    ) -> list[dict[str, Any]]:
        """Return what the readings of each `every_ms` come to, whatever their type; see reader/history/pipelines.py."""
        async with self._places_of_all_buckets.one(owner), self._asked(owner):
            pipeline = kinds_pipeline(Range(device, sensor_type, from_ms, to_ms).query(owner), every_ms)
            return [part async for part in self._readings.aggregate(pipeline)]

    @asynccontextmanager
    async def _asked(self, owner: str) -> AsyncIterator[None]:
        """Hold a place at the driver, translate what it raises, and take no longer than a question may.

        The driver has a few threads, and counts its time only from when one of them is free.
        """
        try:
            async with asyncio.timeout(self._timeout_s), self._places.one(owner):
                yield
        except (PyMongoError, TimeoutError) as error:
            raise HistoryUnavailable(f"{type(error).__name__}: {str(error)[:300]}") from error

    async def check(self) -> None:
        """Raise when MongoDB does not answer: for `/readyz`."""
        await self._client.admin.command("ping")
