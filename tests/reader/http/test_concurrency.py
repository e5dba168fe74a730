"""Requests waiting for a slot: in turn, briefly, and bounded."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from broker.embedded.broker import EmbeddedBroker
from reader.http.concurrency import ConcurrencyLimiter
from reader.metrics import ReaderMetrics
from runtime.http.problems import Problem
from testing.waiting import eventually
from tests.reader.harness import Mongo, Store, make_reading, open_reader, series


def limiter(limit: int = 4, limit_per_owner: int = 2, wait_s: float = 5.0) -> ConcurrencyLimiter:
    metrics = ReaderMetrics(CollectorRegistry())
    return ConcurrencyLimiter(metrics, "questions", limit=limit, limit_per_owner=limit_per_owner, wait_s=wait_s)


class Requests:
    """Requests that hold their slots until cancelled."""

    def __init__(self, under_test: ConcurrencyLimiter) -> None:
        self._limiter = under_test
        self.active: list[str] = []
        self.refused: list[int] = []

    def start(self, name: str, owner: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._stay(owner), name=name)

    async def _stay(self, owner: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with self._limiter.slot(owner):
                self.active.append(task.get_name())
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        except Problem as problem:
            self.refused.append(problem.status)

    async def are_active(self, *names: str) -> None:
        async def seen() -> bool:
            return self.active == list(names)

        await eventually(seen, f"{names} are inside")


async def finish(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_waits_is_let_in_in_turn_and_holds_no_other_owner_up() -> None:
    requests = Requests(limiter())
    a1, a2, a3, a4 = (requests.start(name, "a") for name in ("a1", "a2", "a3", "a4"))
    await requests.are_active("a1", "a2")
    b1 = requests.start("b1", "b")
    await requests.are_active("a1", "a2", "b1")
    await finish(a2)
    await requests.are_active("a1", "a2", "b1", "a3")
    await finish(b1)
    await asyncio.sleep(0.05)
    assert requests.active[-1] == "a3"  # b's room is not a's
    await finish(a1)
    await requests.are_active("a1", "a2", "b1", "a3", "a4")
    await finish(a3, a4)
    assert not requests.refused


async def test_who_gives_up_waiting_leaves_its_turn_and_no_trace() -> None:
    under_test = limiter(limit=1, limit_per_owner=1)
    requests = Requests(under_test)
    first, second = requests.start("1", "a"), requests.start("2", "a")
    await requests.are_active("1")
    await finish(second)
    third = requests.start("3", "a")
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)  # the third has been let in, and does not know
    await finish(third, first)
    assert requests.active[:1] == ["1"]
    async with under_test.slot("a"):
        pass
    assert (under_test._active, under_test._waiters, under_test._waiting_per_owner) == ({}, {}, {})


@pytest.mark.parametrize(("limit", "limit_per_owner", "status"), [(9, 2, 429), (2, 9, 503)])
async def test_the_queue_is_as_long_as_what_is_inside_and_short_in_time(
    limit: int, limit_per_owner: int, status: int
) -> None:
    requests = Requests(limiter(limit, limit_per_owner, wait_s=0.3))
    tasks = [requests.start(str(number), "a") for number in range(6)]

    async def refused(count: int) -> bool:
        return requests.refused == [status] * count

    await eventually(lambda: refused(2), "the fifth and the sixth are refused", 0.25)
    await eventually(lambda: refused(4), "the third and the fourth are refused, too")
    await requests.are_active("0", "1")
    await finish(*tasks)


async def test_a_burst_of_one_owners_questions_is_answered(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store
) -> None:
    await store.insert(*(make_reading(number) for number in range(1)))
    async with open_reader(broker, mongodb_database) as reader_client:
        queries = [reader_client.fetch(path, series()) for path in ("/readings", "/readings/latest") for _ in range(64)]
        answers = await asyncio.gather(*queries)
    assert {answer.status for answer in answers} == {200}
