"""Positions (ts, seq) in ordered columns, and how columns are cut."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from readings.keys import Position
from storage.codec.columns import Columns


def position_at(columns: Columns, at: int) -> Position:
    """Return the position of one reading."""
    return int(columns.ts[at]), int(columns.seq[at])


def count_before(columns: Columns, position: Position) -> int:
    """Return how many readings of ordered columns are before a position."""
    ts, seq = position
    low, high = (int(np.searchsorted(columns.ts, ts, side)) for side in ("left", "right"))
    return low + int(np.searchsorted(columns.seq[low:high], seq))


def count_until(columns: Columns, position: Position) -> int:
    """Return how many readings of ordered columns are before a position or at it."""
    at = count_before(columns, position)
    return at + int(at < len(columns) and position_at(columns, at) == position)


def cut(columns: Columns, most: int) -> Iterator[Columns]:
    """Yield the readings in as few parts of nearly the same size as have at most `most` each."""
    if len(columns) <= most:
        yield columns
        return
    bounds = np.linspace(0, len(columns), -(-len(columns) // most) + 1).astype(np.int64).tolist()
    for start, end in pairwise(bounds):
        yield columns.take(slice(start, end))
