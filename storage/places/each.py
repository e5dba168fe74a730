"""Short questions about many series of one collection, in one command instead of many."""

from typing import Any

from readings.keys import Key
from storage.places.moving import until_unmoved

Document = dict[str, Any]
Pipeline = list[dict[str, Any]]
Names = tuple[str, str]
"""Device and sensorType of a series."""


def names(key: Key) -> Names:
    """Return the device and sensorType of any key that begins with a series."""
    return key["device"], key["sensorType"]


async def find_each(collection: Any, parts: list[Pipeline], session: Any) -> list[Document]:
    """Return what short pipelines on one collection find, one document each; the driver's errors."""
    if not parts:
        return []
    first, *others = parts
    pipeline = [*first, *({"$unionWith": {"coll": collection.name, "pipeline": other}} for other in others)]

    async def ask() -> list[Document]:
        # One more than possible, to avoid a second round trip.
        cursor = collection.aggregate(pipeline, batchSize=len(parts) + 1, session=session)
        return [document async for document in cursor]

    return await until_unmoved(ask)
