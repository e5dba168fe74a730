"""Statements with a part for each of some values, in few shapes."""

from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


def padded(values: Sequence[Value]) -> list[Value]:
    """Return the values, and the last of them again and again up to the next power of two.

    With another number of parts a statement is another one, and SQLAlchemy keeps the last 500 as it compiled them
    (create_engine, query_cache_size). Those of a query with 1, 2, … 200 parts took 131 MB; with 1, 2, 4, … 256, 3.4 MB.
    """
    if not values:
        return []
    parts = 1 << (len(values) - 1).bit_length()
    return [*values, *[values[-1]] * (parts - len(values))]
