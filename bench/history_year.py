"""A year of a sensor of 1 Hz: buckets of a week, a month and all of it, warm and cold, and exports."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

import aiohttp

from bench.history_blocks import BlockWriter, name_series, opened
from bench.history_comparison import COMMIT, Comparison
from bench.history_exports import measure_exports
from bench.history_series import BEGIN_MS, DAY_MS, Sensor, insert, measurements_of, time_series
from bench.history_setup import HistorySetup, RunningReader, get_json, median_ms, reconnect, timed
from bench.history_sizes import ZSTD
from bench.processes import BenchError
from bench.report import progress
from bench.targets import MAX_COLD_RATIO, MAX_WARM_RATIO, MAX_WEEK_RATIO
from bench.versions import NOW
from readings.collections import READINGS
from readings.keys import Key
from storage.codec.columns import Columns
from storage.codec.to_documents import documents_of

READINGS_A_DAY = DAY_MS // 1000
# So many are given to the writer at a time: blocks are 8,192 of them.
WRITTEN_AT_ONCE = 262_144
NOW_DATABASE, BASE_DATABASE, TIME_SERIES_DATABASE = "year_now", "year_before", "year_time_series"


@dataclass(frozen=True)
class YearEffort:
    """The days of each range, and how often each question is asked; documents are stored for a week only."""

    week: int
    month: int
    year: int
    asked: int
    asked_cold: int
    exported: int


@dataclass(frozen=True)
class Question:
    """Buckets of the first days of the sensor."""

    days: int
    every: str

    @property
    def name(self) -> str:
        """Its name in the results."""
        return f"{'hourly' if self.every == '1h' else 'daily'} buckets of {self.days} days"

    def query(self, sensor: Sensor) -> dict[str, str]:
        """Return the query of `GET /readings/buckets`."""
        end = str(BEGIN_MS + self.days * DAY_MS)
        names = {"device": sensor.device, "sensorType": sensor.sensor_type, "every": self.every}
        return names | {"from": str(BEGIN_MS), "to": end}


def new_sensor() -> Sensor:
    """Return the sensor, from its first reading on. Without jitter: each range has its own number of readings."""
    return Sensor("device-00000", "temperature", step_ms=1000, decimals=2, jitter_ms=0)


def measure_year(setup: HistorySetup, effort: YearEffort) -> list[Comparison]:
    """Fill the three databases, and measure buckets and exports."""
    _fill(setup, effort)
    with ExitStack() as stack:
        now = stack.enter_context(setup.reader(NOW, NOW_DATABASE))
        before = None if setup.base is None else stack.enter_context(setup.reader(setup.base, BASE_DATABASE))
        found = asyncio.run(_Buckets(setup, effort, now, before).measure())
        ranges = (effort.exported, effort.week)
        found += asyncio.run(measure_exports(now, before, new_sensor(), ranges))
    with setup.client() as client:
        for name in (NOW_DATABASE, BASE_DATABASE, TIME_SERIES_DATABASE):
            client.drop_database(name)
    return found


def _fill(setup: HistorySetup, effort: YearEffort) -> None:
    started = time.perf_counter()
    count = asyncio.run(_fill_blocks(setup, effort.year * READINGS_A_DAY))
    progress(f"  {count:,} readings are in blocks after {time.perf_counter() - started:.0f} s")
    with setup.client() as client:
        if setup.base is not None:
            collection = client[BASE_DATABASE].create_collection(READINGS, **ZSTD)
            insert(collection, (documents_of(part) for part in _parts(effort.week * READINGS_A_DAY)))
            client[BASE_DATABASE]["series"].insert_one({"_id": new_sensor().key})
        collection, key = time_series(client[TIME_SERIES_DATABASE], READINGS), new_sensor().key
        insert(collection, (measurements_of(part, key) for part in _parts(effort.month * READINGS_A_DAY)))
    setup.checkpoint()
    progress(f"  a week of documents and a month of a time-series collection, {time.perf_counter() - started:.0f} s")


def _parts(count: int) -> Iterator[Columns]:
    sensor = new_sensor()
    for start in range(0, count, WRITTEN_AT_ONCE):
        yield sensor.next(min(WRITTEN_AT_ONCE, count - start))


async def _fill_blocks(setup: HistorySetup, count: int) -> int:
    written, key = 0, new_sensor().key
    async with opened(setup.mongodb.url, NOW_DATABASE) as database:
        writer = BlockWriter(database)
        await writer.prepare()
        await name_series(database, [key])
        for part in _parts(count):
            written += await writer.write([(key, part)])
    return written


class _Buckets:
    """Asks both readers, and mongod for the time-series collection."""

    def __init__(
        self, setup: HistorySetup, effort: YearEffort, now: RunningReader, before: RunningReader | None
    ) -> None:
        self._setup = setup
        self._effort = effort
        self._now = now
        self._before = before
        self._sensor = new_sensor()
        self._week = Question(effort.week, "1h")
        self._long = (Question(effort.month, "1h"), Question(effort.year, "1d"))

    async def measure(self) -> list[Comparison]:
        """Measure warm, then with empty caches."""
        day_ms = week_ms = None
        if self._before is not None:
            async with self._before.session() as session:
                day_ms = median_ms(await self._asked(session, Question(1, "1h"), 3))
                week_ms = median_ms(await self._asked(session, self._week, 3))
            progress(f"  before: hourly buckets of a day {day_ms:,.0f} ms, of {self._week.days} {week_ms:,.0f} ms")
        async with self._now.session() as session:
            warm = {one: median_ms(await self._asked(session, one, self._effort.asked)) for one in self._questions()}
            cold: dict[Question, list[float]] = {one: [] for one in self._long}
            for _ in range(self._effort.asked_cold):
                for one in self._long:
                    await asyncio.to_thread(self._setup.empty_caches)
                    await reconnect(session)
                    cold[one] += await self._asked(session, one, 1, warm_up=False)
        found = [self._compared(self._week, warm[self._week], week_ms, MAX_WEEK_RATIO)]
        for one in self._long:
            found.append(self._compared(one, warm[one], day_ms, MAX_WARM_RATIO))
            found.append(self._compared(one, median_ms(cold[one]), day_ms, MAX_COLD_RATIO, ", cold"))
        return found

    def _questions(self) -> tuple[Question, ...]:
        return (self._week, *self._long)

    def _compared(
        self, one: Question, now_ms: float, other_ms: float | None, at_most: float, what: str = ""
    ) -> Comparison:
        other = None if what or one.days > self._effort.month else self._of_time_series(one)
        against = COMMIT if one is self._week else f"{COMMIT}, hourly buckets of 1 day"
        name = f"{one.name}{what}"
        found = Comparison(name, "ms", now_ms, other_ms, at_most, against=against, time_series=other)
        progress(f"  {found.what}: {found.row()}")
        return found

    async def _asked(
        self, session: aiohttp.ClientSession, one: Question, times: int, *, warm_up: bool = True
    ) -> list[float]:
        """Return the seconds of each answer; BenchError if one has not counted every reading."""

        async def ask() -> None:
            answer = await get_json(session, "/readings/buckets", one.query(self._sensor))
            counted = sum(bucket["count"] for bucket in answer["items"])
            if counted != one.days * READINGS_A_DAY:
                raise BenchError(f"{one.name} have {counted:,} readings")

        if warm_up:
            await ask()
        return await timed(ask, times)

    def _of_time_series(self, one: Question) -> float:
        """Return the milliseconds of the same aggregation in the time-series collection."""
        with self._setup.client() as client:
            collection = client[TIME_SERIES_DATABASE][READINGS]
            pipeline = time_series_buckets(self._sensor.key, one.days)
            collection.aggregate(pipeline).to_list()
            taken = []
            for _ in range(3):
                started = time.perf_counter()
                counted = sum(bucket["count"] for bucket in collection.aggregate(pipeline))
                taken.append(time.perf_counter() - started)
        if counted != one.days * READINGS_A_DAY:
            raise BenchError(f"{one.name} of the time-series collection have {counted:,} readings")
        return median(taken) * 1000


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def time_series_buckets(key: Key, days: int) -> list[dict[str, Any]]:
    """Return the aggregation that a user would write for hourly buckets of the first days of a series."""
    begin = _date(BEGIN_MS)
    series = {f"series.{name}": value for name, value in key.items()}
    statistics = {name: {f"${name}": "$value"} for name in ("min", "max", "avg")}
    return [
        {"$match": {**series, "ts": {"$gte": begin, "$lt": _date(BEGIN_MS + days * DAY_MS)}}},
        {"$group": {"_id": {"$dateTrunc": {"date": "$ts", "unit": "hour"}}, "count": {"$sum": 1}, **statistics}},
        {"$sort": {"_id": 1}},
    ]
