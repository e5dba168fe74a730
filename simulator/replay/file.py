"""A file of recorded readings, and what the command line says about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

from simulator.errors import ReplayError
from simulator.replay.times import TimeOptions
from simulator.replay.value_types import ValueType


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How a table is written; what is None is found in the file. A `delimiter` of a space is any run of blanks."""

    encoding: str = "utf-8"
    delimiter: str | None = None
    decimal: str | None = None
    skip_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """A file, the names of its columns, and how its cells are read.

    A column of None is the export's own if the file is an export (by its header); otherwise it is not read, but times
    and values are looked for. A column of "" is not read. Several `time_columns` are one time together. Each of several
    `value_columns` is a sensor type of its own, of the column's name, or as `NAME=TYPE` says.

    `attribute_columns` are those of optional fields, by field. `sensor_type` and `device` apply to all rows, in place
    of a column and, for simulated devices, of the device's own type. `units` are by sensor type, the one of all under
    "". Values that are empty or in `missing` are skipped.
    """

    path: Path
    time_columns: tuple[str, ...] = ()
    value_columns: tuple[str, ...] = ()
    sensor_type_column: str | None = None
    seq_column: str | None = None
    device_column: str | None = None
    attribute_columns: Mapping[str, str] = dataclass_field(default_factory=dict)
    sensor_type: str | None = None
    device: str | None = None
    value_type: ValueType = "auto"
    missing: tuple[str, ...] = ()
    units: Mapping[str, str] = dataclass_field(default_factory=dict)
    text: TextOptions = TextOptions()
    times: TimeOptions = TimeOptions()

    def error(self, reason: str) -> ReplayError:
        """Return the error for the whole file."""
        return ReplayError(f"{self.path}: {reason}", reason=reason)

    def error_at(self, line: int, column: str, reason: str) -> ReplayError:
        """Return the error for a cell; without a column, for its line."""
        where = f", column {column!r}" if column else ""
        return ReplayError(f"{self.path}: line {line}{where}: {reason}", line=line, column=column, reason=reason)
