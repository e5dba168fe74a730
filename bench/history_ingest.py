"""What sealing and blocks cost the pipeline: both versions in turns, latencies through seals, mongod beside blocks."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.history_blocks import BlockWriter, opened
from bench.history_comparison import Comparison
from bench.history_series import Sensor
from bench.history_setup import HistorySetup
from bench.history_storage import SampledStorage
from bench.history_systems import running_version
from bench.measurements import Measurement, Measurements, Workload, measure_system, print_measurement
from bench.preload import DEVICES, SENSORS, SERIES, Preloader
from bench.processes import BenchError
from bench.report import progress
from bench.systems import SharedServers, System
from bench.targets import MAX_BLOCKS_RATIO, MAX_INGEST_RATIO, MAX_SEAL_RATIO, W1, W100
from bench.versions import NOW
from storage.places.names import BLOCKS, COLUMNS, PIECES
from storage.places.state import STATE

CONNECTIONS = 20
WORKLOADS = {"W1": W1, "W100": W100}
SEALS = 5
# A persister checks once a second whether a seal is due, so each comes half a second late.
SPARE_SEALS = 1.5
BLOCK_WRITES = 16_384
SERIES_PER_WRITE = 50


@dataclass(frozen=True)
class IngestEffort:
    """Turns of both versions, those through seals, and those beside blocks; their seconds; readings in two places."""

    rounds: int
    sealed_rounds: int
    block_rounds: int
    seconds: float
    sealed_seconds: float
    hot: int
    in_blocks: int


@dataclass
class Pipelines:
    """What the pipelines of this run take; other parts of the benchmark compare with it."""

    now: dict[str, Measurements]
    before: dict[str, Measurements]


def measure_pipelines(
    setup: HistorySetup, servers: SharedServers, effort: IngestEffort, idle: dict[str, float]
) -> tuple[Pipelines, list[Comparison]]:
    """Measure W1 and W100 while nothing is compacted, in turns: their order changes from round to round."""
    found: dict[str, dict[str, Measurements]] = {
        version.name: {name: Measurements() for name in WORKLOADS} for version in setup.versions
    }
    with ExitStack() as stack:
        systems = {
            version.name: stack.enter_context(running_version(servers, version, f"ingest_{version.name}", CONNECTIONS))
            for version in setup.versions
        }
        for number in range(effort.rounds + 1):
            for name, workload in WORKLOADS.items():
                order = list(systems) if number % 2 else list(reversed(systems))
                for version in order:
                    one = measure_system(systems[version], workload, effort.seconds, idle)
                    if number:  # the first round warms up
                        found[version][name].all.append(one)
                        print_measurement(f"{name}, {version}", one)
    pipelines = Pipelines(found[NOW.name], found["before"] if setup.base is not None else {})
    return pipelines, [
        Comparison(
            f"{name}, all processes, nothing is compacted",
            "µs a reading",
            pipelines.now[name].total_us,
            pipelines.before[name].total_us if name in pipelines.before else None,
            MAX_INGEST_RATIO,
        )
        for name in WORKLOADS
    ]


def measure_seals(
    setup: HistorySetup, servers: SharedServers, effort: IngestEffort, pipelines: Pipelines
) -> list[Comparison]:
    """Measure acknowledgements and the time to storage at half of saturation, without seals and through five."""
    found = []
    for name, workload in WORKLOADS.items():
        rate = pipelines.now[name].per_second / workload.size / 2
        seal_readings = rate * workload.size * effort.sealed_seconds / (SEALS + SPARE_SEALS)
        runs: dict[float, list[Latencies]] = {0: [], seal_readings: []}
        for _ in range(effort.sealed_rounds):
            for each, latencies in runs.items():
                latencies.append(_through_seals(setup, servers, workload, rate, effort.sealed_seconds, each))
                progress(f"  {name}: {latencies[-1]}")
        without, sealed = (_medians(latencies) for latencies in runs.values())
        what, limit = f"{name}, through {sealed.seals} seals", MAX_SEAL_RATIO
        same: dict[str, Any] = {"against": "the same without seals"}
        found += [
            Comparison(f"{what}: acknowledged, p99", "ms", sealed.acknowledged, without.acknowledged, limit, **same),
            Comparison(f"{what}: stored, p99", "ms", sealed.stored, without.stored, limit, **same),
        ]
    return found


@dataclass(frozen=True)
class Latencies:
    """Milliseconds until 99 % were acknowledged, and until 99 % of the sampled ones were stored."""

    acknowledged: float
    stored: float
    seals: int


def _medians(runs: list[Latencies]) -> Latencies:
    return Latencies(
        median(one.acknowledged for one in runs),
        median(one.stored for one in runs),
        round(median(one.seals for one in runs)),
    )


def _through_seals(
    setup: HistorySetup, servers: SharedServers, workload: Workload, rate: float, seconds: float, seal_readings: float
) -> Latencies:
    """Run at a rate of events; `seal_readings` 0: nothing is sealed."""
    settings = {"SEAL_READINGS": str(round(seal_readings))} if seal_readings else {}
    database = f"seals_{workload.size}_{'sealed' if seal_readings else 'unsealed'}"
    servers.fresh(database)
    with running_version(servers, NOW, database, CONNECTIONS, None, **settings) as system:
        system.load.request(workload.command(1.0, rate))
        servers.flush_writes()
        with SampledStorage(setup.environment, servers.client[database], system, sealing=True) as sampled:
            system.load.send(workload.command(seconds, rate))
            stored = sampled.p99_ms(seconds)
            ran = system.load.receive()
        if ran["refused"] or ran["unanswered"] or ran["lost"]:
            raise BenchError(f"not everything was accepted: {ran}")
    state = servers.client[database][BLOCKS].find_one({"_id": STATE}) or {}
    servers.client.drop_database(database)
    return Latencies(ran["p99Ms"], stored, len(state.get("waiting", ())))


def measure_beside_blocks(servers: SharedServers, effort: IngestEffort, idle: dict[str, float]) -> list[Comparison]:
    """Measure mongod's part of W1 with the same `readings`: without blocks, with them, and without them again."""
    database = "beside_blocks"
    workload = Workload("W1 beside blocks", W1.size, W1.connections, W1.in_flight, SERIES)
    with running_version(servers, NOW, database, CONNECTIONS) as system:
        first = _mongod_us(system, workload, effort, idle)
        written = asyncio.run(_write_blocks(servers, database, effort.in_blocks))
        servers.checkpoint()
        with_blocks = _mongod_us(system, workload, effort, idle)
        for name in (BLOCKS, COLUMNS, PIECES):
            servers.client[database].drop_collection(name)
        second = _mongod_us(system, workload, effort, idle)
    servers.client.drop_database(database)
    progress(f"  mongod {first:.2f} µs, with {written:,} readings in blocks {with_blocks:.2f}, without {second:.2f}")
    return [
        Comparison(
            f"W1, mongod's part, {effort.hot:,} in `readings`, {written:,} in blocks",
            "µs a reading",
            with_blocks,
            (first + second) / 2,
            MAX_BLOCKS_RATIO,
            against="the same without blocks",
        )
    ]


def _mongod_us(system: System, workload: Workload, effort: IngestEffort, idle: dict[str, float]) -> float:
    """Fill `readings` again, and measure."""
    collection = system.fresh()
    Preloader(collection, system.servers.environment.folder).fill(effort.hot)
    found: list[Measurement] = []
    for _ in range(effort.block_rounds + 1):
        found.append(measure_system(system, workload, effort.seconds, idle, onto=collection))
        print_measurement(workload.name, found[-1])
    return median(one.cpu_us["mongod"] for one in found[1:])


async def _write_blocks(servers: SharedServers, database: str, readings: int) -> int:
    """Write blocks of the series that the load writes to, older than its readings; return how many there are."""
    written, each = 0, readings // SERIES
    names = sorted(
        (f"device-{number // SENSORS}", f"temperature-{number % SENSORS}") for number in range(DEVICES * SENSORS)
    )
    async with opened(servers.mongodb.url, database) as asynchronous:
        writer = BlockWriter(asynchronous)
        await writer.prepare()
        for start in range(0, len(names), SERIES_PER_WRITE):
            some = [Sensor(*name, step_ms=1000) for name in names[start : start + SERIES_PER_WRITE]]
            for count in _counts(each):
                written += await writer.write((one.key, one.next(count)) for one in some)
    return written


def _counts(count: int) -> Iterator[int]:
    """Yield parts of a count that are written one after the other."""
    for start in range(0, count, BLOCK_WRITES):
        yield min(BLOCK_WRITES, count - start)
