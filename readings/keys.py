"""The keys of stored readings: the one place that builds `_id` and the ranges over it.

`_id = {owner, device, sensorType, ts: Date, seq: int64}`, in that order. Another order of fields, another type of
`ts`, or a filter on a part of the key alone is another key or a scan of everything, so nobody builds one elsewhere.
"""

from typing import Any

from bson import Int64, MaxKey, MinKey
from bson.datetime_ms import DatetimeMS

Key = dict[str, Any]

# The index of `series` that finds the devices of one sensorType; `readings` has none but its key.
SERIES_BY_SENSOR_TYPE = [("_id.owner", 1), ("_id.sensorType", 1), ("_id.device", 1)]


def series_key(owner: str, device: str, sensor_type: str) -> Key:
    """Return the key of a series; a reading's key begins with the same three fields."""
    return {"owner": owner, "device": device, "sensorType": sensor_type}


def reading_key(owner: str, device: str, sensor_type: str, ts_ms: int, seq: int) -> Key:
    """Return the `_id` of a reading; `ts_ms` is milliseconds since 1970."""
    return {**series_key(owner, device, sensor_type), "ts": DatetimeMS(ts_ms), "seq": Int64(seq)}


def between(series: Key, from_ms: int | None = None, to_ms: int | None = None) -> dict[str, Any]:
    """Filter the readings of a series from `from_ms` (included) to `to_ms` (not); None leaves an end open."""
    first = MinKey() if from_ms is None else DatetimeMS(from_ms)
    end = MaxKey() if to_ms is None else DatetimeMS(to_ms)
    return {"_id": {"$gte": {**series, "ts": first}, "$lt": {**series, "ts": end}}}


def series_of(owner: str, device: str) -> dict[str, Any]:
    """Filter everything of a device, in `readings` and in `series`."""
    names = {"owner": owner, "device": device}
    return {"_id": {"$gte": names, "$lt": {**names, "sensorType": MaxKey()}}}


def devices_of(owner: str) -> dict[str, Any]:
    """Filter everything of an owner, in `readings` and in `series`."""
    return {"_id": {"$gte": {"owner": owner}, "$lt": {"owner": owner, "device": MaxKey()}}}
