"""Which of some readings of a series are stored, wherever they are now."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

from readings.keys import Key, Position
from storage.codec.columns import Columns
from storage.places.names import END
from storage.places.reading import FIRST_READINGS, Places
from storage.places.window import Window, position_at, position_index

# Readings looked at together where those asked for lie far apart: only the first one matters then.
_FEW_READINGS = 64

Query = Callable[[], AbstractAsyncContextManager[None]]
"""Surrounds each question to the database."""


async def stored_positions(
    places: Places, series: Key, positions: list[Position], query: Query
) -> AsyncGenerator[list[Position]]:
    """Yield those of the positions, which are in order, at which readings are stored; the driver's errors, BlockError.

    Goes through the series from the first position on, and from each answer on to the next position after it.
    """
    at, size = 0, FIRST_READINGS
    while at < len(positions):
        async with query():
            columns, has_more, _ = await places.batch(Window(series, positions[at], END), None, size)
        if columns is None:
            return
        last = position_at(columns, -1)
        end = at
        while end < len(positions) and positions[end] <= last:
            end += 1
        yield [one for one in positions[at:end] if _has(columns, one)]
        size = FIRST_READINGS if end - at > 1 else _FEW_READINGS
        at = end
        if not has_more:
            return


def _has(columns: Columns, position: Position) -> bool:
    index = position_index(columns, position)
    return index < len(columns) and position_at(columns, index) == position
