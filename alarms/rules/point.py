"""A stored reading as rules see it."""

from typing import NamedTuple

from readings.keys import Position
from readings.reading import Value


class Point(NamedTuple):
    """A reading of one series: time in ms since 1970, number, value."""

    ts_ms: int
    seq: int
    value: Value

    @property
    def position(self) -> Position:
        """Its place in the series."""
        return self.ts_ms, self.seq

    @property
    def number(self) -> float | None:
        """The value if it is a number; booleans and texts are none."""
        return None if isinstance(self.value, bool | str) else self.value
