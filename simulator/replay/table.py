"""FILE → ROWS: a table of any size, row by row in constant memory, with the cells that are read."""

import csv
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TextIO

from readings.csv_row import CSV_END
from simulator.errors import ReplayError
from simulator.replay.detect import not_text
from simulator.replay.file import Replay
from simulator.replay.layout import Layout, export_layout, is_export
from simulator.replay.separators import Record, rows_of
from simulator.replay.source import open_text, readable

# A raw cell of the file, quotes included.
_CELL = re.compile(r'((?:"(?:[^"]|"")*"|[^,"\r\n])*)(?:,|\r|\n|$)')


@dataclass(frozen=True, slots=True)
class TableRow:
    """The cells of one row: its time, its values in the order of the layout's columns, and other fields by name.

    Those of an export are as stored, others are stripped of surrounding spaces; `texts` are the fields that were quoted
    in an export.
    """

    line: int
    layout: Layout
    time: str
    values: tuple[str, ...]
    cells: dict[str, str]
    texts: frozenset[str] = frozenset()


def table_rows(replay: Replay, layout: Layout) -> Generator[TableRow | ReplayError, None, None]:
    """Yield the rows, and errors for those that cannot be read; blank rows are skipped. Raises ReplayError.

    The headers and end lines of exports, of which several may be appended, are no rows.
    """
    line, count = layout.first_line - 1, 0
    with readable(replay), open_text(replay) as file:
        try:
            for line, row, raw in _records(replay, layout, file):
                if isinstance(row, ReplayError):
                    yield row
                elif not any(row):
                    continue
                elif layout.exported and is_export(row):  # appended, maybe of another version
                    layout, count = export_layout(replay, row, line), 0
                elif layout.exported and len(row) == 1 and row[0].startswith(CSV_END):
                    _check_end(replay, line, row[0], count)
                    count = 0
                else:
                    count += 1
                    yield _table_row(replay, layout, line, row, raw)
        except (UnicodeError, LookupError) as error:
            raise not_text(replay, line, error) from error


def _records(replay: Replay, layout: Layout, file: TextIO) -> Iterator[tuple[int, list[str] | ReplayError, str]]:
    """Yield last lines, cells or why they cannot be read, and the raw text of an export's row."""
    before = last = layout.first_line - 1
    for _ in islice(file, before):
        pass
    lines = _RecordLines(file)
    rows = rows_of(lines, layout.delimiter)
    while True:
        try:
            found = next(rows, None)
        except csv.Error as error:
            # The reader begins anew with the next line.
            first, last = last + 1, before + lines.count
            rows = _continued(rows_of(lines, layout.delimiter), last - before)
            yield last, replay.error_at(first, "", f"the row cannot be read: {error}"), lines.take_text()
            continue
        if found is None:
            return
        last = before + found[0]
        yield last, found[1], lines.take_text()


def _continued(rows: Iterator[Record], lines: int) -> Iterator[Record]:
    for number, row in rows:
        yield number + lines, row


class _RecordLines:
    """The lines of a file; keeps the raw text of the record being read."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._record: list[str] = []
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self._record.append(line)
        self.count += 1
        return line

    def take_text(self) -> str:
        """Return the raw text read since the last call."""
        text = "".join(self._record)
        self._record.clear()
        return text


def _check_end(replay: Replay, line: int, cell: str, count: int) -> None:
    if cell != f"{CSV_END}{count}":
        raise replay.error_at(line, "", f"the export ends with {cell!r}, but {count} readings precede it")


def _table_row(replay: Replay, layout: Layout, line: int, row: Sequence[str], raw: str) -> TableRow | ReplayError:
    if not layout.exported:
        row = [cell.strip() for cell in row]
        if len(row) > len(layout.names) and any(row[len(layout.names) :]):
            return replay.error_at(line, "", f"the row has {len(row)} fields, and only {len(layout.names)} have names")
    used = (*layout.times, *(column.index for column in layout.values), *layout.fields.values())
    if (last := max(used)) >= len(row):
        first = min(index for index in used if index >= len(row))
        return replay.error_at(line, layout.names[first], f"the row has only {len(row)} fields of {last + 1}")
    texts = frozenset[str]()
    cells = {name: row[index] for name, index in layout.fields.items()}
    if layout.exported:
        quoted = [cell.startswith('"') for cell in _CELL.findall(raw)]
        named = {**layout.fields, "value": layout.values[0].index}
        texts = frozenset(name for name, index in named.items() if quoted[index])
    time = row[layout.times[0]].strip() if len(layout.times) == 1 else " ".join(row[index] for index in layout.times)
    return TableRow(line, layout, time, tuple(row[column.index] for column in layout.values), cells, texts)
