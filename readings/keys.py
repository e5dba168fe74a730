"""The keys of stored readings: the one place that builds `_id`.

`_id = {owner, device, sensorType, ts: Date, seq: int64}`, in that order. Another order of fields or another type of
`ts` is another key, so no other module builds one.
"""

from typing import Any

from bson import Int64
from bson.datetime_ms import DatetimeMS

Key = dict[str, Any]

Position = tuple[int, int]
"""(ts, seq) of a reading within its series; ts in milliseconds since 1970."""


def series_key(owner: str, device: str, sensor_type: str) -> Key:
    """Return the key of a series; a reading's key begins with the same three fields."""
    return {"owner": owner, "device": device, "sensorType": sensor_type}


def reading_key(owner: str, device: str, sensor_type: str, ts_ms: int, seq: int) -> Key:
    """Return the `_id` of a reading; `ts_ms` is milliseconds since 1970."""
    return {**series_key(owner, device, sensor_type), "ts": DatetimeMS(ts_ms), "seq": Int64(seq)}
