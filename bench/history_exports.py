"""Exports of one series: rows a second of the reader's processor time, CSV and Parquet beside the earlier CSV."""

import io
from collections.abc import Callable
from statistics import median

import pyarrow.parquet

from bench.history_comparison import Comparison
from bench.history_series import BEGIN_MS, DAY_MS, Sensor
from bench.history_setup import RunningReader
from bench.processes import BenchError
from bench.report import progress
from bench.targets import MIN_CSV_RATIO, MIN_PARQUET_RATIO

ROUNDS = 3
ROWS_A_DAY = DAY_MS // 1000


async def measure_exports(
    now: RunningReader, before: RunningReader | None, sensor: Sensor, days: tuple[int, int]
) -> list[Comparison]:
    """Export the first `days` of a sensor: this version's, and the earlier one's."""
    rates: dict[str, list[float]] = {"csv": [], "parquet": [], "before": []}
    for _ in range(ROUNDS):
        for name in ("csv", "parquet"):
            rates[name].append(await _rows_per_cpu_second(now, sensor, days[0], name))
        if before is not None:
            rates["before"].append(await _rows_per_cpu_second(before, sensor, days[1], "csv"))
        progress("  export: " + ", ".join(f"{name} {found[-1]:,.0f}" for name, found in rates.items() if found))
    other = median(rates["before"]) if before is not None else None
    unit = "rows a second of a core"
    return [
        Comparison("export, CSV", unit, median(rates["csv"]), other, at_least=MIN_CSV_RATIO),
        Comparison("export, Parquet", unit, median(rates["parquet"]), other, at_least=MIN_PARQUET_RATIO),
    ]


async def _rows_per_cpu_second(reader: RunningReader, sensor: Sensor, days: int, name: str) -> float:
    """Export once; BenchError if rows are missing."""
    query = {
        "device": sensor.device,
        "sensorType": sensor.sensor_type,
        "format": name,
        "from": str(BEGIN_MS),
        "to": str(BEGIN_MS + days * DAY_MS),
    }
    body = bytearray()
    before = reader.process.cpu_s()
    async with reader.session() as session, session.get("/readings", params=query) as answer:
        if answer.status != 200:
            raise BenchError(f"export: {answer.status} {(await answer.text())[:300]}")
        async for part in answer.content.iter_any():
            body += part
    used = reader.process.cpu_s() - before
    rows = COUNT[name](body)
    if rows != days * ROWS_A_DAY:
        raise BenchError(f"an export as {name} has {rows:,} rows instead of {days * ROWS_A_DAY:,}")
    return rows / max(used, 0.01)


def _csv_rows(body: bytearray) -> int:
    return body.count(b"\n") - 1


def _parquet_rows(body: bytearray) -> int:
    return int(pyarrow.parquet.read_metadata(io.BytesIO(bytes(body))).num_rows)


COUNT: dict[str, Callable[[bytearray], int]] = {"csv": _csv_rows, "parquet": _parquet_rows}
