"""Whatever happens to compactors, readers see each reading once, with its first value, and nothing else."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from pymongo.errors import ExecutionTimeout, NetworkTimeout

from broker.deleted_owner import DeletedOwner
from broker.failpoints import Point
from persister.compaction.blocks import Step
from persister.compaction.lease import LeaseLostError
from persister.maintenance.store import MaintenanceStore
from readings.document import decode_document
from readings.filters import of_owner
from storage.places.names import BLOCKS, COLUMNS, PIECES, sealed_name
from tests.persister.compaction.world import POINTS, Source, World, compact_with, reading


class Killed(Exception):
    """Stands for the end of the process."""


def kill_at(point: str, times: int, passed: Counter[str]) -> Step:
    async def step(at: Point) -> None:
        passed[at] += 1
        if at == point and passed[at] == times:
            raise Killed

    return step


async def filled(world: World, source: Source, seals: int) -> None:
    for _ in range(seals):
        await world.store(source.batch())
        await world.seal()


async def test_random_readings_are_seen_once_with_their_first_value(world: World, seed: int) -> None:
    source = Source(seed)
    for _ in range(8):
        await filled(world, source, source.random.choice([1, 1, 3]))
        await world.store(source.batch(5))
        assert await world.read() == world.model
        await world.compact()
        assert await world.read() == world.model
        assert await world.garbage() == (0, 0)
    assert await world.count(BLOCKS) > 12, "too few blocks for a test"


@pytest.mark.parametrize("point", POINTS)
async def test_a_compactor_that_dies_at_any_step_loses_and_doubles_nothing(world: World, point: str) -> None:
    source = Source(7)
    await filled(world, source, 3)
    await world.compact()
    deaths = 0
    for times in range(1, 20):
        await filled(world, source, 1)
        passed: Counter[str] = Counter()
        try:
            await world.compact(kill_at(point, times % 4 + 1, passed))
        except Killed:
            deaths += 1
        assert await world.read() == world.model
        await world.expire_lease()
        if times % 3 == 0:
            await world.compact()
            assert await world.read() == world.model
            assert await world.garbage() == (0, 0)
        if deaths >= 4:
            break
    assert deaths >= 3, "the step was hardly ever passed"
    await world.expire_lease()
    await world.compact()
    assert await world.read() == world.model
    assert await world.garbage() == (0, 0)


def stopping_at(point: str, passes: int) -> tuple[asyncio.Event, asyncio.Event, Callable[[Point], Awaitable[None]]]:
    """Return an event for when a failpoint is passed for that time, one that lets it go on, and the step that waits."""
    reached, go = asyncio.Event(), asyncio.Event()
    left = passes

    async def step(at: Point) -> None:
        nonlocal left
        left -= at == point
        if at == point and left == 0:
            reached.set()
            await go.wait()

    return reached, go, step


@pytest.mark.parametrize("point", POINTS)
async def test_a_compactor_that_is_stopped_past_its_lease_and_goes_on_does_no_harm(world: World, point: str) -> None:
    source = Source(11)
    await filled(world, source, 2)
    await world.compact()
    stops = 0
    for round_ in range(5):
        await filled(world, source, 1)
        reached, go, step = stopping_at(point, round_ % 3 + 1)
        stale = world.compactor(step)
        running = asyncio.create_task(compact_with(stale))
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        stops += reached.is_set()
        await world.expire_lease()
        await filled(world, source, 2)
        await world.compact()
        assert await world.read() == world.model
        stale.lease._until = time.monotonic() + 1000  # as if it had been stopped behind its last look at the clock
        go.set()
        with_error = await asyncio.gather(running, return_exceptions=True)
        # Or the time of its next call was over: that of the lease, which it had before it was stopped.
        allowed = (LeaseLostError, ExecutionTimeout, NetworkTimeout)
        assert all(error is None or isinstance(error, allowed) for error in with_error), with_error
        waiting.cancel()
        assert await world.read() == world.model
    assert stops >= 2, "the step was hardly ever passed"
    await world.expire_lease()
    compactor = world.compactor()
    await compactor.lease.acquire()
    await compactor.remove_garbage()
    assert await world.read() == world.model
    assert await world.garbage() == (0, 0)


async def test_two_compactors_without_a_lease_at_the_same_time(world: World, seed: int) -> None:
    source = Source(seed)
    for _ in range(4):
        await filled(world, source, 2)

        async def pause(_: Point) -> None:
            await asyncio.sleep(source.random.random() / 200)

        one, two = world.compactor(pause), world.compactor(pause)
        for each in (one, two):
            await world.expire_lease()
            assert await each.lease.acquire()
            each.lease._until = time.monotonic() + 1000
        await asyncio.gather(compact_with(one), compact_with(two), return_exceptions=True)
        assert await world.read() == world.model
        await world.expire_lease()
        await world.compact()
        assert await world.read() == world.model
        assert await world.garbage() == (0, 0)


@pytest.mark.parametrize("point", POINTS)
async def test_an_owner_who_is_erased_meanwhile_stays_erased(world: World, point: str) -> None:
    maintenance = MaintenanceStore(world.database)
    await maintenance.prepare()
    await world.store(reading("device-0", ts, 1, owner=f"owner-{ts % 2}") for ts in range(400))
    await world.seal()
    await world.compact()
    late = [reading("device-0", ts * 5 + 1000, ts, owner=f"owner-{ts % 2}") for ts in range(300)]
    await world.store([*late, *(reading("device-0", ts, 2, owner="owner-0", seq=1) for ts in range(100))])
    number = await world.seal()
    erased = False

    async def erase(at: Point) -> None:
        nonlocal erased
        if at != point or erased:
            return
        erased = True
        await maintenance.write_tombstone(DeletedOwner("owner-0", 0))
        for name in ("readings", sealed_name(number), PIECES, BLOCKS, COLUMNS):
            await world.database[name].delete_many(of_owner("owner-0"))

    await world.compact(erase)
    assert erased
    expected = {key: one for key, one in world.model.items() if decode_document(one)["_id"]["owner"] == "owner-1"}
    seen = await world.read()
    if point == "compactor.dropped":  # too late for the compactor; the next sweeps go over all places
        seen = {key: one for key, one in seen.items() if decode_document(one)["_id"]["owner"] == "owner-1"}
    assert seen == expected
    assert await world.database[COLUMNS].count_documents(of_owner("owner-0")) == 0
