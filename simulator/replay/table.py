"""FILE → ROWS: a table of any size, row by row in constant memory, with the cells that are read."""

import csv
import re
from collections.abc import Generator, Iterator
from itertools import islice
from typing import TextIO

import msgspec

from readings.csv_row import CSV_END
from simulator.errors import ReplayError
from simulator.replay.detect import not_text
from simulator.replay.file import Replay
from simulator.replay.layout import Layout, export_layout, is_export
from simulator.replay.separators import BLANKS
from simulator.replay.source import open_text, readable

_NONE = frozenset[str]()
# A raw cell of the file, quotes included.
_CELL = re.compile(r'((?:"(?:[^"]|"")*"|[^,"\r\n])*)(?:,|\r|\n|$)')


class TableRow(msgspec.Struct, frozen=True):
    """The cells of one row: its time, its values in the order of the layout's columns, and other fields by name.

    Those of an export are as stored, others are stripped of surrounding spaces; `texts` are the fields that were quoted
    in an export.
    """

    line: int
    layout: Layout
    time: str
    values: tuple[str, ...]
    cells: dict[str, str]
    texts: frozenset[str]


def table_rows(replay: Replay, layout: Layout) -> Generator[TableRow | ReplayError, None, None]:
    """Yield the rows, and errors for those that cannot be read; blank rows are skipped. Raises ReplayError.

    The headers and end lines of exports, of which several may be appended, are no rows.
    """
    line, count, exported = layout.first_line - 1, 0, layout.exported
    cells_of = _CellReader(replay, layout)
    with readable(replay), open_text(replay) as file:
        try:
            for line, row, raw in _records(replay, layout, file):
                if isinstance(row, ReplayError):
                    yield row
                elif not any(row):
                    continue
                elif exported and is_export(row):  # appended, maybe of another version
                    cells_of, count = _CellReader(replay, export_layout(replay, row, line)), 0
                elif exported and len(row) == 1 and row[0].startswith(CSV_END):
                    _check_end(replay, line, row[0], count)
                    count = 0
                else:
                    count += 1
                    yield cells_of.read(line, row, raw)
        except (UnicodeError, LookupError) as error:
            raise not_text(replay, line, error) from error


def _records(replay: Replay, layout: Layout, file: TextIO) -> Iterator[tuple[int, list[str] | ReplayError, str]]:
    """Yield last lines, cells or why they cannot be read, and the raw text of an export's row."""
    before = last = layout.first_line - 1
    for _ in islice(file, before):
        pass
    if layout.delimiter == BLANKS:
        for last, line in enumerate(file, before + 1):
            yield last, line.split(), ""
        return
    lines = _RecordLines(file) if layout.exported else None
    rows = csv.reader(lines or file, delimiter=layout.delimiter, strict=True)
    while True:
        first = last + 1
        try:
            row = next(rows, None)
        except csv.Error as error:  # the reader begins anew with the next line
            last = before + rows.line_num
            to = f" to line {last}" if last > first else ""
            refused = replay.error_at(first, "", f"the row{to} cannot be read: {error}")
            yield last, refused, lines.take_text() if lines else ""
            continue
        if row is None:
            return
        last = before + rows.line_num
        yield last, row, lines.take_text() if lines else ""


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


def _check_end(replay: Replay, line: int, cell: str, count: int) -> None:
    if cell != f"{CSV_END}{count}":
        raise replay.error_at(line, "", f"the export ends with {cell!r}, but {count} readings precede it")


class _CellReader:
    """Takes the cells that a layout reads out of rows."""

    def __init__(self, replay: Replay, layout: Layout) -> None:
        self._replay = replay
        self._layout = layout
        self._width = len(layout.names)
        self._times = layout.times
        self._values = [column.index for column in layout.values]
        self._fields = list(layout.fields.items())
        self._used = sorted({*layout.times, *self._values, *layout.fields.values()})
        self._quotable = [*self._fields, ("value", self._values[0])]

    def read(self, line: int, row: list[str], raw: str) -> TableRow | ReplayError:
        """Return the cells of a row; `raw` is the text of an export's row."""
        length = len(row)
        if length <= self._used[-1]:
            name = self._layout.names[next(index for index in self._used if index >= length)]
            return self._replay.error_at(line, name, f"the row has only {length} fields of {self._used[-1] + 1}")
        texts = _NONE
        if self._layout.exported:
            quoted = [cell.startswith('"') for cell in _CELL.findall(raw)]
            texts = frozenset(name for name, index in self._quotable if quoted[index])
        else:
            row = [cell.strip() for cell in row]
            if length > self._width and any(row[self._width :]):
                reason = f"the row has {length} fields, and only {self._width} have names"
                return self._replay.error_at(line, "", reason)
        times = self._times
        time = row[times[0]].strip() if len(times) == 1 else " ".join([row[index] for index in times])
        values = tuple([row[index] for index in self._values])
        return TableRow(line, self._layout, time, values, {name: row[index] for name, index in self._fields}, texts)
