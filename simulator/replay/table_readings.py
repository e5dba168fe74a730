"""ROWS → READINGS: the cells of a table as readings with reproducible identities."""

import contextlib
from collections.abc import Iterator
from typing import Any

from readings.csv_row import read_location
from readings.reading import ATTRIBUTES, Value
from simulator.errors import ReplayError
from simulator.reading import DeviceReading, SequenceCounter
from simulator.replay.altered_exports import find_alteration
from simulator.replay.cells import parse_location_cell, parse_seq_cell, parse_tags_cell
from simulator.replay.file import Replay
from simulator.replay.layout import ValueColumn
from simulator.replay.row import ReadingRow, RowResult
from simulator.replay.survey import Survey, is_missing, series_of
from simulator.replay.table import TableRow, table_rows
from simulator.replay.value_types import parse_number, parse_value
from simulator.replay.zones import Clock

MAX_SERIES = 100_000


class TableReadings:
    """The readings of one pass over a table. `sensor_type` applies to rows and columns that name none."""

    def __init__(self, replay: Replay, found: Survey, sensor_type: str) -> None:
        self._replay = replay
        self._found = found
        self._sensor_type = replay.sensor_type or sensor_type
        self._clock = Clock(found.zone, found.passed_twice)
        self._sequences: dict[tuple[str, str], SequenceCounter] = {}
        self._rows_before = 0

    def results(self) -> Iterator[RowResult]:
        """Yield every row of the table."""
        for row in table_rows(self._replay, self._found.table):
            if isinstance(row, ReplayError):
                yield RowResult(row.line, [], [row])
            else:
                yield self._result(row)
            self._rows_before += 1

    def _result(self, row: TableRow) -> RowResult:
        positions = [n for n in range(len(row.values)) if not is_missing(self._replay, row, n)]
        if not positions:
            if self._found.zone.needs_order:
                self._pass_time(row)
            return RowResult(row.line, [], [])
        if row.layout.exported and (found := find_alteration(row, inferred=self._replay.value_type == "auto")):
            return self._refused(row, *found)
        name = "ts"
        try:
            ts_ms, cut = self._time(row)
            name = "tags"
            fields = _optional_fields(row)
            name = "seq"
            seq = _seq_from_column(row.cells[name], cut=cut) if name in row.cells else None
        except ValueError as error:
            return self._refused(row, name, str(error))
        for name in ("sensorType", "device"):
            if row.cells.get(name) == "":
                return self._refused(row, name, f"the {name} is empty")
        readings, refusals = [], []
        for position in positions:
            try:
                readings.append(self._reading(row, position, ts_ms, seq, fields))
            except ValueError as error:
                column = row.layout.values[position].name
                refusals.append(self._replay.error_at(row.line, column, str(error)))
        return RowResult(row.line, readings, refusals)

    def _refused(self, row: TableRow, name: str, reason: str) -> RowResult:
        return RowResult(row.line, [], [self._replay.error_at(row.line, row.layout.name_of(name), reason)])

    def _time(self, row: TableRow) -> tuple[int, bool]:
        """Return milliseconds since 1970, and whether finer digits were cut off."""
        moment = self._found.times.parse(row.time)
        if moment.is_utc:
            return moment.ms, moment.cut
        try:
            return self._clock.utc_ms(moment.ms, series_of(row)), moment.cut
        except ValueError as error:
            raise ValueError(f"{row.time!r}: {error}") from error

    def _pass_time(self, row: TableRow) -> None:
        """Let the clock see the time of a row without values, which may begin the second pass through an hour."""
        with contextlib.suppress(ValueError):
            self._time(row)

    def _reading(self, row: TableRow, position: int, ts_ms: int, seq: int | None, fields: dict[str, Any]) -> ReadingRow:
        column = row.layout.values[position]
        device = row.cells.get("device", "") if self._replay.device is None else self._replay.device
        named = row.cells.get("sensorType", "")
        sensor_type = self._found.sensor_types.get(named, named) or column.sensor_type or self._sensor_type
        if seq is None:  # also for a value that is refused: mending it changes no other reading's identity
            seq = self._sequence(row, device, sensor_type).next(ts_ms, self._rows_before)
        value = self._value(row, position, column)
        if "unit" not in fields and not row.layout.exported:
            units = self._replay.units
            if unit := units.get(sensor_type, units.get("", column.unit)):
                fields = {**fields, "unit": unit}
        return ReadingRow(device, DeviceReading(sensor_type, value, ts_ms, seq, **fields), row.line)

    def _sequence(self, row: TableRow, device: str, sensor_type: str) -> SequenceCounter:
        sequence = self._sequences.get((device, sensor_type))
        if sequence is None:
            if len(self._sequences) >= MAX_SERIES:
                raise self._replay.error_at(row.line, "", f"more than {MAX_SERIES} series")
            sequence = self._sequences[device, sensor_type] = SequenceCounter()
        return sequence

    def _value(self, row: TableRow, position: int, column: ValueColumn) -> Value:
        cell, value_type = row.values[position], self._replay.value_type
        if row.layout.exported and value_type == "auto":
            return _exported_value(cell, in_quotes="value" in row.texts)
        kinds = self._found.kinds or {}
        kind = kinds.get((column.index, row.cells.get("sensorType", "")), "text")
        return parse_value(cell, kind, inferred=value_type == "auto", decimal=row.layout.decimal)


def _seq_from_column(cell: str, *, cut: bool) -> int:
    if cut:
        raise ValueError(
            "times finer than a millisecond are cut, so that two readings with the same seq would become one: "
            "without --seq-column seq counts up"
        )
    return parse_seq_cell(cell)


def _optional_fields(row: TableRow) -> dict[str, Any]:
    """Return the optional fields that a row sets. An empty cell sets nothing, unless it is quoted."""
    fields: dict[str, Any] = {}
    if not row.cells:
        return fields
    for name, attribute in (*((name, name) for name in ATTRIBUTES), ("receivedAt", "received_at")):
        cell = row.cells.get(name, "")
        if not cell and name not in row.texts:
            continue
        if name == "location":
            fields[attribute] = read_location(cell) if row.layout.exported else parse_location_cell(cell)
        else:
            fields[attribute] = parse_tags_cell(cell) if name == "tags" else cell
    return fields


def _exported_value(cell: str, *, in_quotes: bool) -> Value:
    """Return the value of an export's cell: texts are quoted, and nothing else is."""
    if in_quotes:
        return cell
    if cell in ("true", "false"):
        return cell == "true"
    number = parse_number(cell)
    if number is None:
        raise ValueError(f"{cell[:64]!r} is not a value of an export: texts are quoted")
    return number
