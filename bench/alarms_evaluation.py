"""What evaluating a reading takes, a rule, and noticing a silence: in one process, without servers.

Announcements are decoded, put in order and evaluated, as the process that evaluates does it. Each series has one
reading in a round and one rule, which is the dearest case: a hundred readings of a series share most of it. What a
persister takes to announce, and the database and webhooks of what changes, are not in it.
"""

import asyncio
import gc
import resource
import time
from collections.abc import Iterator
from typing import cast

from access.revocations import FetchRevocations, RevocationList
from alarms.evaluation.evaluation import ON_ITS_WAY_MS
from alarms.evaluation.evaluator import Evaluator, Newest
from alarms.evaluation.reorder import Reorder
from alarms.evaluation.silence import Silences
from alarms.rules.book import RuleBook
from alarms.rules.definition import checked_definition
from alarms.rules.devices import DeviceNames
from alarms.rules.point import Point
from alarms.rules.rule import Rule, rule_of
from alarms.rules.store import Changes, RuleStore
from bench.report import Figure
from broker.alarms import WatchedReading, WatchedReadings, announcements, decode_announcement
from database.connection import Database

OWNERS = 100
ROUNDS = 7
FOR_S = 60
SENSOR_TYPE = "temperature"
# A reading's way through all processes, one reading an event, as the pipeline's bench measured commit 91c8e3c.
WHOLE_PIPELINE_US = 22.7
MAX_OF_PIPELINE = 1.0
MAX_MB = 500.0
MAX_LATE_S = 5.0


def rules(number: int, op: str) -> Iterator[Rule]:
    """Yield rules of one device each."""
    for index in range(number):
        when = {"op": op} | ({"value": 80} if op == "above" else {})
        given = {"name": f"rule {index}", "devices": {"ids": [device(index)]}, "sensorType": SENSOR_TYPE, "when": when}
        yield rule_of(owner(index), f"rule-{index}", 1, 0, checked_definition(given | {"forSeconds": FOR_S}))


def device(index: int) -> str:
    """Return a device of some length."""
    return f"0199d3c4-7a20-7c1e-9f4b-{index:012d}"


def owner(index: int) -> str:
    """Return the owner of a device."""
    return f"0199d3c4-0000-7000-8000-{index % OWNERS:012d}"


class Given:
    """A store of rules that no database has."""

    def __init__(self, given: list[Rule]) -> None:
        self._given = given

    async def changes_after(self, _: int | None) -> Changes:
        """Return all of them."""
        return Changes(self._given, [], 1, is_whole=True)


def book_of(some: Iterator[Rule]) -> RuleBook:
    """Return a book with rules."""
    book = RuleBook(
        cast("RuleStore", Given(list(some))),
        DeviceNames(cast("Database", None)),
        RevocationList(cast("FetchRevocations", None)),
    )
    asyncio.run(book.refresh())
    gc.collect()
    return book


def evaluation_us(series: int) -> float:
    """Return the processor time of a reading in µs: the median of rounds."""
    evaluator, reorder = Evaluator(book_of(rules(series, "above"))), Reorder()
    taken: list[float] = []
    for number in range(ROUNDS):
        ts_ms = 1_700_000_000_000 + number * 1000
        read = [WatchedReading(ts_ms, number, 70.5, ts_ms)]
        bodies = list(
            announcements(WatchedReadings(owner(at), device(at), SENSOR_TYPE, None, read) for at in range(series))
        )
        started = time.process_time()
        for body in bodies:
            for announced in decode_announcement(body):
                reorder.add(announced)
        assert list(evaluator.evaluate(reorder.next_round())) == []
        taken.append((time.process_time() - started) / series * 1e6)
    return sorted(taken)[ROUNDS // 2]


def memory_mb(number: int) -> float:
    """Return what rules and the state of their series take in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    book = book_of(rules(number, "above"))
    evaluator = Evaluator(book)
    for index in range(number):
        series = (owner(index), device(index), SENSOR_TYPE)
        assert len(book.of_series(series)) == 1
        evaluator.newest[series] = Newest(Point(index, 0, 70.5), index)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def silence_s(number: int) -> tuple[float, float]:
    """Return how long after their time so many silences are noticed at once in s, and what a look without any takes.

    All of them become due in the same instant, which is the worst case.
    """
    book = book_of(rules(number, "silent"))
    silences = Silences(Evaluator(book))
    silences.watch_rules(book.silences())
    due_ms = FOR_S * 1000
    started = time.perf_counter()
    assert list(silences.due(due_ms - 1)) == []
    looked = time.perf_counter()
    assert len(list(silences.due(due_ms))) == number
    return time.perf_counter() - looked + ON_ITS_WAY_MS / 1000, looked - started


def figures(series: int, number: int) -> list[Figure]:
    """Measure `series` with a rule and a reading each, `number` rules, and as many silences."""
    taken_mb = memory_mb(number)  # first: what is measured is the highest there was
    evaluated_us = evaluation_us(series)
    late_s, look_s = silence_s(number)
    return [
        Figure("In one process, without servers", 0, ""),
        Figure(f"a reading, of {series:,} series with a rule each", evaluated_us, "µs"),
        Figure("  of what the whole pipeline takes for it", evaluated_us / WHOLE_PIPELINE_US, "x", MAX_OF_PIPELINE),
        Figure(f"{number:,} rules with their series", taken_mb, "MB", MAX_MB),
        Figure(f"{number:,} silences in one instant, until all are found", late_s, "s", MAX_LATE_S),
        Figure("  a look at as many without a silence", look_s, "s"),
    ]
