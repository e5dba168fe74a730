"""Rules beside the pipeline: what matching, changes and webhooks cost at a rate, and how late webhooks are.

Two pipelines of this build, one without an alarms service, in turns: also with series that no rule watches. The paced
load is 5,000 readings a second of 10,000 series, each with a rule. In one kind of turn no value crosses its rule's
bound; in the other one of 100 does, which raises or ends an alarm, and each such change is a webhook.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any

import msgspec

from bench.alarms_setup import GivenRule, Receiver, RunningAlarms, UsersDatabase, running_alarms
from bench.history_systems import VersionSystem, running_version
from bench.load import percentile
from bench.measurements import (
    SHORTEST_MEASUREMENT_S,
    Measurements,
    Workload,
    measure_system,
    print_measurement,
    wait_until_stored,
)
from bench.processes import BenchError, LineProcess, cpu_of
from bench.report import Figure, progress
from bench.systems import SharedServers
from bench.targets import W1, W100
from bench.versions import NOW
from readings.document import AS_MILLISECONDS, date_ms
from readings.filters import in_time_range
from readings.keys import series_key
from testing.servers.mariadb import MariaDBServer

CONNECTIONS = 20
SENSORS = 500
SERIES = CONNECTIONS * SENSORS
CROSSING = 0.01
BOUND = 50
MAX_OF_PIPELINE = 1.0
MAX_UNWATCHED_RATIO = 1.02
MAX_P99_S = 1.0


@dataclass(frozen=True)
class PipelineEffort:
    """Rounds of W1 and W100 on both pipelines, and of the paced load; the seconds of each."""

    rounds: int
    seconds: float
    paced_rounds: int
    paced_seconds: float
    rate: float = 5000.0


@dataclass(frozen=True)
class Side:
    """A pipeline with a second load, whose series have rules where there is an alarms service."""

    system: VersionSystem
    watched_load: LineProcess
    alarms: RunningAlarms | None = None

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each process."""
        found = self.system.cpu_s()
        if self.alarms is not None:
            found["alarms"] = self.alarms.process.cpu_s()
            found["database"] = cpu_of([self.alarms.database.server.pid])
        return found


@dataclass(frozen=True)
class Turn:
    """CPU of each process in µs a reading, and of each change the milliseconds from when a gateway got its reading.

    Until it was recorded, and until its webhook arrived.
    """

    cpu_us: dict[str, float]
    webhooks_ms: list[tuple[float, float]]


def measure_pipeline(
    servers: SharedServers, mariadb: MariaDBServer, effort: PipelineEffort, idle: dict[str, float]
) -> list[Figure]:
    """Measure everything beside the pipeline."""
    with ExitStack() as stack:
        receiver = Receiver()
        hook = stack.enter_context(receiver.listening())
        database = UsersDatabase(mariadb)
        database.put(_rule(index, hook) for index in range(SERIES))
        ours = stack.enter_context(_watched(servers, database))
        bare = stack.enter_context(_unwatched(servers))
        found = _measure_both(ours.system, bare.system, effort, idle)
        turns = _measure_paced(ours, bare, receiver, effort, idle)
    return [*_figures_of_paced(turns, effort.rate, found["W1", "without"].total_us), *_figures_of_unwatched(found)]


def _rule(index: int, hook: str) -> GivenRule:
    device, sensor = divmod(index, SENSORS)
    return GivenRule(
        f"works-{device}",
        {
            "name": f"rule {index}",
            "devices": {"ids": [f"press-{device}"]},
            "sensorType": f"temperature-{sensor}",
            "when": {"op": "above", "value": BOUND},
            "notify": [{"kind": "webhook", "url": hook}],
        },
    )


@contextmanager
def _watched(servers: SharedServers, database: UsersDatabase) -> Iterator[Side]:
    vhost = servers.environment.rabbitmq.create_vhost()
    broker = {"BROKER_URL": vhost}
    with (
        running_alarms(servers.environment, database, vhost) as alarms,
        running_version(servers, NOW, "watched", CONNECTIONS, broker, **broker, ALARMS_URL=alarms.url) as system,
        _loading(system) as load,
    ):
        yield Side(system, load, alarms)


@contextmanager
def _unwatched(servers: SharedServers) -> Iterator[Side]:
    with running_version(servers, NOW, "unwatched", CONNECTIONS) as system, _loading(system) as load:
        yield Side(system, load)


@contextmanager
def _loading(system: VersionSystem) -> Iterator[LineProcess]:
    """Run a load of the devices whose series have rules."""
    environment = system.servers.environment
    command = [sys.executable, "-m", "bench.load", str(system.port)]
    with LineProcess(command, log=environment.folder / f"{system.database}-watched-load.log") as load:
        names = ((f"press-{number}", f"works-{number}") for number in range(CONNECTIONS))
        load.send([{"token": environment.issuer.device(sub=name, device=name, owner=own)} for name, own in names])
        load.request({"connect": CONNECTIONS})
        yield load


def _measure_both(
    ours: VersionSystem, bare: VersionSystem, effort: PipelineEffort, idle: dict[str, float]
) -> dict[tuple[str, str], Measurements]:
    """Measure W1 and W100, of series without rules, on both pipelines, whose order changes from round to round."""
    sides = {"with": ours, "without": bare}
    found = {(name, side): Measurements() for name in ("W1", "W100") for side in sides}
    for number in range(effort.rounds + (effort.rounds > 1)):
        for name, workload in (("W1", W1), ("W100", W100)):
            for side in sides if number % 2 else reversed(sides):
                one = measure_system(sides[side], workload, effort.seconds, idle)
                if number or effort.rounds == 1:  # the first round warms up
                    found[name, side].all.append(one)
                    print_measurement(f"{name}, {side} alarms", one)
    return found


def _measure_paced(
    ours: Side, bare: Side, receiver: Receiver, effort: PipelineEffort, idle: dict[str, float]
) -> dict[str, list[Turn]]:
    """Measure the paced load without alarms, with rules that nothing crosses, and with those that are crossed."""
    kinds = {"without": (bare, 0.0), "matched": (ours, 0.0), "changing": (ours, CROSSING)}
    turns: dict[str, list[Turn]] = {kind: [] for kind in kinds}
    for number in range(effort.paced_rounds):
        for kind in kinds if number % 2 else reversed(kinds):
            side, share = kinds[kind]
            one = _paced_turn(side, share, receiver, effort, idle)
            turns[kind].append(one)
            parts = ", ".join(f"{name} {value:.1f}" for name, value in one.cpu_us.items())
            progress(f"    paced, {kind}: {parts}; {len(one.webhooks_ms):,} webhooks")
    return turns


def _paced_turn(side: Side, share: float, receiver: Receiver, effort: PipelineEffort, idle: dict[str, float]) -> Turn:
    system, seconds = replace(side.system, load=side.watched_load), effort.paced_seconds
    command = Workload("paced", 1, CONNECTIONS, 1, SERIES).command(seconds, effort.rate) | {"crossing": share}
    collection = system.fresh()
    # Series are new at first, and what a turn before has raised ends.
    _run(side, system, collection, command | {"run": min(seconds, 2 * SERIES / effort.rate)}, 0)
    if seconds >= SHORTEST_MEASUREMENT_S:
        system.servers.flush_writes()
    receiver.received.clear()
    already = collection.estimated_document_count()
    before, started = side.cpu_s(), time.perf_counter()
    readings = _run(side, system, collection, command, already)
    system.servers.checkpoint()
    passed = time.perf_counter() - started
    used = {name: value - before[name] - idle.get(name, 0.0) * passed for name, value in side.cpu_s().items()}
    cpu_us = {name: max(0.0, value) / readings * 1e6 for name, value in used.items()}
    return Turn(cpu_us, [] if side.alarms is None else _webhooks_ms(system, receiver))


def _run(side: Side, system: VersionSystem, collection: Any, command: dict[str, Any], already: int) -> int:
    """Run a load until everything is stored, evaluated and delivered; return its readings."""
    evaluated = 0 if side.alarms is None else side.alarms.evaluated()
    started = time.perf_counter()
    ran = system.load.request(command)
    if ran["refused"] or ran["unanswered"] or ran["lost"]:
        raise BenchError(f"not everything was accepted: {ran}")
    readings = int(ran["acknowledged"])
    _, stored = wait_until_stored(system, collection, already + readings, started)
    if stored != already + readings:
        raise BenchError(f"{readings:,} readings were acknowledged and {stored - already:,} stored")
    if side.alarms is not None:
        side.alarms.wait_until_evaluated(evaluated + readings)
        side.alarms.wait_until_delivered()
    return readings


def _webhooks_ms(system: VersionSystem, receiver: Receiver) -> list[tuple[float, float]]:
    """Return, for each webhook, how many ms after its reading was received it was recorded, and when it came."""
    collection = system.servers.client[system.database]["readings"].with_options(codec_options=AS_MILLISECONDS)
    found: list[tuple[float, float]] = []
    for arrived_ms, body in receiver.received:
        told = msgspec.json.decode(body)
        data, ts_ms, recorded_ms = told["data"], _ms(told["data"]["ts"]), _ms(told["timestamp"])
        series = series_key(data["device"].replace("press", "works"), data["device"], data["sensorType"])
        document = collection.find_one(in_time_range(series, ts_ms, ts_ms + 1), {"receivedAt": 1})
        if document is None:
            raise BenchError(f"a webhook tells of a reading that is not stored: {data}")
        received_ms = date_ms(document["receivedAt"])
        found.append((recorded_ms - received_ms, arrived_ms - received_ms))
    return found


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _figures_of_paced(turns: dict[str, list[Turn]], rate: float, w1_us: float) -> list[Figure]:
    parts = {kind: _medians(some) for kind, some in turns.items()}
    recorded, latencies = (
        [one[at] / 1000 for turn in turns["changing"] for one in turn.webhooks_ms] for at in range(2)
    )
    figures = [
        Figure(f"{SERIES:,} rules on {SERIES:,} series, {rate:,.0f} readings a second", 0, ""),
        Figure("W1 in the same run, all processes", w1_us, "µs a reading"),
    ]
    for kind, what in (("matched", "no value crosses a bound"), ("changing", f"{CROSSING:.0%} of values do")):
        # One that takes less counts as nothing: messages grow where there is less time, which is no merit of alarms.
        more = {name: max(0.0, parts[kind][name] - parts["without"].get(name, 0.0)) for name in ADDED}
        total = sum(more.values())
        figures.append(Figure(f"a matched reading, {what}", total, "µs a reading"))
        figures += [Figure(f"    {name}", value, "µs a reading") for name, value in more.items()]
        figures.append(Figure("  of W1", total / w1_us, "x", MAX_OF_PIPELINE))
    changes = len(latencies) / max(1, len(turns["changing"]))
    return [
        *figures,
        Figure("webhooks of changes, a turn", changes, "webhooks"),
        Figure("  from the gateway's receipt to the change's record: p50", percentile(recorded, 0.5), "s"),
        Figure("  to the webhook: p50", percentile(latencies, 0.5), "s"),
        Figure("  p99", percentile(latencies, 0.99), "s", MAX_P99_S),
    ]


# Of whom more is counted than without rules. The gateway and mongod do nothing else for a series with a rule.
ADDED = ("alarms", "database", "persister", "RabbitMQ")


def _medians(turns: list[Turn]) -> dict[str, float]:
    return {name: median(one.cpu_us[name] for one in turns) for name in turns[0].cpu_us}


def _figures_of_unwatched(found: dict[tuple[str, str], Measurements]) -> list[Figure]:
    figures = [Figure("Series without rules, beside 10,000 that have some", 0, "")]
    for name in ("W1", "W100"):
        ours, bare = found[name, "with"], found[name, "without"]
        rounds = list(zip(ours.all, bare.all, strict=True))
        # Only the persister has more to do. Of everything, the same build twice is not the same within some 6 %.
        more_us = median(one.cpu_us["persister"] - other.cpu_us["persister"] for one, other in rounds)
        figures += [
            Figure(f"{name}, without an alarms service", bare.total_us, "µs a reading"),
            Figure(f"{name}, with one", ours.total_us, "µs a reading"),
            Figure("  of that, the median of rounds", median(one.total_us / two.total_us for one, two in rounds), "x"),
            Figure("  by what the persister takes more", 1 + more_us / bare.total_us, "x", MAX_UNWATCHED_RATIO),
        ]
    return figures
