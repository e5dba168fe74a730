"""FILE → ROWS: a CSV of any size, row by row, with the columns that a replay reads. Raises ReplayError."""

import csv
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TextIO

from readings.csv_row import CSV_END, is_export_header
from readings.reading import ATTRIBUTES
from simulator.errors import ReplayError
from simulator.replay.value_types import ValueType

# A raw cell of the file, quotes included.
_CELL = re.compile(r'((?:"(?:[^"]|"")*"|[^,"\r\n])*)(?:,|\r|\n|$)')


@dataclass(frozen=True, slots=True)
class Replay:
    """A CSV file, the names of its columns, and how its values are read.

    A column of None is the export's own if the file is an export (by its header); otherwise times are in `timestamp`,
    values in `value`, and nothing else is read. A column of "" is not read. `attribute_columns` are those of optional
    fields, by field. `sensor_type` applies to all rows, in place of a column and of the device's own type. Rows whose
    value is empty or in `missing` are skipped.
    """

    path: Path
    time_column: str | None = None
    value_column: str | None = None
    sensor_type_column: str | None = None
    seq_column: str | None = None
    device_column: str | None = None
    attribute_columns: Mapping[str, str] = dataclass_field(default_factory=dict)
    sensor_type: str | None = None
    value_type: ValueType = "auto"
    missing: tuple[str, ...] = ()

    def error_at(self, line: int, column: str, reason: str) -> ReplayError:
        """Return the error for a cell; without a column, for its line."""
        where = f", column {column!r}" if column else ""
        return ReplayError(f"{self.path}: line {line}{where}: {reason}")


@dataclass(frozen=True, slots=True)
class Columns:
    """The index of each field in a row, by its name in an export, and its column name in the file."""

    exported: bool
    indexes: dict[str, int]
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class FileRow:
    """The cells of one row by field, stripped of surrounding spaces; `texts` are the fields that were quoted."""

    line: int
    cells: dict[str, str]
    texts: frozenset[str]


_OPTIONS = {
    "ts": "--time-column",
    "value": "--value-column",
    "sensorType": "--sensor-type-column",
    "seq": "--seq-column",
    "device": "--device-column",
    **{name: f"--{name}-column" for name in ATTRIBUTES},
}
_DEFAULT_COLUMNS = {"ts": "timestamp", "value": "value"}


def find_columns(replay: Replay, header: list[str], line: int = 1) -> Columns:
    """Find the columns; ReplayError names a missing one, and the option that selects another."""
    names = [name.strip() for name in header]
    exported = is_export_header(names)
    requested = {
        "ts": replay.time_column,
        "value": replay.value_column,
        "sensorType": replay.sensor_type_column if replay.sensor_type is None else "",
        "seq": replay.seq_column,
        "device": replay.device_column,
        **{name: replay.attribute_columns.get(name) for name in ATTRIBUTES},
    }
    defaults = {name: name for name in names} if exported else _DEFAULT_COLUMNS
    found = {}
    for field, column in requested.items():
        name = column if column is not None else defaults.get(field, "")
        if name and name not in names:
            available = f"the file has {', '.join(names) or 'none'}"
            raise replay.error_at(line, name, f"there is no such column; {available}; {_OPTIONS[field]} names another")
        if name:
            found[field] = name
    for field in _DEFAULT_COLUMNS:
        if field not in found:
            raise replay.error_at(line, "", f"{_OPTIONS[field]} must name a column")
    if exported and "device" in found:
        found["receivedAt"] = "receivedAt"
    return Columns(exported, {field: names.index(name) for field, name in found.items()}, found)


def file_rows(replay: Replay) -> Generator[tuple[Columns, FileRow], None, None]:
    """Yield the rows of the file, read in constant memory; blank rows are skipped."""
    line = 1
    try:
        with replay.path.open(encoding="utf-8-sig", newline="") as file:
            lines = _RecordLines(file)
            rows = csv.reader(lines, strict=True)
            columns = find_columns(replay, next(rows, []))
            lines.take_text()
            count = 0
            for row in rows:
                line = rows.line_num
                raw = lines.take_text()
                if not any(row):
                    continue
                if columns.exported and is_export_header(row):  # of an appended export, maybe of another version
                    columns, count = find_columns(replay, row, line), 0
                    continue
                if columns.exported and _is_end(replay, line, row, count):
                    count = 0
                    continue
                count += 1
                yield columns, _file_row(replay, columns, line, row, raw)
    except OSError as error:
        raise ReplayError(f"{replay.path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ReplayError(f"{replay.path}: after line {line}: the file is not UTF-8") from error
    except csv.Error as error:
        raise ReplayError(f"{replay.path}: after line {line}: {error}") from error


class _RecordLines:
    """The lines of a file; keeps the raw text of the record being read."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self._record.append(line)
        return line

    def take_text(self) -> str:
        """Return the raw text read since the last call."""
        text = "".join(self._record)
        self._record.clear()
        return text


def _is_end(replay: Replay, line: int, row: list[str], count: int) -> bool:
    """Return whether a row of an export is its end line; ReplayError if it gives another number of readings."""
    if len(row) != 1 or not row[0].startswith(CSV_END):
        return False
    if row[0] != f"{CSV_END}{count}":
        raise replay.error_at(line, "", f"the export ends with {row[0]!r}, but {count} readings precede it")
    return True


def _file_row(replay: Replay, columns: Columns, line: int, row: list[str], raw: str) -> FileRow:
    try:
        if columns.exported:  # its texts are kept as stored, with surrounding spaces
            quoted = [cell.startswith('"') for cell in _CELL.findall(raw)]
            cells = {field: row[index] for field, index in columns.indexes.items()}
            return FileRow(line, cells, frozenset(field for field, index in columns.indexes.items() if quoted[index]))
        return FileRow(line, {field: row[index].strip() for field, index in columns.indexes.items()}, frozenset())
    except IndexError:
        missing = next(field for field, index in columns.indexes.items() if index >= len(row))
        raise replay.error_at(line, columns.names[missing], f"the row has only {len(row)} fields") from None
