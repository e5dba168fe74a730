"""FILE → ROWS: a CSV of any size, row by row, with the columns that a replay reads. ReplayError names what is wrong."""

import csv
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from readings.csv_row import CSV_COLUMNS, CSV_END
from readings.reading import ATTRIBUTES
from simulator.errors import ReplayError
from simulator.replay.value_types import ValueType

# A cell as it stands in the file, quotes included.
_CELL = re.compile(r'((?:"(?:[^"]|"")*"|[^,"\r\n])*)(?:,|\r|\n|$)')


@dataclass(frozen=True, slots=True)
class Replay:
    """A CSV file, the names of its columns, and how its values are read.

    A column of None is the export's own where the file is an export (its header says so); otherwise times are in
    `timestamp`, values in `value`, and nothing else is read. A column of "" is not read. `sensor_type` is that of all
    rows, in place of a column and of the device's own. A row whose value is empty or one of `missing` is left out.
    """

    path: Path
    time_column: str | None = None
    value_column: str | None = None
    sensor_type_column: str | None = None
    unit_column: str | None = None
    location_column: str | None = None
    tags_column: str | None = None
    seq_column: str | None = None
    device_column: str | None = None
    sensor_type: str | None = None
    value_type: ValueType = "auto"
    missing: tuple[str, ...] = ()

    def bad(self, line: int, column: str, why: str) -> ReplayError:
        """Return the error of a cell; without a column, of its line."""
        where = f", column {column!r}" if column else ""
        return ReplayError(f"{self.path}: line {line}{where}: {why}")


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row each field stands, by its name in an export, and what the file calls it."""

    exported: bool
    places: dict[str, int]
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class FileRow:
    """The cells of one row, by field, without spaces around them; `texts` are those that stand in quotes."""

    line: int
    cells: dict[str, str]
    texts: frozenset[str]


_OPTIONS = {
    "ts": "--time-column",
    "value": "--value-column",
    "sensorType": "--sensor-type-column",
    "unit": "--unit-column",
    "location": "--location-column",
    "tags": "--tags-column",
    "seq": "--seq-column",
    "device": "--device-column",
}
_USUAL = {"ts": "timestamp", "value": "value"}


def columns_of(replay: Replay, header: list[str]) -> Columns:
    """Find the columns; ReplayError names one that is not there, and the option that names another."""
    names = [name.strip() for name in header]
    exported = tuple(names) == CSV_COLUMNS
    asked = {
        "ts": replay.time_column,
        "value": replay.value_column,
        "sensorType": replay.sensor_type_column if replay.sensor_type is None else "",
        "unit": replay.unit_column,
        "location": replay.location_column,
        "tags": replay.tags_column,
        "seq": replay.seq_column,
        "device": replay.device_column,
    }
    found = {}
    for field, column in asked.items():
        name = column if column is not None else (field if exported else _USUAL.get(field, ""))
        if name and name not in names:
            there = f"the file has {', '.join(names) or 'none'}"
            raise replay.bad(1, name, f"there is no such column; {there}; {_OPTIONS[field]} names another")
        if name:
            found[field] = name
    for field in _USUAL:
        if field not in found:
            raise replay.bad(1, "", f"{_OPTIONS[field]} must name a column")
    if exported:
        found |= {name: name for name in ATTRIBUTES if name not in asked}
        if "device" in found:
            found["receivedAt"] = "receivedAt"
    return Columns(exported, {field: names.index(name) for field, name in found.items()}, found)


def file_rows(replay: Replay) -> Generator[tuple[Columns, FileRow], None, None]:
    """Yield the rows of the file, which is read in constant memory; blank ones are left out."""
    line = 1
    try:
        with replay.path.open(encoding="utf-8-sig", newline="") as file:
            lines = _Lines(file)
            rows = csv.reader(lines, strict=True)
            columns = columns_of(replay, next(rows, []))
            lines.taken()
            count = 0
            for row in rows:
                line = rows.line_num
                raw = lines.taken()
                if not any(row):
                    continue
                if columns.exported and _is_none(replay, line, row, count):
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


class _Lines:
    """The lines of a file, which also remembers the text of the record that is being read."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._record: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self._record.append(line)
        return line

    def taken(self) -> str:
        """Return the text of the records since the last call."""
        text = "".join(self._record)
        self._record.clear()
        return text


def _is_none(replay: Replay, line: int, row: list[str], count: int) -> bool:
    """Say whether a row of an export is no reading: its last line, which is checked, or the head of another export."""
    if len(row) == 1 and row[0].startswith(CSV_END):
        if row[0] != f"{CSV_END}{count}":
            raise replay.bad(line, "", f"the export ends with {row[0]!r}, but {count} readings stand before it")
        return True
    return tuple(row) == CSV_COLUMNS


def _file_row(replay: Replay, columns: Columns, line: int, row: list[str], raw: str) -> FileRow:
    try:
        if columns.exported:  # its texts are as they were stored, spaces around them too
            quoted = [cell.startswith('"') for cell in _CELL.findall(raw)]
            cells = {field: row[place] for field, place in columns.places.items()}
            return FileRow(line, cells, frozenset(field for field, place in columns.places.items() if quoted[place]))
        return FileRow(line, {field: row[place].strip() for field, place in columns.places.items()}, frozenset())
    except IndexError:
        missing = next(field for field, place in columns.places.items() if place >= len(row))
        raise replay.bad(line, columns.names[missing], f"the row has only {len(row)} fields") from None
