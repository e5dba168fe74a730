"""Who waits for room: in turn, not for long, and not without bounds."""

import asyncio
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry

from broker.embedded.broker import EmbeddedBroker
from reader.http.concurrency import Gate
from reader.metrics import ReaderMetrics
from runtime.http.problems import Problem
from testing.waiting import eventually
from tests.reader.running import Mongo, Store, reader, sent, series


def gate(most: int = 4, most_per_owner: int = 2, wait_s: float = 5.0) -> Gate:
    metrics = ReaderMetrics(CollectorRegistry())
    return Gate(metrics, "questions", most=most, most_per_owner=most_per_owner, wait_s=wait_s)


class Asking:
    """Questions that stay inside until they are told to go."""

    def __init__(self, at: Gate) -> None:
        self._gate = at
        self.inside: list[str] = []
        self.refused: list[int] = []

    def ask(self, name: str, owner: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._stay(owner), name=name)

    async def _stay(self, owner: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with self._gate.entered(owner):
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
    asking = Asking(gate())
    a1, a2, a3, a4 = (asking.ask(name, "a") for name in ("a1", "a2", "a3", "a4"))
    await asking.sees("a1", "a2")
    b1 = asking.ask("b1", "b")
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
    at = gate(most=1, most_per_owner=1)
    asking = Asking(at)
    first, second = asking.ask("1", "a"), asking.ask("2", "a")
    await asking.sees("1")
    await finish(second)
    third = asking.ask("3", "a")
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)  # the third has been let in, and does not know
    await finish(third, first)
    assert asking.inside[:1] == ["1"]
    async with at.entered("a"):
        pass
    assert (at._inside, at._waiting, at._waiting_of) == ({}, {}, {})


@pytest.mark.parametrize(("most", "most_per_owner", "status"), [(9, 2, 429), (2, 9, 503)])
async def test_the_queue_is_as_long_as_what_is_inside_and_short_in_time(
    most: int, most_per_owner: int, status: int
) -> None:
    asking = Asking(gate(most, most_per_owner, wait_s=0.3))
    tasks = [asking.ask(str(number), "a") for number in range(6)]

    async def refused(count: int) -> bool:
        return asking.refused == [status] * count

    await eventually(lambda: refused(2), "the fifth and the sixth are refused", 0.25)
    await eventually(lambda: refused(4), "the third and the fourth are refused, too")
    await asking.sees("0", "1")
    await finish(*tasks)


async def test_a_burst_of_one_owners_questions_is_answered(
    broker: EmbeddedBroker, mongodb_database: Mongo, store: Store
) -> None:
    await store.holds(*(sent(number) for number in range(1)))
    async with reader(broker, mongodb_database) as running:
        questions = [running.ask(path, series()) for path in ("/readings", "/readings/latest") for _ in range(64)]
        answers = await asyncio.gather(*questions)
    assert {answer.status for answer in answers} == {200}
