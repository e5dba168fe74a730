"""MongoDB filters on the keys of `readings` and `series`: ranges over the whole key, so that they use its index.

A filter on a part of the key alone would scan the collection.
"""

from typing import Any

from bson import MaxKey, MinKey
from bson.datetime_ms import DatetimeMS

from readings.keys import Key

Filter = dict[str, Any]


def in_time_range(series: Key, from_ms: int | None = None, to_ms: int | None = None) -> Filter:
    """Match the readings of a series from `from_ms` (included) to `to_ms` (excluded); None leaves an end open."""
    first = MinKey() if from_ms is None else DatetimeMS(from_ms)
    end = MaxKey() if to_ms is None else DatetimeMS(to_ms)
    return {"_id": {"$gte": {**series, "ts": first}, "$lt": {**series, "ts": end}}}


def of_device(owner: str, device: str) -> Filter:
    """Match all documents of a device, in `readings` and in `series`."""
    names = {"owner": owner, "device": device}
    return {"_id": {"$gte": names, "$lt": {**names, "sensorType": MaxKey()}}}


def of_owner(owner: str) -> Filter:
    """Match all documents of an owner, in `readings` and in `series`."""
    return {"_id": {"$gte": {"owner": owner}, "$lt": {"owner": owner, "device": MaxKey()}}}
