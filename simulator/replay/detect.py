"""FIRST LINES → LAYOUT: where a table's header is, and which columns have times and values.

What options name is taken as named. Of the rest, columns of times are found by their cells and names, and all other
columns with a name may have values: `survey` reads the whole file to see which do. ReplayError if it cannot be told.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from simulator.errors import ReplayError
from simulator.replay.file import Replay
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
from simulator.replay.separators import NAMES, Record, find_decimal, find_delimiter, sample_of, usual_length
from simulator.replay.source import open_text, readable
from simulator.replay.time_columns import find_time_columns, has_a_time
from simulator.replay.value_types import looks_numeric

_SAMPLE_LINES = 200
_SAMPLE_BYTES = 1 << 20


def detect_layout(replay: Replay) -> Layout:
    """Read the first lines of a table and return its layout."""
    lines = _first_lines(replay)
    records = sample_of(lines, ",")
    if records and is_export(records[0][1]):
        return export_layout(replay, records[0][1], records[0][0])
    if found := epw_layout(records):
        return _as_asked(replay, found)
    skipped = replay.text.skip_rows or 0
    delimiter = replay.text.delimiter or find_delimiter(lines[skipped:])
    records = [(line + skipped, cells) for line, cells in sample_of(lines[skipped:], delimiter)]
    if not records:
        raise replay.error_at(skipped + 1, "", "there is no header: the file has none of its columns' names")
    header, data = _heading(replay, records)
    return _table_layout(replay, records, header, data, delimiter)


def _first_lines(replay: Replay) -> list[str]:
    lines: list[str] = []
    size = 0
    with readable(replay), open_text(replay) as file:
        try:
            while size < _SAMPLE_BYTES and len(lines) < _SAMPLE_LINES and (line := file.readline(_SAMPLE_BYTES)):
                lines.append(line)
                size += len(line)
        except (UnicodeError, LookupError) as error:
            raise not_text(replay, len(lines) + 1, error) from error
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


def _heading(replay: Replay, records: list[Record]) -> tuple[int | None, int]:
    """Return the index of the record with the columns' names, None if there is none, and that of the first row."""
    if replay.text.skip_rows is None:
        named = _named_header(replay, records)
        length = usual_length(records)
        regular = [n for n, (_, cells) in enumerate(records) if len(cells) == length]
        data = next((n for n in regular if has_a_time(records[n][1])), None)
        if named is not None:
            header: int | None = named
        elif data is None:
            header = regular[0] if regular else 0
        else:
            header = _first_of_heading(records, data, length)
    else:
        header = None if has_a_time(records[0][1]) else 0
    if header is None:
        return None, next(n for n, (_, cells) in enumerate(records) if has_a_time(cells))
    data = header + 1
    while data + 1 < len(records) and _is_part_of_heading(records[header][1], records[data][1]):
        data += 1
    return header, data


def _first_of_heading(records: list[Record], data: int, length: int) -> int | None:
    """Return the first of the rows above the data that have as many cells; lines such as *** may be between."""
    found = None
    for number in range(data - 1, -1, -1):
        cells = records[number][1]
        if len(cells) == length:
            found = number
        elif any(map(str.isalnum, "".join(cells))):
            break
    return found


def _named_header(replay: Replay, records: list[Record]) -> int | None:
    """Return the first record that has all names of the options, or without such `timestamp`."""
    wanted = {
        name.partition("=")[0] if name.partition("=")[0] else name
        for name in (
            *replay.time_columns,
            *replay.value_columns,
            *(replay.sensor_type_column, replay.seq_column, replay.device_column),
            *replay.attribute_columns.values(),
        )
        if name and not name.startswith("#")
    } or {"timestamp"}
    return next((n for n, (_, cells) in enumerate(islice(records, 50)) if wanted <= set(cells)), None)


def _is_part_of_heading(names: list[str], cells: list[str]) -> bool:
    """Return whether a row below the names is not one of data, but has units or the like: no time and no number."""
    if not any(map(str.isalnum, "".join(cells))):
        return True
    return len(cells) == len(names) and not has_a_time(cells) and not any(map(looks_numeric, cells))


def _table_layout(replay: Replay, records: list[Record], header: int | None, data: int, delimiter: str) -> Layout:
    rows = [cells for _, cells in records[data:]]
    if header is None:
        line, names = records[data][0], tuple(f"#{number + 1}" for number in range(len(records[data][1])))
        notes = ["no header"]
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
        first_line=(records[data - 1][0] if data else 0) + 1,
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
