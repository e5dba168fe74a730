"""A row of a file as readings."""

import msgspec

from simulator.errors import ReplayError
from simulator.reading import DeviceReading


class ReadingRow(msgspec.Struct, frozen=True):
    """A reading, the device that its row names (empty if it names none), and its line, or its row in Parquet."""

    device: str
    reading: DeviceReading
    line: int = 0


class RowResult(msgspec.Struct, frozen=True):
    """The readings of one row, and why it, or some of its cells, are none. Neither: the row has no value."""

    line: int
    readings: list[ReadingRow]
    refusals: list[ReplayError]
