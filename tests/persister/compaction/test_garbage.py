"""What ended compactors left is removed, also where retention has removed the blocks around it."""

import asyncio

import pytest
from bson import ObjectId

from broker.failpoints import Point
from persister.compaction import garbage
from persister.compaction.lease import Lease
from persister.maintenance.removal import Removal
from readings.keys import reading_key, series_key
from storage.places.names import BLOCKS, COLUMNS
from tests.persister.compaction.world import START_MS, World, reading

SERIES = series_key("owner-1", "device-1", "temperature")


class Killed(Exception):
    """Stands for the end of the process."""


async def left_by(world: World, point: Point) -> None:
    """Let a compactor die in the middle of a change of the first of several blocks."""
    await world.store(reading("device-1", ts, 1) for ts in range(0, 400, 2))
    await world.seal()
    await world.compact()
    await world.store(reading("device-1", ts, 2) for ts in range(1, 61, 2))
    await world.seal()

    async def step(at: Point) -> None:
        if at == point:
            raise Killed

    with pytest.raises(Killed):
        await world.compact(step)
    await world.expire_lease()


@pytest.mark.parametrize("point", ["compactor.columns_inserted", "compactor.heads_inserted"])
async def test_it_is_removed_when_the_blocks_around_it_are_gone(world: World, point: Point) -> None:
    await left_by(world, point)
    assert sum(await world.garbage()) > 0
    await Removal(world.database).before(SERIES, START_MS + 200_000)
    await world.compact()
    assert await world.garbage() == (0, 0)


@pytest.mark.parametrize("is_pending", [True, False])
async def test_a_damaged_head_does_not_keep_the_garbage_of_other_series(world: World, is_pending: bool) -> None:
    await left_by(world, "compactor.heads_inserted")
    blocks = world.database[BLOCKS]
    damaged = reading_key("owner-1", "device-0", "temperature", START_MS, 0)
    await blocks.insert_one({"_id": damaged} | ({"pending": True} if is_pending else {}))
    number = await world.database[COLUMNS].insert_one({"_id": {**damaged, "id": ObjectId()}})
    compactor = world.compactor()
    assert await compactor.cut_expired(asyncio.Event()) == 0
    await blocks.delete_one({"_id": damaged})
    await world.database[COLUMNS].delete_one({"_id": number.inserted_id})
    assert await world.garbage() == (0, 0)
    await compactor.lease.release()


async def test_the_lease_is_kept_during_a_long_look_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "HEADS_PER_READ", 2)
    await world.store(reading("device-1", ts, 1) for ts in range(400))
    await world.seal()
    await world.compact()
    heads = await world.count(BLOCKS)
    renewals = 0
    renew = Lease.renew

    async def counted(self: Lease) -> None:
        nonlocal renewals
        renewals += 1
        await renew(self)

    monkeypatch.setattr(Lease, "renew", counted)
    compactor = world.compactor()
    assert await compactor.lease.acquire()
    await compactor.remove_garbage()
    assert renewals > heads // 2
    assert await world.read() == world.model
    await compactor.lease.release()
