"""The lease of compaction and what is kept in its document."""

import asyncio
from datetime import UTC, datetime

import pytest
from bson import Int64

from broker.failpoints import Point
from persister.compaction import batch, compactor, lease, scan
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
    assert lease.LEASE_S / 2 < one.left_s < lease.LEASE_S
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
    own = Lease(world.database)
    await own.acquire()
    assert own.progress_of(1, "uuid") is None
    saved = Progress(1, "uuid", KEY, repeats=3, deletions=4)
    await own.save(saved)
    other = Lease(world.database)
    await own.release()
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
    own = Lease(world.database)
    await own.acquire()
    await own.save(Progress(2, "uuid", KEY))
    await own.remove(1)
    await own.acquire()
    assert [one.number for one in own.waiting] == [2]
    assert own.progress_of(2, "uuid") is not None
    await own.remove(2)
    await own.acquire()
    assert own.waiting == []
    assert own.progress_of(2, "uuid") is None


async def test_the_third_failure_sets_a_collection_aside_and_others_count_their_own(world: World) -> None:
    await sealed(world)
    own = Lease(world.database)
    await own.acquire()
    assert [await own.record_failure(2) for _ in range(3)] == [False, False, True]
    assert {one.number: (one.failures, one.is_given_up) for one in await own.read()} == {1: (0, False), 2: (3, True)}
    state = await world.database[BLOCKS].find_one({"_id": STATE})
    assert state["waiting"][1]["number"] == Int64(2)


async def test_it_is_kept_while_one_batch_takes_longer_than_it_lasts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_MARGIN_S", 0.1)
    for module in (lease, compactor):
        monkeypatch.setattr(module, "LEASE_S", 1.0)
    monkeypatch.setattr(scan, "CHUNKS_PER_BATCH", 100)
    # The pieces and the new readings of each series are a part of the batch by themselves.
    await world.store(reading(f"device-{device:02}", ts, 1) for device in range(12) for ts in range(12))
    await world.seal()
    await world.compact()
    await world.store(reading(f"device-{device:02}", 100 + ts, 1) for device in range(12) for ts in range(5))
    await world.seal()
    monkeypatch.setattr(batch, "READINGS_AT_ONCE", 20)

    async def slow(at: Point) -> None:
        if at == "compactor.before_columns":
            await asyncio.sleep(0.3)

    await world.compact(slow)
    assert await world.count(BLOCKS) == 12
    assert await world.read() == world.model
