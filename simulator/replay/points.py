"""CSV → READINGS: rows to readings with reproducible identities, whatever the size of the file.

`check_replay` reads the whole file before anything is sent, so that a bad row stops the run and not its middle.
"""

import asyncio
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import msgspec

from readings.csv_row import read_location
from readings.encoder import ReadingEncoder
from readings.exported import ExportedReadingEncoder
from readings.reading import ATTRIBUTES, ID_PATTERN, Defaults, ReadingError, Value
from simulator.errors import ReplayError
from simulator.point import SentPoint
from simulator.replay.cells import location_cell, seq_cell, tags_cell, time_cell
from simulator.replay.file import Columns, FileRow, Replay, file_rows
from simulator.replay.rewritten import altered
from simulator.replay.value_types import Kind, Votes, plain_number, value_of
from simulator.sequence import Sequence

MAX_SENSOR_TYPES = 10_000
MAX_SERIES = 100_000
_ROWS_A_TURN = 500
# What a refusal is about, by how its sentence begins.
_ABOUT = {
    "seq": "seq",
    "unit": "unit",
    "location": "location",
    "lat ": "location",
    "tags": "tags",
    "a tag": "tags",
    "at most": "tags",
    "receivedAt": "receivedAt",
}

T = TypeVar("T")
Kinds = Mapping[str, Kind]
"""The type of the values by sensor type; of rows that name none it is under ""."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that can be replayed: how many readings it has, their types, and of how many devices, if it names them."""

    replay: Replay
    readings: int
    kinds: Kinds
    devices: int

    @property
    def names_devices(self) -> bool:
        """True when each reading is of a device that its row names, as in an export."""
        return self.devices > 0


class ReplayRow(msgspec.Struct, frozen=True):
    """A reading, and the device that its row names; empty where there is no such column."""

    device: str
    point: SentPoint


async def check_replay(replay: Replay) -> Checked:
    """Read the whole file; ReplayError names the first bad row. Gives way to others."""
    votes = _Kinds(replay)
    rows = 0
    for batch in _batches(file_rows(replay)):
        rows += len(batch)
        for columns, row in batch:
            votes.add(columns, row)
        await asyncio.sleep(0)
    if not rows:
        raise ReplayError(f"{replay.path}: the file has no rows")
    kinds = votes.kinds()
    readings = 0
    devices: set[str] = set()
    for checked in _batches(_checked(replay, kinds)):
        readings += len(checked)
        devices.update(row.device for row in checked)
        await asyncio.sleep(0)
    if not readings:
        raise ReplayError(f"{replay.path}: no row has a value: all are empty, or as --missing says")
    devices.discard("")
    return Checked(replay, readings, kinds, len(devices))


def replay_points(replay: Replay, sensor_type: str, kinds: Kinds | None = None) -> Generator[SentPoint, None, None]:
    """Yield the file's readings in order; `sensor_type` is for rows that name none. Constant memory.

    `kinds` are those of `check_replay`; without them the file is read once more.
    """
    for row in replay_rows(replay, sensor_type, kinds):
        yield row.point


def replay_rows(replay: Replay, sensor_type: str, kinds: Kinds | None = None) -> Generator[ReplayRow, None, None]:
    """Yield the same with the devices that the rows name."""
    if kinds is None:
        votes = _Kinds(replay)
        for columns, row in file_rows(replay):
            votes.add(columns, row)
        kinds = votes.kinds()
    for _, _, found in _readings(replay, sensor_type, kinds):
        yield found


class _Kinds:
    """Decides the type of the values, for each sensor type by its own cells."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._votes: dict[str, Votes] = {}

    def add(self, columns: Columns, row: FileRow) -> None:
        sensor_type = row.cells.get("sensorType", "")
        if columns.exported or self._replay.value_type != "auto" or _is_missing(self._replay, row):
            self._votes.setdefault(sensor_type, Votes())
        else:
            self._votes.setdefault(sensor_type, Votes()).add(row.cells["value"])
        if len(self._votes) > MAX_SENSOR_TYPES:
            raise self._replay.bad(row.line, "", f"more than {MAX_SENSOR_TYPES} sensor types")

    def kinds(self) -> Kinds:
        chosen = self._replay.value_type
        return {name: votes.kind if chosen == "auto" else chosen for name, votes in self._votes.items()}


def _batches(rows: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(rows, _ROWS_A_TURN)):
        yield batch


def _checked(replay: Replay, kinds: Kinds) -> Iterator[ReplayRow]:
    now_ms = time.time_ns() // 1_000_000
    over_http, over_socket = ExportedReadingEncoder("o", "d", Defaults()), ReadingEncoder("o", "d", Defaults())
    for columns, row, found in _readings(replay, "value", kinds):
        if found.device and not ID_PATTERN.fullmatch(found.device):
            raise replay.bad(row.line, columns.names["device"], "a device is 1 to 64 of A-Z a-z 0-9 _ . : -")
        try:
            (over_http if found.device else over_socket).encode_one(msgspec.json.encode(found.point), now_ms)
        except ReadingError as error:
            raise _bad_reading(replay, columns, row, error) from error
        yield found


def _bad_reading(replay: Replay, columns: Columns, row: FileRow, error: ReadingError) -> ReplayError:
    detail = error.detail
    if error.code == "invalid_ts":
        field = "ts"
        detail += "; a whole number is taken for milliseconds since 1970" if row.cells["ts"].isdecimal() else ""
    elif error.code == "invalid_value":
        field = "value"
    else:
        field = next((field for begin, field in _ABOUT.items() if detail.startswith(begin)), "sensorType")
    if field == "seq":
        detail += "; larger ones are a gateway's, and taken where an export names device and receivedAt"
    return replay.bad(row.line, columns.names.get(field, ""), detail)


def _readings(replay: Replay, sensor_type: str, kinds: Kinds) -> Iterator[tuple[Columns, FileRow, ReplayRow]]:
    sequences: dict[tuple[str, str], Sequence] = {}
    own = replay.sensor_type or sensor_type
    for columns, row in file_rows(replay):
        if _is_missing(replay, row):
            continue
        if columns.exported and (wrong := altered(row, decided=replay.value_type == "auto")):
            raise replay.bad(row.line, columns.names[wrong[0]], wrong[1])
        cells = row.cells
        field = ""
        try:
            field = "ts"
            ts_ms, cut = time_cell(cells[field].strip())
            field = "value"
            value = _value(replay, columns, row, kinds)
            device, kind = cells.get("device", ""), cells.get("sensorType", own)
            field = "seq"
            if field in cells:
                seq = _own_seq(cells[field], cut=cut)
            else:
                sequence = sequences.get((device, kind))
                if sequence is None:
                    sequence = sequences[device, kind] = Sequence()
                    if len(sequences) > MAX_SERIES:
                        raise replay.bad(row.line, "", f"more than {MAX_SERIES} series")
                seq = sequence.next(ts_ms)
            field = "tags"
            said = _said(columns, row)
        except ValueError as error:
            raise replay.bad(row.line, columns.names[field], str(error)) from error
        for field in ("sensorType", "device"):
            if cells.get(field) == "":
                raise replay.bad(row.line, columns.names[field], f"the {field} is empty")
        yield columns, row, ReplayRow(device, SentPoint(kind, value, ts_ms, seq, **said))


def _own_seq(cell: str, *, cut: bool) -> int:
    if cut:
        raise ValueError(
            "times finer than a millisecond are cut, and two readings of one seq would be one: "
            "without --seq-column they are counted"
        )
    return seq_cell(cell)


def _said(columns: Columns, row: FileRow) -> dict[str, Any]:
    """Return what a row says beside value and identity. An empty cell says nothing, unless it is a text in quotes."""
    said: dict[str, Any] = {}
    for field, name in (*((name, name) for name in ATTRIBUTES), ("receivedAt", "received_at")):
        cell = row.cells.get(field, "")
        if not cell and field not in row.texts:
            continue
        if field == "location":
            said[name] = read_location(cell) if columns.exported else location_cell(cell)
        else:
            said[name] = tags_cell(cell) if field == "tags" else cell
    return said


def _value(replay: Replay, columns: Columns, row: FileRow, kinds: Kinds) -> Value:
    cell = row.cells["value"]
    if columns.exported and replay.value_type == "auto":
        return _exported_value(cell, in_quotes="value" in row.texts)
    kind = kinds.get(row.cells.get("sensorType", ""), "text")
    return value_of(cell, kind, decided=replay.value_type == "auto")


def _exported_value(cell: str, *, in_quotes: bool) -> Value:
    """Return what an export's cell says: a text stands in quotes, and nothing else does."""
    if in_quotes:
        return cell
    if cell in ("true", "false"):
        return cell == "true"
    number = plain_number(cell)
    if number is None:
        raise ValueError(f"{cell[:64]!r} is no value of an export: a text stands in quotes")
    return number


def _is_missing(replay: Replay, row: FileRow) -> bool:
    cell = row.cells["value"]
    return (not cell and "value" not in row.texts) or cell in replay.missing
