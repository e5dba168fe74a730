"""FILE → HOW TO READ IT: what a whole file says about its times and the types of its values, decided before it is read.

Reads a table once, or twice to find hours that its zone repeats, in constant memory; other forms say it themselves.
"""

import asyncio
from collections.abc import Generator, Hashable, Mapping
from dataclasses import dataclass, field, replace

from readings.reading import ID_PATTERN
from simulator.replay.detect import detect_layout
from simulator.replay.file import Replay
from simulator.replay.fitting import require_as_exported, require_known_units, require_no_columns, with_types
from simulator.replay.layout import Layout, type_and_unit
from simulator.replay.source import Form, form_of
from simulator.replay.table import TableRow, table_rows
from simulator.replay.time_evidence import TimeEvidence
from simulator.replay.times import TimeError, Times
from simulator.replay.value_types import Kind, TypeVotes, parse_number
from simulator.replay.zones import Clock, Passes, Zone

MAX_SENSOR_TYPES = 10_000
_ROWS_AT_ONCE = 500
UTC = Zone("UTC")

Kinds = Mapping[tuple[int, str], Kind]
"""The type of values by column and by the sensor type that the row names; empty if it names none."""


@dataclass(frozen=True, slots=True)
class Survey:
    """How a file is read. Of NDJSON and Parquet only `form` is set.

    `markers` are marks of missing values among numbers that no option names, with their count; `left_out` are columns
    without numbers, and what they have; `sensor_types` are those of cells that are not written as sensor types are.
    """

    form: Form
    layout: Layout | None = None
    times: Times = Times()
    kinds: Kinds | None = None
    zone: Zone = UTC
    passed_twice: Passes = field(default_factory=dict)
    markers: Mapping[str, int] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    sensor_types: Mapping[str, str] = field(default_factory=dict)

    @property
    def table(self) -> Layout:
        """The layout of a table."""
        if self.layout is None:
            raise AssertionError(f"{self.form} is no table")
        return self.layout


async def survey(replay: Replay) -> Survey:
    """Read the file and decide, yielding to the event loop; ReplayError says what cannot be decided."""
    for found in _steps(replay):
        if found is not None:
            return found
        await asyncio.sleep(0)
    raise AssertionError("the last step is the result")


def survey_at_once(replay: Replay) -> Survey:
    """Do the same without an event loop."""
    return next(found for found in _steps(replay) if found is not None)


def _steps(replay: Replay) -> Generator[Survey | None, None, None]:
    """Yield None after some rows, and last the result."""
    form = form_of(replay)
    if form != "table":
        require_no_columns(replay, form)
        yield Survey(form)
        return
    layout = detect_layout(replay)
    votes = _Votes(replay, layout)
    evidence = TimeEvidence(replay.times, layout.time_parts, layout.name_of("ts"))
    for number, row in enumerate(table_rows(replay, layout)):
        if isinstance(row, TableRow):
            evidence.add(row.time, row.line)
            votes.add(row)
        if number % _ROWS_AT_ONCE == 0:
            yield None
    if layout.exported:
        require_as_exported(replay)
        yield Survey(form, layout, kinds=votes.kinds())
        return
    try:
        times = evidence.times()
    except TimeError as error:
        raise replay.error(f"column {layout.name_of('ts')!r}: {error}") from error
    zone = replay.times.zone or (Zone(layout.zone) if layout.zone else UTC)
    passes = yield from _passes(replay, layout, times, zone)
    layout, left_out = votes.columns()
    layout = with_types(replay, layout)
    sensor_types = votes.sensor_types()
    require_known_units(replay, layout, {sensor_types.get(cell, cell) for cell in votes.cells()})
    yield Survey(form, layout, times, votes.kinds(), zone, passes, votes.markers(), left_out, sensor_types)


def _passes(replay: Replay, layout: Layout, times: Times, zone: Zone) -> Generator[None, None, Passes]:
    """Return which series pass through a repeated hour twice, if that has to be known."""
    clock = Clock(zone)
    if not zone.needs_order:
        return clock.passed_twice
    for number, row in enumerate(table_rows(replay, layout)):
        if isinstance(row, TableRow):
            try:
                moment = times.parse(row.time)
            except TimeError:
                continue  # told when the row is read
            if not moment.is_utc:
                clock.note(moment.ms, series_of(row))
        if number % _ROWS_AT_ONCE == 0:
            yield None
    return clock.passed_twice


def series_of(row: TableRow) -> Hashable:
    """Return what tells the series of a table apart, as far as the order of their rows goes."""
    return row.cells.get("device", ""), row.cells.get("sensorType", "")


def is_missing(replay: Replay, row: TableRow, position: int) -> bool:
    """Return whether the value at this position of a row is missing."""
    cell = row.values[position]
    if not cell:
        return "value" not in row.texts
    if cell in replay.missing or cell in row.layout.missing:
        return True
    numbers = row.layout.values[position].missing
    return bool(numbers) and parse_number(cell.replace(row.layout.decimal, ".")) in numbers


class _Votes:
    """Infers the types of the values of each column and sensor type from their cells."""

    def __init__(self, replay: Replay, layout: Layout) -> None:
        self._replay = replay
        self._layout = layout
        self._votes: dict[tuple[int, str], TypeVotes] = {}

    def add(self, row: TableRow) -> None:
        sensor_type = row.cells.get("sensorType", "")
        voting = not self._layout.exported and self._replay.value_type == "auto"
        for position, column in enumerate(self._layout.values):
            votes = self._votes.get((column.index, sensor_type))
            if votes is None:
                votes = self._votes[column.index, sensor_type] = TypeVotes()
                if len(self._votes) > MAX_SENSOR_TYPES:
                    raise self._replay.error_at(row.line, "", f"more than {MAX_SENSOR_TYPES} sensor types")
            if voting and not is_missing(self._replay, row, position):
                votes.add(row.values[position])

    def kinds(self) -> Kinds:
        chosen = self._replay.value_type
        return {key: votes.kind if chosen == "auto" else chosen for key, votes in self._votes.items()}

    def cells(self) -> set[str]:
        """Return the sensor types that rows name, as they are written."""
        return {cell for _, cell in self._votes if cell}

    def sensor_types(self) -> Mapping[str, str]:
        """Return sensor types by the cells that need another spelling, such as `Solar power`; raise ReplayError."""
        cells = self.cells()
        found = {cell: type_and_unit(cell, 0)[0] for cell in cells if not ID_PATTERN.fullmatch(cell)}
        spelled: dict[str, str] = {}
        for cell in sorted(cells):
            name = found.get(cell, cell)
            if (other := spelled.setdefault(name, cell)) != cell:
                raise self._replay.error(f"the sensor types {other!r} and {cell!r} are both written {name!r}")
        return found

    def markers(self) -> Mapping[str, int]:
        """Return marks of missing values that no option names, and how many there are in columns of numbers."""
        found: dict[str, int] = {}
        kept = {column.index for column in self.columns()[0].values}
        for (index, _), votes in self._votes.items():
            if votes.kind != "text" and index in kept:
                for cell, count in votes.markers.items():
                    found[cell] = found.get(cell, 0) + count
        return found

    def columns(self) -> tuple[Layout, tuple[tuple[str, str], ...]]:
        """Return the layout without columns that no option names and that have no numbers or booleans, and those."""
        if self._replay.value_type != "auto":
            return self._layout, ()
        kept, left_out = [], []
        for column in self._layout.values:
            cells = [votes for (index, _), votes in self._votes.items() if index == column.index]
            kinds = {"nothing" if votes.is_empty else votes.kind for votes in cells}
            if column.chosen or kinds & {"number", "boolean"}:
                kept.append(column)
            else:
                left_out.append((column.name, "texts" if "text" in kinds else "no values"))
        if not kept and len(left_out) == 1:
            return self._layout, ()
        if not kept and self._votes:
            shown = ", ".join(repr(name) for name, _ in left_out)
            raise self._replay.error(f"no column has numbers: {shown} have texts; --value-column names those to take")
        return replace(self._layout, values=tuple(kept) or self._layout.values), tuple(left_out)
