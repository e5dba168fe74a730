"""FIRST LINES → LAYOUT: where a table's header is, and which columns have times and values.

What options name is taken as named. Of the rest, columns of times are found by their cells and names, and all other
columns with a name may have values: `survey` reads the whole file to see which do. ReplayError if it cannot be told.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from simulator.errors import ReplayError
from simulator.replay.file import Replay
from simulator.replay.heading import delimiter_line, find_heading
from simulator.replay.known_forms import BUOY_MISSING, epw_layout, is_buoy_header
from simulator.replay.layout import (
    Layout,
    ValueColumn,
    export_layout,
    fields_of,
    index_of,
    is_export,
    type_and_unit,
    unit_text,
)
from simulator.replay.separators import NAMES, Record, find_decimal, find_delimiter, sample_of
from simulator.replay.source import open_text, readable
from simulator.replay.time_columns import find_time_columns
from simulator.replay.value_types import parse_number

_SAMPLE_LINES = 200
_SAMPLE_BYTES = 1 << 20


def detect_layout(replay: Replay) -> Layout:
    """Read the first lines of a table and return its layout."""
    skipped = replay.text.skip_rows or 0
    lines = _first_lines(replay, skipped)
    records = _numbered(sample_of(lines, ","), skipped)
    if records and is_export(records[0][1]):
        return export_layout(replay, records[0][1], records[0][0])
    if found := epw_layout(records):
        return _as_asked(replay, found)
    named = delimiter_line(lines)
    if named is not None:
        lines, skipped = lines[1:], skipped + 1
    delimiter = replay.text.delimiter or named or find_delimiter(lines)
    records = _numbered(sample_of(lines, delimiter), skipped)
    if not records:
        raise replay.error_at(skipped + 1, "", "there is no header: the file has none of its columns' names")
    header, data = find_heading(replay, records)
    return _table_layout(replay, records, header, data, delimiter, skipped)


def _numbered(records: list[Record], skipped: int) -> list[Record]:
    return [(line + skipped, cells) for line, cells in records]


def _first_lines(replay: Replay, skipped: int) -> list[str]:
    """Return the first lines below those that are skipped."""
    lines: list[str] = []
    number = size = 0
    with readable(replay), open_text(replay) as file:
        try:
            for _ in islice(file, skipped):
                number += 1
            while size < _SAMPLE_BYTES and len(lines) < _SAMPLE_LINES and (line := file.readline(_SAMPLE_BYTES)):
                lines.append(line)
                number += 1
                size += len(line)
        except (UnicodeError, LookupError) as error:
            raise not_text(replay, number + 1, error) from error
    return lines


def not_text(replay: Replay, line: int, error: Exception) -> ReplayError:
    """Return the error for a file that is not in its encoding, somewhere after `line`."""
    if isinstance(error, LookupError):
        return replay.error(f"there is no encoding {replay.text.encoding!r}")
    name = replay.text.encoding.upper()
    return ReplayError(
        f"{replay.path}: after line {line}: the file is not {name}; --encoding cp1252, for example, gives another",
        line=line,
    )


def _table_layout(
    replay: Replay, records: list[Record], header: int | None, data: int, delimiter: str, skipped: int
) -> Layout:
    rows = [cells for _, cells in records[data:]]
    if header is None:
        line, names = records[data][0], tuple(f"#{number + 1}" for number in range(len(records[data][1])))
        notes = ["no header" + (f", lines above line {line} left out" if line > 1 else "")]
    else:
        line, names = records[header][0], tuple(records[header][1])
        notes = [f"header in line {line}"]
    units: list[str] = []
    if header is not None and data > header + 1 and len(records[header + 1][1]) == len(names):
        units = [unit_text(cell) for cell in records[header + 1][1]]
        notes.append(f"units in line {records[header + 1][0]}")
    decimal = replay.text.decimal or find_decimal([(0, cells) for cells in rows], delimiter)
    notes = [f"{NAMES.get(delimiter, delimiter)}-separated", f"decimal {NAMES.get(decimal, 'point')}", *notes]
    missing = frozenset[str]()
    if is_buoy_header(names):
        missing = frozenset((BUOY_MISSING,))
        notes.append("a buoy's text: MM is missing")
    fields = fields_of(replay, names, line)
    times, parts = find_time_columns(replay, names, rows, line, taken=set(fields.values()))
    layout = Layout(
        names,
        times,
        _candidates(names, units, {*times, *fields.values()}),
        fields,
        first_line=(records[data - 1][0] if data else skipped) + 1,
        delimiter=delimiter,
        decimal=decimal,
        time_parts=parts,
        missing=missing,
        notes=tuple(notes),
    )
    return _as_asked(replay, layout, line)


def _candidates(names: Sequence[str], units: list[str], taken: set[int]) -> tuple[ValueColumn, ...]:
    found = []
    for index, name in enumerate(names):
        if index in taken or not name:
            continue
        sensor_type, unit = type_and_unit(name, index)
        found.append(ValueColumn(index, name, sensor_type, units[index] if units else unit, chosen=False))
    only = [column for column in found if column.name == "value"]
    return (replace(only[0], sensor_type="", chosen=True),) if len(only) == 1 else tuple(found)


def _as_asked(replay: Replay, layout: Layout, line: int = 0) -> Layout:
    """Apply the options that name columns of values, and give all rows a sensor type."""
    values = layout.values
    if replay.value_columns:
        values = tuple(_chosen(replay, layout, wanted, line) for wanted in replay.value_columns)
    marks = frozenset(number for text in replay.missing if (number := parse_number(text)) is not None)
    values = tuple(replace(column, missing=column.missing | marks) for column in values)
    if not values:
        raise replay.error("no column of values was found: --value-column names one")
    types_given = replay.sensor_type is not None or "sensorType" in layout.fields
    if types_given and len(values) == 1:
        values = (replace(values[0], sensor_type=""),)
    elif not types_given and len(values) == 1 and (replay.device is not None or "device" in layout.fields):
        values = (_named(replay, values[0]),)
    types: dict[str, ValueColumn] = {}
    for column in values:
        if (other := types.setdefault(column.sensor_type, column)) is not column:
            raise replay.error(
                f"the columns {other.name!r} and {column.name!r} are both {column.sensor_type!r}: "
                f"--value-column '#{column.index + 1}=TYPE' names the sensor type of one"
            )
    return replace(layout, values=values)


def _named(replay: Replay, column: ValueColumn) -> ValueColumn:
    """Return the only column with its name as sensor type, where no simulated device has one."""
    if column.sensor_type:
        return column
    if column.name == "value":
        raise replay.error("its rows name no sensor type: --sensor-type, or --sensor-type-column, does")
    return replace(column, sensor_type=type_and_unit(column.name, column.index)[0])


def _chosen(replay: Replay, layout: Layout, wanted: str, line: int) -> ValueColumn:
    name, sensor_type = wanted, ""
    if wanted not in layout.names and "=" in wanted:
        name, _, sensor_type = wanted.rpartition("=")
    index = index_of(replay, layout.names, name, "value", line)
    known = next((column for column in layout.values if column.index == index), None)
    if known is None:
        found_type, unit = type_and_unit(layout.names[index], index)
        known = ValueColumn(index, layout.names[index], found_type, unit)
    if not sensor_type and len(replay.value_columns) == 1:
        return replace(known, sensor_type="", chosen=True)
    return replace(known, sensor_type=sensor_type or known.sensor_type, chosen=True)
