"""FILE → READINGS: rows to readings with reproducible identities, in constant memory.

`check_replay` reads the whole file before anything is sent, so that a bad row fails the run at its start, or with
`keep_going` is left out, and counted.
"""

import asyncio
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import msgspec

from readings.encoder import ReadingEncoder
from readings.exported import ExportedReadingEncoder
from readings.reading import ATTRIBUTES, ID_PATTERN, Defaults, ReadingError
from runtime.times import rfc3339
from simulator.errors import ReplayError
from simulator.reading import DeviceReading
from simulator.replay.exports import ndjson_rows, parquet_rows
from simulator.replay.file import Replay
from simulator.replay.row import ReadingRow, RowResult
from simulator.replay.survey import Survey, survey, survey_at_once
from simulator.replay.table_readings import TableReadings

MAX_SERIES = 100_000
_ROWS_AT_ONCE = 500
# The field that an error is about, by the beginning of its detail.
_FIELD_BY_DETAIL = {
    "seq": "seq",
    **{name: name for name in ATTRIBUTES},
    "lat ": "location",
    "a tag": "tags",
    "at most": "tags",
    "receivedAt": "receivedAt",
}


OnRefusal = Callable[[ReplayError], None]
OnSurvey = Callable[[Replay, Survey], None]
"""Called with a file and how it will be read, before its rows are checked."""


@dataclass(slots=True)
class RowCounts:
    """What the rows of a file are: `rows` is the sum of the others.

    All values of a `complete` row are readings, of a `partial` one some are refused, of a `refused` one all; an `empty`
    one has none.
    """

    rows: int = 0
    complete: int = 0
    partial: int = 0
    empty: int = 0
    refused: int = 0

    def add(self, result: RowResult) -> None:
        """Count a row."""
        self.rows += 1
        if not result.refusals:
            self.complete += bool(result.readings)
            self.empty += not result.readings
        else:
            self.partial += bool(result.readings)
            self.refused += not result.readings


@dataclass(frozen=True, slots=True)
class CheckedReplay:
    """A validated file: how it is read, the number of its readings, and of devices if it names them."""

    replay: Replay
    survey: Survey
    readings: int
    devices: int
    rows: RowCounts
    series: dict[tuple[str, str], "SeriesSpan"] = field(default_factory=dict)
    keep_going: bool = False

    @property
    def names_devices(self) -> bool:
        """True if each row names its device, as in an export."""
        return self.devices > 0


@dataclass(slots=True)
class SeriesSpan:
    """The number of readings of a series in a file, and their first and last time, in milliseconds since 1970."""

    readings: int
    first_ms: int
    last_ms: int


async def check_replay(
    replay: Replay,
    *,
    keep_going: bool = False,
    on_survey: OnSurvey = lambda *_: None,
    on_refusal: OnRefusal = lambda _: None,
) -> CheckedReplay:
    """Read and validate the whole file, yielding to the event loop; ReplayError names the first bad row.

    With `keep_going` bad rows are given to `on_refusal` instead.
    """
    found = await survey(replay)
    on_survey(replay, found)
    counts, series, number = RowCounts(), dict[tuple[str, str], SeriesSpan](), 0
    for result in _validated(replay, found):
        if result.refusals and not keep_going:
            raise result.refusals[0]
        for refusal in result.refusals:
            on_refusal(refusal)
        counts.add(result)
        for row in result.readings:
            number += 1
            _add_to_series(replay, series, row)
        if counts.rows % _ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
    if not counts.rows:
        raise ReplayError(f"{replay.path}: the file has no rows")
    if not number and not counts.refused:
        raise ReplayError(f"{replay.path}: no row has a value: all are empty or given by --missing")
    devices = {device for device, _ in series} - {""}
    return CheckedReplay(replay, found, number, len(devices), counts, series, keep_going)


def replay_readings(
    replay: Replay, sensor_type: str, found: Survey | None = None
) -> Generator[DeviceReading, None, None]:
    """Yield the file's readings in order, in constant memory; `sensor_type` applies to rows that name none.

    `found` is that of `check_replay`; without it the file is read once more. Raises ReplayError at a bad row.
    """
    for row in replay_rows(replay, sensor_type, found):
        yield row.reading


def replay_rows(
    replay: Replay, sensor_type: str, found: Survey | None = None, *, keep_going: bool = False
) -> Generator[ReadingRow, None, None]:
    """Yield the file's readings with the devices that the rows name; arguments as for `replay_readings`.

    With `keep_going` rows are left out if `check_replay` refused them.
    """
    found = survey_at_once(replay) if found is None else found
    for result in _validated(replay, found) if keep_going else _results(replay, found, sensor_type):
        if result.refusals and not keep_going:
            raise result.refusals[0]
        yield from result.readings


def _add_to_series(replay: Replay, series: dict[tuple[str, str], SeriesSpan], row: ReadingRow) -> None:
    key, ts_ms = (row.device, row.reading.sensor_type), row.reading.ts
    span = series.get(key)
    if span is None:
        if len(series) >= MAX_SERIES:
            raise replay.error_at(row.line, "", f"more than {MAX_SERIES} series")
        series[key] = SeriesSpan(1, ts_ms, ts_ms)
    else:
        span.readings += 1
        span.first_ms, span.last_ms = min(span.first_ms, ts_ms), max(span.last_ms, ts_ms)


def _results(replay: Replay, found: Survey, sensor_type: str) -> Iterator[RowResult]:
    if found.form == "ndjson":
        return ndjson_rows(replay)
    if found.form == "parquet":
        return parquet_rows(replay)
    return TableReadings(replay, found, sensor_type).results()


def _validated(replay: Replay, found: Survey) -> Iterator[RowResult]:
    """Yield rows whose readings a gateway would take; others are refused."""
    now_ms = time.time_ns() // 1_000_000
    http_encoder, socket_encoder = ExportedReadingEncoder("o", "d", Defaults()), ReadingEncoder("o", "d", Defaults())
    for result in _results(replay, found, "value"):
        refusals = list(result.refusals)
        good = []
        for row in result.readings:
            if row.device and not ID_PATTERN.fullmatch(row.device):
                error = ReadingError("forbidden", "a device is 1 to 64 of A-Z a-z 0-9 _ . : -")
                refusals.append(_refusal(replay, found, row, error))
                continue
            encoder = http_encoder if row.device else socket_encoder
            try:
                encoder.encode_one(msgspec.json.encode(row.reading), now_ms)
            except ReadingError as error:
                refusals.append(_refusal(replay, found, row, error))
                if error.code == "invalid_ts":  # the time is that of the whole row
                    break
            else:
                good.append(row)
        yield RowResult(result.line, good, refusals)


def _refusal(replay: Replay, found: Survey, row: ReadingRow, error: ReadingError) -> ReplayError:
    """Return why a gateway would not take a reading, with the column that it is about."""
    detail = error.detail
    if error.code == "forbidden":
        name = "device"
    elif error.code == "invalid_ts":
        name = "ts"
        detail = f"{rfc3339(row.reading.ts)}: {detail}"
    elif error.code == "invalid_value":
        name = "value"
    else:
        name = next((name for begin, name in _FIELD_BY_DETAIL.items() if detail.startswith(begin)), "sensorType")
    if name == "seq":
        detail += "; larger ones are generated by gateways, and accepted if an export names device and receivedAt"
    if found.layout is None:
        return replay.error_at(row.line, "", detail)
    layout, sensor_type = found.layout, row.reading.sensor_type
    if name == "value":
        named = (column.name for column in layout.values if column.sensor_type == sensor_type)
        return replay.error_at(row.line, next(named, layout.name_of("value")), detail)
    return replay.error_at(row.line, layout.name_of(name), detail)
