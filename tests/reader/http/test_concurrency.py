"""Who waits for room: in turn, not for long, and not without bounds."""

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


class Asking:
    """Questions that stay inside until they are told to go."""

    def __init__(self, at: ConcurrencyLimiter) -> None:
        self._limiter = at
        self.inside: list[str] = []
        self.refused: list[int] = []

    def fetch(self, name: str, owner: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._stay(owner), name=name)

    async def _stay(self, owner: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with self._limiter.slot(owner):
                self.inside.append(task.get_name())
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        except Problem as problem:
            self.refused.append(problem.status)

    async def sees(self, *names: str) -> None:
        async def seen() -> bool:
            return self.inside == list(names)

        await eventually(seen, f"{names} are inside")


async def finish(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_waits_is_let_in_in_turn_and_holds_no_other_owner_up() -> None:
    asking = Asking(limiter())
    a1, a2, a3, a4 = (asking.fetch(name, "a") for name in ("a1", "a2", "a3", "a4"))
    await asking.sees("a1", "a2")
    b1 = asking.fetch("b1", "b")
    await asking.sees("a1", "a2", "b1")
    await finish(a2)
    await asking.sees("a1", "a2", "b1", "a3")
    await finish(b1)
    await asyncio.sleep(0.05)
    assert asking.inside[-1] == "a3"  # b's room is not a's
    await finish(a1)
    await asking.sees("a1", "a2", "b1", "a3", "a4")
    await finish(a3, a4)
    assert not asking.refused


async def test_who_gives_up_waiting_leaves_its_turn_and_no_trace() -> None:
    at = limiter(limit=1, limit_per_owner=1)
    asking = Asking(at)
    first, second = asking.fetch("1", "a"), asking.fetch("2", "a")
    await asking.sees("1")
    await finish(second)
    third = asking.fetch("3", "a")
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)  # the third has been let in, and does not know
    await finish(third, first)
    assert asking.inside[:1] == ["1"]
    async with at.slot("a"):
        pass
    assert (at._active, at._waiters, at._waiting_per_owner) == ({}, {}, {})


@pytest.mark.parametrize(("limit", "limit_per_owner", "status"), [(9, 2, 429), (2, 9, 503)])
async def test_the_queue_is_as_long_as_what_is_inside_and_short_in_time(
    limit: int, limit_per_owner: int, status: int
) -> None:
    asking = Asking(limiter(limit, limit_per_owner, wait_s=0.3))
    tasks = [asking.fetch(str(number), "a") for number in range(6)]

    async def refused(count: int) -> bool:
        return asking.refused == [status] * count

    await eventually(lambda: refused(2), "the fifth and the sixth are refused", 0.25)
    await eventually(lambda: refused(4), "the third and the fourth are refused, too")
    await asking.sees("0", "1")
    await finish(*tasks)


async def test_a_burst_of_one_owners_questions_is_answered(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store
) -> None:
    await store.insert(*(make_reading(number) for number in range(1)))
    async with open_reader(broker, mongodb_database) as reader_client:
        queries = [reader_client.fetch(path, series()) for path in ("/readings", "/readings/latest") for _ in range(64)]
        answers = await asyncio.gather(*queries)
    assert {answer.status for answer in answers} == {200}
