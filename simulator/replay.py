"""CSV → READINGS: streams a file of any size, row by row, into readings with reproducible identities.

`check_replay` reads the whole file once before anything is sent, so that a bad row stops the run and not its middle.
"""

import asyncio
import csv
import re
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from broker.reading import Defaults, ReadingError, Value, check_one, parse_time
from simulator.errors import ReplayError
from simulator.point import SentPoint
from simulator.sequence import Sequence

_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_PLAIN_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,3})?", re.ASCII)
# `2**63` has 19 digits; beyond some more, Python refuses to convert.
_MAX_DIGITS = 40
MAX_SENSOR_TYPES = 10_000
_ROWS_A_TURN = 500


@dataclass(frozen=True, slots=True)
class Replay:
    """A CSV file and the names of its columns; without a sensor type column, rows have the device's own type."""

    path: Path
    time_column: str = "timestamp"
    value_column: str = "value"
    sensor_type_column: str | None = None


async def check_replay(replay: Replay) -> int:
    """Read the whole file and return its number of rows; ReplayError names the first bad row. Gives way to others."""
    rows = _checked(replay)
    total = 0
    while count := sum(1 for _ in islice(rows, _ROWS_A_TURN)):
        total += count
        await asyncio.sleep(0)
    if not total:
        raise ReplayError(f"{replay.path}: the file has no rows")
    return total


def replay_points(replay: Replay, sensor_type: str) -> Generator[SentPoint, None, None]:
    """Yield the file's readings in order; `sensor_type` is for rows that name none. Constant memory."""
    for _, point in _numbered(replay, sensor_type):
        yield point


def _checked(replay: Replay) -> Iterator[SentPoint]:
    columns = {"invalid_ts": replay.time_column, "invalid_value": replay.value_column}
    now_ms = time.time_ns() // 1_000_000
    for line, point in _numbered(replay, "value"):
        try:
            check_one(msgspec.json.encode(point), Defaults(), now_ms)
        except ReadingError as error:
            column = columns.get(error.code, replay.sensor_type_column or replay.value_column)
            raise _bad(replay, line, column, error.detail) from error
        yield point


def _numbered(replay: Replay, sensor_type: str) -> Iterator[tuple[int, SentPoint]]:
    sequences: dict[str, Sequence] = {}
    line = 1
    try:
        with replay.path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            places = _places(replay, next(rows, []))
            for row in rows:
                line = rows.line_num
                if row:
                    ts_ms, value, kind = _row(replay, line, row, places)
                    kind = kind or sensor_type
                    sequence = sequences.get(kind)
                    if sequence is None:
                        sequence = sequences[kind] = Sequence()
                        if len(sequences) > MAX_SENSOR_TYPES:
                            raise _bad(replay, line, "", f"more than {MAX_SENSOR_TYPES} sensor types")
                    yield line, SentPoint(kind, value, ts_ms, sequence.next(ts_ms))
    except OSError as error:
        raise ReplayError(f"{replay.path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ReplayError(f"{replay.path}: after line {line}: the file is not UTF-8") from error
    except csv.Error as error:
        raise ReplayError(f"{replay.path}: after line {line}: {error}") from error


def _places(replay: Replay, header: list[str]) -> list[int]:
    names = [name.strip() for name in header]
    places = []
    for column in (replay.time_column, replay.value_column, replay.sensor_type_column):
        if column is None:
            continue
        if column not in names:
            raise _bad(replay, 1, column, f"there is no such column; the file has {', '.join(names) or 'none'}")
        places.append(names.index(column))
    return places


def _row(replay: Replay, line: int, row: list[str], places: list[int]) -> tuple[int, Value, str]:
    columns = (replay.time_column, replay.value_column, replay.sensor_type_column or "")
    try:
        fields = [row[place].strip() for place in places]
    except IndexError:
        missing = next(column for column, place in zip(columns, places, strict=False) if place >= len(row))
        raise _bad(replay, line, missing, f"the row has only {len(row)} fields") from None
    try:
        ts_ms = _time(fields[0])
    except (ReadingError, ValueError) as error:
        raise _bad(replay, line, columns[0], f"{fields[0][:64]!r} is no time: {error}") from error
    try:
        value = _value(fields[1])
    except ValueError as error:
        raise _bad(replay, line, columns[1], str(error)) from error
    if len(fields) > 2 and not fields[2]:
        raise _bad(replay, line, columns[2], "the sensor type is empty")
    return ts_ms, value, fields[2] if len(fields) > 2 else ""


def _time(text: str) -> int:
    if _PLAIN_TIME.fullmatch(text):
        return parse_time(f"{text[:10]}T{text[11:]}Z")
    if len(text) <= _MAX_DIGITS and _INTEGER.fullmatch(text):
        return int(text)
    return parse_time(text)


def _value(text: str) -> Value:
    if not text:
        raise ValueError("the value is empty")
    if len(text) <= _MAX_DIGITS and _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    lower = text.lower() if len(text) <= 5 else ""
    if lower in ("true", "false"):
        return lower == "true"
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text!r} is not a finite number")
    return text


def _bad(replay: Replay, line: int, column: str, why: str) -> ReplayError:
    where = f", column {column!r}" if column else ""
    return ReplayError(f"{replay.path}: line {line}{where}: {why}")
