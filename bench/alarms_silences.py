"""100,000 rules in the real service: its memory, and how late silences are noticed, of few series and of all at once.

The rules are of the dearest kind, silences, and each has a series. Readings are announced as a persister does it, and
once more without some series, whose silences come first; those of all others come later, in one instant.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from bench.alarms_setup import GivenRule, RunningAlarms, UsersDatabase, running_alarms
from bench.environment import Environment
from bench.load import percentile
from bench.processes import BenchError
from bench.report import Figure, progress
from broker.alarms import WatchedReading, WatchedReadings, announcements
from broker.connect import open_broker
from broker.headers import SCHEMA_HEADER
from broker.message import Message
from broker.topology import ALARMS_EXCHANGE
from testing.servers.mariadb import MariaDBServer

OWNERS = 100
SENSOR_TYPE = "temperature"
POLL_S = 0.2
TIMEOUT_S = 300.0
MAX_MB = 500.0
MAX_LATE_S = 5.0


@dataclass(frozen=True)
class SilencesEffort:
    """Watched series, those of them that fall silent first, and the seconds after which a silence counts."""

    series: int
    few: int
    for_s: int


def measure_silences(environment: Environment, mariadb: MariaDBServer, effort: SilencesEffort) -> list[Figure]:
    """Measure the service's memory and the lateness of silences."""
    database = UsersDatabase(mariadb)
    database.put(_rule(index, effort.for_s) for index in range(effort.series))
    vhost = environment.rabbitmq.create_vhost()
    with running_alarms(environment, database, vhost) as alarms:
        return asyncio.run(_measure(alarms, vhost, effort))


async def _measure(alarms: RunningAlarms, vhost: str, effort: SilencesEffort) -> list[Figure]:
    started = time.perf_counter()
    await _announce(vhost, range(effort.series))
    alarms.wait_until_evaluated(effort.series)
    progress(f"  {effort.series:,} readings were evaluated {time.perf_counter() - started:.1f} s after the first")
    memory_mb = alarms.process.memory_bytes() / 1e6
    await asyncio.sleep(max(0.0, started + effort.for_s / 2 - time.perf_counter()))
    few_silent = effort.few
    await _announce(vhost, range(few_silent, effort.series))
    few = await _late_s(alarms, few_silent, effort.for_s)
    progress(f"  {few_silent:,} silences were noticed within {few[-1]:.1f} s")
    rest = (await _late_s(alarms, effort.series, effort.for_s))[few_silent:]
    progress(f"  {len(rest):,} silences were noticed within {rest[-1]:.1f} s")
    peak_mb = alarms.process.peak_memory_bytes() / 1e6
    what = f"{effort.series:,}"
    return [
        Figure(f"{what} silences watched by the service, on MariaDB", 0, ""),
        Figure("its memory, with a rule for each", memory_mb, "MB", MAX_MB),
        Figure("  the most it had, with all alarms firing", peak_mb, "MB", MAX_MB),
        Figure(f"{few_silent:,} series fall silent: noticed after, p50", percentile(few, 0.5), "s"),
        Figure("  the last", few[-1], "s", MAX_LATE_S),
        Figure(f"the other {len(rest):,} at once: noticed after, p50", percentile(rest, 0.5), "s"),
        Figure("  the last", max(rest), "s"),
    ]


def _rule(index: int, for_s: int) -> GivenRule:
    return GivenRule(
        _owner(index),
        {
            "name": f"rule {index}",
            "devices": {"ids": [_device(index)]},
            "sensorType": SENSOR_TYPE,
            "when": {"op": "silent"},
            "forSeconds": for_s,
            "notify": [],
        },
    )


def _owner(index: int) -> str:
    return f"0199d3c4-0000-7000-8000-{index % OWNERS:012d}"


def _device(index: int) -> str:
    return f"0199d3c4-7a20-7c1e-9f4b-{index:012d}"


async def _announce(vhost: str, series: Iterable[int]) -> None:
    """Announce a reading of each series, received now."""
    now_ms = time.time_ns() // 1_000_000
    read = [WatchedReading(now_ms, 0, 20.5, now_ms)]
    async with open_broker(vhost) as broker, broker.publisher(ALARMS_EXCHANGE) as publisher:
        for body in announcements(
            WatchedReadings(_owner(one), _device(one), SENSOR_TYPE, None, read) for one in series
        ):
            await publisher.publish(Message(body, {SCHEMA_HEADER: 1}), ALARMS_EXCHANGE)


async def _late_s(alarms: RunningAlarms, number: int, for_s: int) -> list[float]:
    """Return how long after their time so many silences were noticed, those of the earliest first, in s."""
    database = alarms.database
    deadline = time.monotonic() + for_s + TIMEOUT_S
    while database.count("alarm_history") < number:
        alarms.process.require_running()
        if time.monotonic() > deadline:
            found = database.count("alarm_history")
            raise BenchError(f"{found:,} of {number:,} silences were noticed\n{alarms.process.log_tail()}")
        await asyncio.sleep(POLL_S)
    rows = database.rows("ts_ms, recorded_at_ms", "alarm_history ORDER BY ts_ms, number")
    return sorted((recorded - due) / 1000 for due, recorded in rows[:number])
