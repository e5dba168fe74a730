"""The lease of compaction and what is kept in its document."""

from datetime import UTC, datetime

import pytest
from bson import Int64

from persister.compaction.lease import Lease, LeaseLostError, Progress
from storage.places.names import BLOCKS
from storage.places.state import STATE
from tests.persister.compaction.world import World, reading

KEY = {"owner": "o", "device": "$set", "sensorType": "t", "ts": datetime(2026, 1, 1, tzinfo=UTC), "seq": 1}


async def sealed(world: World, seals: int = 2) -> None:
    for number in range(seals):
        await world.store([reading("device-0", number, 1)])
        await world.seal()


async def test_only_one_holder_has_it_until_it_runs_out(world: World) -> None:
    await sealed(world)
    one, two = Lease(world.database), Lease(world.database)
    assert await one.acquire()
    assert await one.acquire(), "a repetition renews it"
    with pytest.raises(LeaseLostError):
        await two.acquire()
    assert 20 < one.left_s < 30
    await world.expire_lease()
    assert await two.acquire()
    assert two.is_unclean, "its holder did not give it up"
    for call in (one.renew, one.mark_blocks, one.cleaned):
        with pytest.raises(LeaseLostError):
            await call()
    await one.release()
    assert await two.acquire(), "another holder's release has no effect"


async def test_a_lease_that_was_given_up_leaves_nothing_to_clean(world: World) -> None:
    await sealed(world)
    one, two = Lease(world.database), Lease(world.database)
    await one.acquire()
    await one.release()
    with pytest.raises(LeaseLostError):
        one.left_s  # noqa: B018 - raises
    await two.acquire()
    assert not two.is_unclean
    two.is_dirty = True
    await two.release()
    await one.acquire()
    assert one.is_unclean
    await one.cleaned()
    await one.acquire()
    assert not one.is_unclean


async def test_a_position_is_found_again_by_number_and_uuid(world: World) -> None:
    await sealed(world)
    lease = Lease(world.database)
    await lease.acquire()
    assert lease.progress_of(1, "uuid") is None
    saved = Progress(1, "uuid", KEY, repeats=3, deletions=4)
    await lease.save(saved)
    other = Lease(world.database)
    await lease.release()
    await other.acquire()
    found = other.progress_of(1, "uuid")
    assert found is not None
    assert (found.repeats, found.deletions) == (3, 4)
    assert found.done is not None
    assert found.done["device"] == "$set"
    assert other.progress_of(1, "another") is None
    assert other.progress_of(2, "uuid") is None


async def test_a_number_that_leaves_the_list_takes_only_its_own_position_along(world: World) -> None:
    await sealed(world)
    lease = Lease(world.database)
    await lease.acquire()
    await lease.save(Progress(2, "uuid", KEY))
    await lease.remove(1)
    await lease.acquire()
    assert [one.number for one in lease.waiting] == [2]
    assert lease.progress_of(2, "uuid") is not None
    await lease.remove(2)
    await lease.acquire()
    assert lease.waiting == []
    assert lease.progress_of(2, "uuid") is None


async def test_the_third_failure_sets_a_collection_aside_and_others_count_their_own(world: World) -> None:
    await sealed(world)
    lease = Lease(world.database)
    await lease.acquire()
    assert [await lease.record_failure(2) for _ in range(3)] == [False, False, True]
    assert {one.number: (one.failures, one.is_given_up) for one in await lease.read()} == {1: (0, False), 2: (3, True)}
    state = await world.database[BLOCKS].find_one({"_id": STATE})
    assert state["waiting"][1]["number"] == Int64(2)
