"""Short questions: the newest of 1,000 series, a page of 100, a live gap of 5,000; beside the earlier version.

All databases have the same readings. The earlier version's has them in one collection; the other two have the older
ones in blocks, and the newer ones from eight seals, which in one are compacted, and in the other wait.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp

from bench.history_blocks import BlockWriter, Compaction, name_series, opened
from bench.history_comparison import Comparison
from bench.history_series import Sensor, insert, interleaved, sensors
from bench.history_setup import HistorySetup, RunningReader, get_json, median_ms, timed
from bench.history_sizes import ZSTD
from bench.processes import BenchError
from bench.report import progress
from bench.targets import MAX_READ_RATIO
from bench.versions import NOW
from readings.collections import READINGS
from storage.codec.columns import Columns
from storage.codec.to_documents import documents_of
from storage.places.names import BLOCKS
from storage.places.state import STATE

SEALS = 8
# Rounds of new readings: one for each seal, and one that stays in `readings`.
NEW_ROUNDS = SEALS + 1
STEP_MS = 60_000
PAGE = 100
# The gap of a live feed: readings of one series, each in a tenth of a second of its own, as feeds send no more.
GAP, GAP_STEP_MS = 5000, 110
GAP_DEVICE = "device-99999"
SERIES_PER_WRITE = 50
DATABASES = {"before": "reads_before", 0: "reads_compacted", SEALS: "reads_waiting"}


@dataclass(frozen=True)
class ReadsEffort:
    """Series, older readings and new ones a round of each, the length of the gap, and how often is asked."""

    series: int
    older: int
    newer: int
    gap: int
    rounds: int
    asked: int


@dataclass
class Readings:
    """The same readings for each database: first the older ones, then round after round."""

    effort: ReadsEffort
    ends_ms: int
    sensors: list[Sensor] = field(init=False)
    gap: Sensor = field(init=False)

    def __post_init__(self) -> None:
        effort = self.effort
        count = effort.older + NEW_ROUNDS * effort.newer
        begin_ms = self.ends_ms - count * STEP_MS
        self.sensors = sensors(effort.series, step_ms=STEP_MS, begin_ms=begin_ms)
        # Twice as many as the gap has.
        begin_ms = self.ends_ms - (self.gap_each * NEW_ROUNDS * 2) * GAP_STEP_MS
        self.gap = Sensor(GAP_DEVICE, "pressure", step_ms=GAP_STEP_MS, begin_ms=begin_ms, jitter_ms=0)

    @property
    def gap_each(self) -> int:
        """Readings of the series with the gap in each round."""
        return -(-self.effort.gap // NEW_ROUNDS)

    def next(self, each: int, of_gap: int) -> list[tuple[Sensor, Columns]]:
        """Return the next readings of each sensor."""
        return [*((one, one.next(each)) for one in self.sensors), (self.gap, self.gap.next(of_gap))]

    def older(self) -> list[tuple[Sensor, Columns]]:
        """Return the older readings."""
        return self.next(self.effort.older, self.gap_each * NEW_ROUNDS)

    def newer(self) -> list[tuple[Sensor, Columns]]:
        """Return those of the next round."""
        return self.next(self.effort.newer, self.gap_each)


def measure_reads(setup: HistorySetup, effort: ReadsEffort) -> list[Comparison]:
    """Fill the databases, and ask in turns."""
    ends_ms = int(time.time() * 1000)
    if setup.base is not None:
        _fill_documents(setup, Readings(effort, ends_ms))
    for waiting in (0, SEALS):
        asyncio.run(_fill_places(setup, Readings(effort, ends_ms), waiting))
    setup.checkpoint()
    with ExitStack() as stack:
        readers: dict[Any, RunningReader] = {}
        if setup.base is not None:
            readers["before"] = stack.enter_context(setup.reader(setup.base, DATABASES["before"]))
        for waiting in (0, SEALS):
            readers[waiting] = stack.enter_context(setup.reader(NOW, DATABASES[waiting]))
        found = asyncio.run(_Questions(effort, Readings(effort, ends_ms)).ask(readers))
    with setup.client() as client:
        for name in DATABASES.values():
            client.drop_database(name)
    return found


def _fill_documents(setup: HistorySetup, readings: Readings) -> None:
    with setup.client() as client:
        database = client[DATABASES["before"]]
        collection = database.create_collection(READINGS, **ZSTD)
        insert(collection, (documents_of(columns) for _, columns in readings.older()))
        for _ in range(NEW_ROUNDS):
            _insert_round(collection, readings)
        database["series"].insert_many([{"_id": one.key} for one in (*readings.sensors, readings.gap)])
    progress("  the documents of the earlier version are stored")


def _insert_round(collection: Any, readings: Readings) -> None:
    *round_, (_, gap) = readings.newer()
    insert(collection, interleaved([columns for _, columns in round_]))
    insert(collection, iter([documents_of(gap)]))


async def _fill_places(setup: HistorySetup, readings: Readings, waiting: int) -> None:
    """Write the older readings to blocks, and seal the newer ones."""
    name = DATABASES[waiting]
    async with opened(setup.mongodb.url, name) as database:
        writer = BlockWriter(database)
        await writer.prepare()
        await name_series(database, [one.key for one in (*readings.sensors, readings.gap)])
        older = [(sensor.key, columns) for sensor, columns in readings.older()]
        for start in range(0, len(older), SERIES_PER_WRITE):
            await writer.write(older[start : start + SERIES_PER_WRITE])
        compaction = Compaction(database)
        await compaction.seal()  # creates the collection
        with setup.client() as client:
            for number in range(NEW_ROUNDS):
                await asyncio.to_thread(_insert_round, client[name][READINGS], readings)
                if number < SEALS:
                    await compaction.seal()
        if not waiting:
            await compaction.compact()
        state = await database[BLOCKS].find_one({"_id": STATE})
    if len(state["waiting"]) != waiting:
        raise BenchError(f"{len(state['waiting'])} sealed collections wait instead of {waiting}")
    progress(f"  the places are filled, and {waiting} sealed collections wait")


class _Questions:
    """Asks each reader the same."""

    def __init__(self, effort: ReadsEffort, readings: Readings) -> None:
        self._effort = effort
        self._series = [(one.device, one.sensor_type) for one in readings.sensors]
        gap = readings.gap
        gap.next(readings.gap_each * NEW_ROUNDS * 2 - effort.gap)
        last_ms = int(gap.next(1).ts[0]) - GAP_STEP_MS
        # When this one had been received, and the next one had not.
        self._last_event = f"{last_ms + GAP_STEP_MS // 2}-{last_ms}-0"

    async def ask(self, readers: dict[Any, RunningReader]) -> list[Comparison]:
        """Ask in turns, and compare the medians."""
        kinds = {
            f"latest of {self._effort.series:,} series": (self._latest, self._effort.asked),
            f"a page of {PAGE}": (self._page, self._effort.asked * 10),
            f"a live gap of {self._effort.gap:,}": (self._gap, self._effort.asked),
        }
        found = []
        for what, (kind, times) in kinds.items():
            taken: dict[Any, list[float]] = {name: [] for name in readers}
            for number in range(self._effort.rounds + 1):
                for name, reader in readers.items():
                    async with reader.session() as session:
                        question: Callable[[], Awaitable[None]] = partial(kind, session, random.Random(number))
                        seconds = await timed(question, times)
                    if number:  # the first round warms up
                        taken[name] += seconds
            medians = {name: median_ms(seconds) for name, seconds in taken.items()}
            progress(f"  {what}: " + ", ".join(f"{name} {value:.1f} ms" for name, value in medians.items()))
            for waiting, at_most in MAX_READ_RATIO.items():
                where = f"{what}, {waiting or 'no'} sealed waiting"
                found.append(Comparison(where, "ms", medians[waiting], medians.get("before"), at_most))
        return found

    async def _latest(self, session: aiohttp.ClientSession, _: random.Random) -> None:
        answer = await get_json(session, "/readings/latest", {"limit": str(min(1000, self._effort.series))})
        if len(answer["items"]) != self._effort.series:
            raise BenchError(f"the newest of {len(answer['items'])} series came")

    async def _page(self, session: aiohttp.ClientSession, rng: random.Random) -> None:
        device, sensor_type = rng.choice(self._series)
        query = {"device": device, "sensorType": sensor_type, "order": "desc", "limit": str(PAGE)}
        answer = await get_json(session, "/readings", query)
        if len(answer["items"]) != PAGE:
            raise BenchError(f"a page has {len(answer['items'])} readings")

    async def _gap(self, session: aiohttp.ClientSession, _: random.Random) -> None:
        query = {"device": GAP_DEVICE, "sensorType": "pressure"}
        left = self._effort.gap
        async with session.get("/live", params=query, headers={"Last-Event-ID": self._last_event}) as answer:
            if answer.status != 200:
                raise BenchError(f"/live: {answer.status} {(await answer.text())[:300]}")
            rest = b""
            async for part in answer.content.iter_any():
                lines = (rest + part).split(b"\n")
                rest = lines.pop()
                left -= sum(line.startswith(b"data:") for line in lines)
                if left <= 0:
                    return
        raise BenchError(f"a live gap lacks {left} readings")
