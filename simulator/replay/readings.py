"""CSV → READINGS: rows to readings with reproducible identities, in constant memory.

`check_replay` reads the whole file before anything is sent, so that a bad row fails the run at its start.
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
from simulator.reading import DeviceReading, SequenceCounter
from simulator.replay.altered_exports import find_alteration
from simulator.replay.cells import parse_location_cell, parse_seq_cell, parse_tags_cell, parse_time_cell
from simulator.replay.file import Columns, FileRow, Replay, file_rows
from simulator.replay.value_types import Kind, TypeVotes, parse_number, parse_value

MAX_SENSOR_TYPES = 10_000
MAX_SERIES = 100_000
_ROWS_PER_BATCH = 500
# The field that an error is about, by the beginning of its detail.
_FIELD_BY_DETAIL = {
    "seq": "seq",
    **{name: name for name in ATTRIBUTES},
    "lat ": "location",
    "a tag": "tags",
    "at most": "tags",
    "receivedAt": "receivedAt",
}

T = TypeVar("T")
Kinds = Mapping[str, Kind]
"""The type of the values by sensor type; for rows that name none, under ""."""


@dataclass(frozen=True, slots=True)
class CheckedReplay:
    """A validated file: number of readings, their types, and number of devices if it names them."""

    replay: Replay
    readings: int
    kinds: Kinds
    devices: int

    @property
    def names_devices(self) -> bool:
        """True if each row names its device, as in an export."""
        return self.devices > 0


class ReplayRow(msgspec.Struct, frozen=True):
    """A reading, and the device that its row names; empty without such a column."""

    device: str
    reading: DeviceReading


async def check_replay(replay: Replay) -> CheckedReplay:
    """Read and validate the whole file, yielding to the event loop; ReplayError names the first bad row."""
    votes = _KindVotes(replay)
    rows = 0
    for batch in _batches(file_rows(replay)):
        rows += len(batch)
        for columns, row in batch:
            votes.add(columns, row)
        await asyncio.sleep(0)
    if not rows:
        raise ReplayError(f"{replay.path}: the file has no rows")
    kinds = votes.kinds()
    count = 0
    devices: set[str] = set()
    for checked in _batches(_validated(replay, kinds)):
        count += len(checked)
        devices.update(row.device for row in checked)
        await asyncio.sleep(0)
    if not count:
        raise ReplayError(f"{replay.path}: no row has a value: all are empty or given by --missing")
    devices.discard("")
    return CheckedReplay(replay, count, kinds, len(devices))


def replay_readings(
    replay: Replay, sensor_type: str, kinds: Kinds | None = None
) -> Generator[DeviceReading, None, None]:
    """Yield the file's readings in order, in constant memory; `sensor_type` applies to rows that name none.

    `kinds` are those of `check_replay`; without them the file is read once more.
    """
    for row in replay_rows(replay, sensor_type, kinds):
        yield row.reading


def replay_rows(replay: Replay, sensor_type: str, kinds: Kinds | None = None) -> Generator[ReplayRow, None, None]:
    """Yield the file's readings with the devices that the rows name; arguments as for `replay_readings`."""
    if kinds is None:
        votes = _KindVotes(replay)
        for columns, row in file_rows(replay):
            votes.add(columns, row)
        kinds = votes.kinds()
    for _, _, row_reading in _readings(replay, sensor_type, kinds):
        yield row_reading


class _KindVotes:
    """Infers the type of the values of each sensor type from its cells."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._votes: dict[str, TypeVotes] = {}

    def add(self, columns: Columns, row: FileRow) -> None:
        sensor_type = row.cells.get("sensorType", "")
        if columns.exported or self._replay.value_type != "auto" or _is_missing(self._replay, row):
            self._votes.setdefault(sensor_type, TypeVotes())
        else:
            self._votes.setdefault(sensor_type, TypeVotes()).add(row.cells["value"])
        if len(self._votes) > MAX_SENSOR_TYPES:
            raise self._replay.error_at(row.line, "", f"more than {MAX_SENSOR_TYPES} sensor types")

    def kinds(self) -> Kinds:
        chosen = self._replay.value_type
        return {name: votes.kind if chosen == "auto" else chosen for name, votes in self._votes.items()}


def _batches(rows: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(rows, _ROWS_PER_BATCH)):
        yield batch


def _validated(replay: Replay, kinds: Kinds) -> Iterator[ReplayRow]:
    now_ms = time.time_ns() // 1_000_000
    http_encoder, socket_encoder = ExportedReadingEncoder("o", "d", Defaults()), ReadingEncoder("o", "d", Defaults())
    for columns, row, row_reading in _readings(replay, "value", kinds):
        if row_reading.device and not ID_PATTERN.fullmatch(row_reading.device):
            raise replay.error_at(row.line, columns.names["device"], "a device is 1 to 64 of A-Z a-z 0-9 _ . : -")
        try:
            (http_encoder if row_reading.device else socket_encoder).encode_one(
                msgspec.json.encode(row_reading.reading), now_ms
            )
        except ReadingError as error:
            raise _replay_error(replay, columns, row, error) from error
        yield row_reading


def _replay_error(replay: Replay, columns: Columns, row: FileRow, error: ReadingError) -> ReplayError:
    detail = error.detail
    if error.code == "invalid_ts":
        field = "ts"
        detail += "; a whole number means milliseconds since 1970" if row.cells["ts"].isdecimal() else ""
    elif error.code == "invalid_value":
        field = "value"
    else:
        field = next((field for begin, field in _FIELD_BY_DETAIL.items() if detail.startswith(begin)), "sensorType")
    if field == "seq":
        detail += "; larger ones are generated by gateways, and accepted if an export names device and receivedAt"
    return replay.error_at(row.line, columns.names.get(field, ""), detail)


def _readings(replay: Replay, sensor_type: str, kinds: Kinds) -> Iterator[tuple[Columns, FileRow, ReplayRow]]:
    sequences: dict[tuple[str, str], SequenceCounter] = {}
    own = replay.sensor_type or sensor_type
    for columns, row in file_rows(replay):
        if _is_missing(replay, row):
            continue
        if columns.exported and (alteration := find_alteration(row, inferred=replay.value_type == "auto")):
            raise replay.error_at(row.line, columns.names[alteration[0]], alteration[1])
        cells = row.cells
        field = ""
        try:
            field = "ts"
            ts_ms, cut = parse_time_cell(cells[field].strip())
            field = "value"
            value = _value(replay, columns, row, kinds)
            device, kind = cells.get("device", ""), cells.get("sensorType", own)
            field = "seq"
            if field in cells:
                seq = _seq_from_column(cells[field], cut=cut)
            else:
                sequence = sequences.get((device, kind))
                if sequence is None:
                    sequence = sequences[device, kind] = SequenceCounter()
                    if len(sequences) > MAX_SERIES:
                        raise replay.error_at(row.line, "", f"more than {MAX_SERIES} series")
                seq = sequence.next(ts_ms)
            field = "tags"
            fields = _optional_fields(columns, row)
        except ValueError as error:
            raise replay.error_at(row.line, columns.names[field], str(error)) from error
        for field in ("sensorType", "device"):
            if cells.get(field) == "":
                raise replay.error_at(row.line, columns.names[field], f"the {field} is empty")
        yield columns, row, ReplayRow(device, DeviceReading(kind, value, ts_ms, seq, **fields))


def _seq_from_column(cell: str, *, cut: bool) -> int:
    if cut:
        raise ValueError(
            "times finer than a millisecond are cut, so that two readings with the same seq would become one: "
            "without --seq-column seq counts up"
        )
    return parse_seq_cell(cell)


def _optional_fields(columns: Columns, row: FileRow) -> dict[str, Any]:
    """Return the optional fields that a row sets. An empty cell sets nothing, unless it is quoted."""
    fields: dict[str, Any] = {}
    for field, name in (*((name, name) for name in ATTRIBUTES), ("receivedAt", "received_at")):
        cell = row.cells.get(field, "")
        if not cell and field not in row.texts:
            continue
        if field == "location":
            fields[name] = read_location(cell) if columns.exported else parse_location_cell(cell)
        else:
            fields[name] = parse_tags_cell(cell) if field == "tags" else cell
    return fields


def _value(replay: Replay, columns: Columns, row: FileRow, kinds: Kinds) -> Value:
    cell = row.cells["value"]
    if columns.exported and replay.value_type == "auto":
        return _exported_value(cell, in_quotes="value" in row.texts)
    kind = kinds.get(row.cells.get("sensorType", ""), "text")
    return parse_value(cell, kind, inferred=replay.value_type == "auto")


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


def _is_missing(replay: Replay, row: FileRow) -> bool:
    cell = row.cells["value"]
    return (not cell and "value" not in row.texts) or cell in replay.missing
