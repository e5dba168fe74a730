"""One process evaluates at a time, and another takes over."""

import asyncio
import time

import pytest

from alarms.evaluation import leader as leases
from alarms.evaluation.leader import Leader, NotLeaderError
from database.alarm_tables import alarm_leader
from database.connection import Database
from testing.waiting import eventually
from tests.auth.rows import change


class Process:
    """A process that evaluates while it leads."""

    def __init__(self, database: Database) -> None:
        self.leader = Leader(database)
        self.times = 0
        self.task = asyncio.ensure_future(self.leader.lead(self._evaluate))

    async def _evaluate(self) -> None:
        self.times += 1
        await asyncio.Event().wait()

    async def leads(self) -> bool:
        return self.leader.is_leading and self.times > 0

    async def end(self) -> None:
        """Die without a word."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_second_process_takes_over_once_the_lease_of_a_dead_one_has_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 2.0)
    monkeypatch.setattr(leases, "TRY_EVERY_S", 0.05)
    first = Process(database)
    await eventually(first.leads, "the first leads", 30)
    second = Process(database)
    await first.end()
    assert not await second.leads()
    await eventually(second.leads, "the second has taken over", 30)
    await second.end()


async def test_what_is_released_is_taken_over_at_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TRY_EVERY_S", 0.05)
    monkeypatch.setattr(leases, "LEASE_S", 3600.0)
    first = Process(database)
    await eventually(first.leads, "the first leads", 30)
    second = Process(database)
    await first.end()
    await first.leader.release()
    await eventually(second.leads, "the second has taken over", 30)
    await second.end()


async def test_a_process_whose_lease_was_taken_ends_its_evaluation_and_waits(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "TRY_EVERY_S", 0.05)
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.05)
    process = Process(database)
    await eventually(process.leads, "it leads", 30)
    await change(database_url, alarm_leader.update().values(holder="another", until_ms=2**53))

    async def stopped() -> bool:
        return not process.leader.is_leading

    await eventually(stopped, "it has noticed", 30)
    await change(database_url, alarm_leader.update().values(until_ms=0))
    await eventually(process.leads, "it leads again", 30)
    assert process.times == 2
    await process.end()


async def test_past_the_end_of_its_lease_a_process_knows_without_asking(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = Leader(database)
    with pytest.raises(NotLeaderError):
        leader.require_held()
    assert await leader._claim()
    leader.require_held()
    monkeypatch.setattr(time, "monotonic", lambda: leader._until)
    with pytest.raises(NotLeaderError):
        leader.require_held()
