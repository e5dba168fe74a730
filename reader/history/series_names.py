"""The names of an owner's series, from the collection `series`: listed in key order, by device or by sensorType.

`within`: only the series of these devices, for tokens that are limited to them.
"""

from collections.abc import Collection
from typing import Any

from pymongo.errors import OperationFailure

from readings.collections import SERIES_BY_SENSOR_TYPE
from readings.filters import Filter, of_device, of_owner
from readings.keys import Key, series_key

Series = tuple[str, str]

# Documents fetched and encoded at once: some 5 ms, in which nothing else runs.
BATCH_DOCUMENTS = 1000
# BadValue and NoQueryExecutionPlans: mongod's errors when the index named by a hint does not exist.
NO_SUCH_INDEX = (2, 291)


class SeriesNames:
    """Queries one collection; the methods raise what the driver raises."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    async def page(
        self,
        owner: str,
        device: str | None,
        sensor_type: str | None,
        past: Series | None,
        limit: int,
        within: Collection[str] | None = None,
    ) -> list[Series]:
        """Return the next `limit` series of an owner, or of one of the owner's devices, in key order."""
        if device is not None:
            within, past = (device,), past if past is not None and past[0] == device else None
        if within is not None:
            return await self._find(_of_devices(owner, within, sensor_type, past), limit)
        if sensor_type is not None:
            return await self._of_a_type(owner, sensor_type, past, limit)
        return await self._find(_behind(of_owner(owner), owner, past), limit)

    async def documents(self, owner: str, limit: int, within: Collection[str] | None) -> list[bytes]:
        """Return the documents of at most `limit` series of an owner in key order, as raw BSON batches."""
        query = of_owner(owner) if within is None else _of_devices(owner, within, None, None)
        cursor = self._collection.find_raw_batches(query, {"_id": 1}, limit=limit, batch_size=BATCH_DOCUMENTS)
        return [bytes(batch) async for batch in cursor.sort("_id", 1)]

    async def _of_a_type(self, owner: str, sensor_type: str, past: Series | None, limit: int) -> list[Series]:
        """Return the next series of one sensorType from its index, or by a slower scan if there is no index.

        The persister creates the index; it may be older than this reader or still building it.
        """
        device: dict[str, Any] = {"$gte": ""}
        if past is not None:
            device = {"$gt" if past[1] >= sensor_type else "$gte": past[0]}
        query = {"_id.owner": owner, "_id.sensorType": sensor_type, "_id.device": device}
        try:
            return await self._find(query, limit, by=SERIES_BY_SENSOR_TYPE)
        except OperationFailure as error:
            if error.code not in NO_SUCH_INDEX:
                raise
        # Scans all series of the owner, some 2 us each; only matches are transferred.
        return await self._find(_behind(of_owner(owner), owner, past) | {"_id.sensorType": sensor_type}, limit)

    async def _find(self, query: Filter, limit: int, *, by: list[tuple[str, int]] | None = None) -> list[Series]:
        cursor = self._collection.find(query, {"_id": 1}, limit=limit, batch_size=limit)
        cursor = cursor.sort("_id", 1) if by is None else cursor.sort(by).hint(by)
        keys: list[Key] = [document["_id"] async for document in cursor]
        return [(key["device"], key["sensorType"]) for key in keys]


def _of_devices(owner: str, devices: Collection[str], sensor_type: str | None, past: Series | None) -> Filter:
    """Match the series of some devices: a range of the key for each, or a key for each with a sensorType."""
    if sensor_type is not None:
        keys = [series_key(owner, device, sensor_type) for device in devices]
        return _behind({"_id": {"$in": keys}}, owner, past)
    ranges = [_behind(of_device(owner, device), owner, past) for device in devices]
    return ranges[0] if len(ranges) == 1 else {"$or": ranges}


def _behind(query: Filter, owner: str, past: Series | None) -> Filter:
    """Return a filter on the key, limited to what comes after a series."""
    return query if past is None else {"_id": query["_id"] | {"$gt": series_key(owner, *past)}}
