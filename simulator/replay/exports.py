"""EXPORT → READINGS: NDJSON and Parquet as `GET /readings` gives them, in constant memory.

NDJSON may also be what devices send: readings without `device`, for `--device`.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from readings.reading import Attributes, ReadingError, Value, parse_time
from simulator.errors import ReplayError
from simulator.reading import DeviceReading
from simulator.replay.detect import not_text
from simulator.replay.file import Replay
from simulator.replay.row import ReadingRow, RowResult
from simulator.replay.source import open_text, readable

_EPOCH = datetime.fromtimestamp(0, UTC)
_BATCH_ROWS = 4096
# The attributes whose column of Parquet has JSON.
_JSON_COLUMNS = ("location", "tags")
_VALUE_COLUMNS = ("valueNumber", "valueInteger", "valueBoolean", "valueText")
_REQUIRED = ("device", "sensorType", "ts", "seq", *_VALUE_COLUMNS, "receivedAt")


class _Line(Attributes, rename="camel", frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A line of NDJSON. `end` and `count` are those of the last line."""

    device: str = ""
    sensor_type: str = ""
    ts: int | str | UnsetType = UNSET
    seq: int = 0
    value: Value | UnsetType = UNSET
    received_at: str | UnsetType = UNSET
    end: bool = False
    count: int = 0


_decoder = msgspec.json.Decoder(_Line)


def ndjson_rows(replay: Replay) -> Iterator[RowResult]:
    """Yield the readings of NDJSON by line, or why a line is none. Raises ReplayError."""
    number = count = 0
    with readable(replay), open_text(replay) as file:
        try:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    line = _decoder.decode(text)
                    if line.end:
                        _check_end(replay, number, line.count, count)
                        count = 0
                        continue
                    row = _row_of(replay, line, number)
                except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, ReadingError) as error:
                    yield RowResult(number, [], [replay.error_at(number, "", f"not a reading: {error}")])
                else:
                    yield RowResult(number, [row], [])
                count += 1
        except (UnicodeError, LookupError) as error:
            raise not_text(replay, number, error) from error


def _check_end(replay: Replay, number: int, wanted: int, count: int) -> None:
    if wanted != count:
        raise replay.error_at(number, "", f"the export ends with {wanted} readings, but {count} precede it")


def _row_of(replay: Replay, line: _Line, number: int) -> ReadingRow:
    if line.ts is UNSET or line.value is UNSET:
        raise ValueError("ts and value are required")
    ts_ms = line.ts if isinstance(line.ts, int) else parse_time(line.ts)
    fields = {name: getattr(line, name) for name in Attributes.__struct_fields__}
    device = _device(replay, line.device)
    received_at = line.received_at if device else UNSET
    sensor_type = replay.sensor_type or line.sensor_type
    return ReadingRow(device, DeviceReading(sensor_type, line.value, ts_ms, line.seq, received_at, **fields), number)


def _device(replay: Replay, device: str) -> str:
    """Return the device to send a reading as; empty: a simulated one."""
    return replay.device or ("" if replay.device_column == "" else device)


def parquet_rows(replay: Replay) -> Iterator[RowResult]:
    """Yield the readings of a Parquet file by row, from 1. Raises ReplayError."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - 40 MB, which only this form needs
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise replay.error("reading Parquet needs pyarrow, which is not installed") from error
    number = 0
    with readable(replay):
        try:
            with parquet.ParquetFile(str(replay.path), pre_buffer=False) as file:
                names = set(file.schema_arrow.names)
                if missing := [name for name in _REQUIRED if name not in names]:
                    raise replay.error(f"not an export of Tidegate's: there is no column {missing[0]!r}")
                for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                    for row in batch.to_pylist():
                        number += 1
                        yield _parquet_row(replay, row, number)
        except (pa.ArrowException, ValueError) as error:
            raise replay.error(f"the Parquet file is cut off or broken: {error}") from error


def _parquet_row(replay: Replay, row: dict[str, Any], number: int) -> RowResult:
    values = [row[name] for name in _VALUE_COLUMNS if row[name] is not None]
    if not values:
        return RowResult(number, [], [])
    try:
        fields = {
            name: msgspec.convert(json.loads(row[name]) if name in _JSON_COLUMNS else row[name], _types[name])
            for name in _types
            if row.get(name) is not None
        }
        received = row["receivedAt"]
        device = _device(replay, row["device"])
        reading = DeviceReading(
            replay.sensor_type or row["sensorType"],
            values[0],
            _milliseconds(row["ts"]),
            row["seq"],
            _in_utc(received).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            if device and received is not None
            else UNSET,
            **fields,
        )
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        return RowResult(number, [], [_parquet_error(replay, number, error)])
    return RowResult(number, [ReadingRow(device, reading, number)], [])


def _parquet_error(replay: Replay, number: int, error: Exception) -> ReplayError:
    return ReplayError(f"{replay.path}: row {number}: {error}", line=number, reason=str(error))


def _milliseconds(ts: datetime) -> int:
    since = _in_utc(ts) - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000


def _in_utc(moment: datetime) -> datetime:
    """Return a time with its zone; one that another program has written without is UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_types = {field.name: field.type for field in msgspec.structs.fields(Attributes)}
