"""A part of one series, as it is asked for in every place."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from readings.keys import Key, Position, reading_key
from storage.codec.columns import Columns
from storage.places.names import BEGINNING, END


@dataclass(frozen=True, slots=True)
class Window:
    """The readings of a series from `start` (included) to `end` (excluded), read from one of its ends."""

    series: Key
    start: Position = BEGINNING
    end: Position = END
    descending: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether no reading can lie in it."""
        return self.start >= self.end

    def key(self, position: Position) -> Key:
        """Return the `_id` of a reading at a position."""
        return reading_key(self.series["owner"], self.series["device"], self.series["sensorType"], *position)

    def filter(self) -> dict[str, Any]:
        """Return the filter of its documents in `readings` or a sealed collection."""
        return {"_id": {"$gte": self.key(self.start), "$lt": self.key(self.end)}}

    def behind(self, position: Position) -> "Window":
        """Return what is left of it after a reading that was read."""
        if self.descending:
            return replace(self, end=min(self.end, position))
        return replace(self, start=max(self.start, after(position)))

    def until(self, position: Position) -> "Window":
        """Return the part of it up to a reading, in the direction of reading, that reading included."""
        if self.descending:
            return replace(self, start=max(self.start, position))
        return replace(self, end=min(self.end, after(position)))

    def cut(self, columns: Columns) -> Columns:
        """Return those of the readings, which are in order, that lie in it."""
        begin, end = position_index(columns, self.start), position_index(columns, self.end)
        return columns if end - begin == len(columns) else columns.take(slice(begin, end))


def after(position: Position) -> Position:
    """Return the lowest position above another one."""
    ts, seq = position
    return (ts, seq + 1) if seq < END[1] else (ts + 1, BEGINNING[1])


def position_at(columns: Columns, at: int) -> Position:
    """Return the position of one of the readings."""
    return int(columns.ts[at]), int(columns.seq[at])


def position_index(columns: Columns, position: Position) -> int:
    """Return how many of the readings, which are in order, lie before a position."""
    ts, seq = position
    begin = int(np.searchsorted(columns.ts, ts))
    if begin == len(columns) or columns.ts[begin] != ts:
        return begin
    end = int(np.searchsorted(columns.ts, ts, "right"))
    return begin + int(np.searchsorted(columns.seq[begin:end], seq))
