"""What compaction costs, as a process of its own with its default bound: processor time, memory and rate."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from bench.history_blocks import Compaction, opened
from bench.history_comparison import Comparison
from bench.history_ingest import Pipelines
from bench.history_series import insert, interleaved, sensors
from bench.history_setup import HistorySetup
from bench.processes import BenchError, BenchProcess
from bench.report import progress
from bench.systems import SharedServers
from bench.targets import MAX_COMPACTION_MIB, MAX_COMPACTION_RATIO, MIN_COMPACTION_RATE
from bench.versions import NOW
from readings.collections import READINGS
from storage.places.names import BLOCKS
from storage.places.state import STATE

DATABASE = "compaction"
MIB = 1024 * 1024
POLL_S = 0.05
TIMEOUT_S = 300.0
# Documents in memory at a time.
INSERTED_AT_ONCE = 500_000


@dataclass(frozen=True)
class CompactionEffort:
    """What is sealed: series, and readings of each."""

    series: int
    each: int


@dataclass(frozen=True)
class _Compacted:
    """What compacting one sealed collection took: µs of processor time and readings a second; the memory in bytes."""

    total_us: float
    per_second: float
    memory: int


def measure_compaction(
    setup: HistorySetup, servers: SharedServers, effort: CompactionEffort, idle: dict[str, float], pipelines: Pipelines
) -> list[Comparison]:
    """Compact one sealed collection, and a clustered one, and compare with what W100 took in the same run."""
    ordinary, clustered = (_compact(setup, servers, effort, idle, clustered=form) for form in (False, True))
    w100 = pipelines.before.get("W100")
    w100_us = None if w100 is None else w100.total_us
    compared: list[Comparison] = []
    for form, compacted in (("", ordinary), (", clustered", clustered)):
        compared += [
            Comparison(
                f"compaction, all processes{form}",
                "µs a reading",
                compacted.total_us,
                w100_us,
                MAX_COMPACTION_RATIO,
                against="that commit's W100",
            ),
            Comparison(
                f"compaction with COMPACT_CORES at its default{form}",
                "readings/s",
                compacted.per_second,
                pipelines.now["W100"].per_second,
                at_least=MIN_COMPACTION_RATE,
                against="what W100 stores on the whole machine",
            ),
        ]
    memory = max(ordinary.memory, clustered.memory) / MIB
    name = "compaction, memory of the compactor at most"
    return [*compared, Comparison(name, "MiB", memory, at_most=MAX_COMPACTION_MIB, is_absolute=True)]


def _compact(
    setup: HistorySetup, servers: SharedServers, effort: CompactionEffort, idle: dict[str, float], *, clustered: bool
) -> _Compacted:
    readings = asyncio.run(_seal_one(setup, effort, clustered=clustered))
    servers.checkpoint()
    settings = setup.settings(NOW, DATABASE)
    log = setup.environment.folder / "compactor.log"
    before, started = servers.cpu_s()["mongod"], time.perf_counter()
    with NOW.running("persister", "compact", log=log, settings=settings) as compactor:
        # Its start is not compaction.
        at_start_s, begun_s = compactor.cpu_s(), time.perf_counter()
        _wait_until_compacted(servers, compactor)
        seconds = time.perf_counter() - begun_s
        own_s, memory = compactor.cpu_s() - at_start_s, compactor.peak_memory_bytes()
    servers.checkpoint()
    passed = time.perf_counter() - started
    mongod_s = servers.cpu_s()["mongod"] - before - idle.get("mongod", 0.0) * passed
    servers.client.drop_database(DATABASE)
    progress(
        f"  {readings:,} readings in {seconds:.1f} s: {own_s / readings * 1e6:.2f} µs of the compactor and "
        f"{mongod_s / readings * 1e6:.2f} of mongod each, {(own_s + mongod_s) / seconds:.2f} cores"
    )
    return _Compacted((own_s + mongod_s) / readings * 1e6, readings / seconds, memory)


async def _seal_one(setup: HistorySetup, effort: CompactionEffort, *, clustered: bool) -> int:
    """Store readings and seal them; return how many there are."""
    stored, parts = 0, sensors(effort.series, step_ms=1000)
    each = max(1, INSERTED_AT_ONCE // effort.series)
    async with opened(setup.mongodb.url, DATABASE) as database:
        compaction = Compaction(database, clustered=clustered)
        await compaction.seal()  # creates the collection
        with setup.client() as client:
            for start in range(0, effort.each, each):
                columns = [sensor.next(min(each, effort.each - start)) for sensor in parts]
                stored += await asyncio.to_thread(insert, client[DATABASE][READINGS], interleaved(columns))
        await compaction.seal()
    progress(f"  {stored:,} readings are sealed{', clustered' if clustered else ''}")
    return stored


def _wait_until_compacted(servers: SharedServers, compactor: BenchProcess) -> None:
    blocks: Any = servers.client[DATABASE][BLOCKS]
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        waiting = (blocks.find_one({"_id": STATE}) or {}).get("waiting", [])
        if not waiting:
            return
        if any(one.get("failures") for one in waiting):
            raise BenchError(f"a sealed collection could not be compacted\n{compactor.log_tail()}")
        if time.monotonic() > deadline:
            raise BenchError(f"the compactor is not done after {TIMEOUT_S:.0f} s\n{compactor.log_tail()}")
        compactor.require_running()
        time.sleep(POLL_S)
