"""How ordered columns are cut."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from readings.keys import Position
from storage.codec.columns import Columns
from storage.places.window import position_at, position_index


def count_until(columns: Columns, position: Position) -> int:
    """Return how many readings of ordered columns are before a position or at it."""
    at = position_index(columns, position)
    return at + int(at < len(columns) and position_at(columns, at) == position)


def cut(columns: Columns, most: int) -> Iterator[Columns]:
    """Yield the readings in as few parts of nearly the same size as have at most `most` each."""
    if len(columns) <= most:
        yield columns
        return
    bounds = np.linspace(0, len(columns), -(-len(columns) // most) + 1).astype(np.int64).tolist()
    for start, end in pairwise(bounds):
        yield columns.take(slice(start, end))
