"""The head of a block: its bounds, sums and newest reading, in a document of its own.

`_id` is that of a reading, with the lower bound's ts and seq, and never changes; `until` is the upper bound, which
belongs to the next block. Wide buckets and the newest reading need heads only, never the columns.
"""

from dataclasses import dataclass
from typing import Any

import bson
import numpy as np
from bson import Int64
from bson.datetime_ms import DatetimeMS

from readings.document import AS_MILLISECONDS, date_ms, position_in, series_bytes
from readings.keys import Key, Position, reading_key
from storage.codec.columns import Columns, Kind
from storage.codec.packed import BlockError, Integers
from storage.codec.sections import VERSION
from storage.codec.sums import Sums, merge, number_at, sums_from, sums_of, text_at
from storage.codec.to_documents import documents_of

HOUR_MS = 3_600_000
# A text that is not UTF-8 must not hide the block that it is in.
_AS_MILLISECONDS = AS_MILLISECONDS.with_options(unicode_decode_error_handler="replace")
# Hours with fewer readings have no sums of their own: their columns are opened.
HOUR_READINGS = 64


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a block. Bounds are positions in its series, `start` included and `until` not.

    `hours` has sums by the hour's start, in milliseconds since 1970. `first` is ts, seq and value of the first reading,
    `last` all fields of the newest one but its series.
    """

    key: Key
    until: Position
    sums: Sums
    hours: dict[int, Sums]
    first: dict[str, Any]
    last: dict[str, Any]

    @property
    def start(self) -> Position:
        """The lower bound."""
        return position_in(self.key)

    @property
    def series(self) -> bytes:
        """The series' bytes, as `decode` takes them."""
        return series_bytes(bson.encode({"_id": self.key, "value": None}))

    def document(self) -> dict[str, Any]:
        """Return the head as it is stored."""
        return {
            "_id": self.key,
            "until": _named(self.until),
            "version": VERSION,
            **self.sums.document(),
            "first": self.first,
            "last": self.last,
            "hours": [{"ts": DatetimeMS(ts_ms), **sums.document()} for ts_ms, sums in self.hours.items()],
        }


def head_of(columns: Columns, start: Position, until: Position) -> Head:
    """Return the head of a block of these ordered columns, with the bounds that it has among its neighbours.

    ValueError when there are no readings, or readings outside of the bounds.
    """
    if not len(columns):
        raise ValueError("a block has at least one reading")
    end = len(columns) - 1
    positions = [(int(columns.ts[at]), int(columns.seq[at])) for at in (0, end)]
    if not start <= positions[0] or not positions[1] < until:
        raise ValueError("there are readings outside of the block's bounds")
    starts, hours = _parts(columns.ts)
    sums = sums_of(columns, starts)
    last = _reading(columns, end)
    key = last.pop("_id")
    return Head(
        reading_key(key["owner"], key["device"], key["sensorType"], *start),
        until,
        merge(sums),
        {hour: part for hour, part in zip(hours, sums, strict=True) if hour is not None},
        _named(positions[0]) | {"value": _value(columns, 0)},
        _named(positions[1]) | last,
    )


def head_from(document: dict[str, Any]) -> Head:
    """Return the head that `Head.document` stored, decoded with AS_MILLISECONDS; BlockError for another document."""
    if (version := document.get("version")) != VERSION:
        raise BlockError(f"the head has version {version!r}, and {VERSION} is the highest that is known")
    try:
        key, until, hours = document["_id"], document["until"], document["hours"]
        first, last = document["first"], document["last"]
        positions = [position_in(each) for each in (key, first, last, until)]
        by_hour = {date_ms(hour["ts"]): sums_from(hour) for hour in hours}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BlockError(f"not the head of a block: {error!r}") from error
    if not positions[0] <= positions[1] <= positions[2] < positions[3]:
        raise BlockError("the bounds, the first and the last reading are not in order")
    return Head(key, positions[3], sums_from(document), by_hour, first, last)


def _reading(columns: Columns, at: int) -> dict[str, Any]:
    (document,) = documents_of(columns.take(slice(at, at + 1)))
    return bson.decode(document, _AS_MILLISECONDS)


def _named(position: Position) -> dict[str, Any]:
    return {"ts": DatetimeMS(position[0]), "seq": Int64(position[1])}


def _value(columns: Columns, at: int) -> Any:
    match columns.kinds[at]:
        case Kind.OTHER:
            return _reading(columns, at).get("value")
        case Kind.TEXT:
            return text_at(columns, at)
        case Kind.BOOLEAN:
            return bool(columns.values[at])
    return number_at(columns, at)


def _parts(ts: Integers) -> tuple[Integers, list[int | None]]:
    """Return where hours with HOUR_READINGS or more, and what is between them, start; and those hours' times."""
    hours = ts // HOUR_MS
    if hours[0] == hours[-1]:
        return np.zeros(1, np.int64), [int(hours[0]) * HOUR_MS if len(ts) >= HOUR_READINGS else None]
    starts = np.flatnonzero(np.concatenate(([True], hours[1:] != hours[:-1])))
    is_full = np.diff(starts, append=len(ts)) >= HOUR_READINGS
    is_kept = is_full.copy()
    is_kept[1:] |= is_full[:-1]
    is_kept[0] = True
    starts, is_full = starts[is_kept], is_full[is_kept]
    times = [int(hour) * HOUR_MS if full else None for hour, full in zip(hours[starts].tolist(), is_full, strict=True)]
    return starts, times
