"""Retention beside a compactor that died, or is about, in the middle of a change of the same blocks."""

import pytest

from broker.failpoints import Point
from persister.maintenance.removal import Removal
from readings.document import decode_document, position_of
from storage.places.names import BLOCKS
from tests.persister.compaction.world import POINTS, START_MS, World, reading

SERIES = {"owner": "owner-1", "device": "device-1", "sensorType": "temperature"}
LIMIT_MS = START_MS + 45_000


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("point", POINTS)
async def test_retention_in_the_middle_of_a_change_removes_only_what_is_old(
    world: World, point: str, dies: bool
) -> None:
    removal = Removal(world.database)
    await world.store([reading("device-1", ts, 1) for ts in range(40)])
    await world.seal()
    await world.compact()
    assert await world.count(BLOCKS) == 2
    await world.store([reading("device-1", ts, 2) for ts in range(40, 60)])
    await world.store([reading("device-1", ts * 3, 3, seq=1) for ts in range(20)])
    await world.seal()
    passed = False

    async def step(at: Point) -> None:
        nonlocal passed
        if at == point and not passed:
            passed = True
            await removal.before(SERIES, LIMIT_MS)
            if dies:
                raise Killed

    try:
        await world.compact(step)
    except Killed:
        await world.expire_lease()
    assert passed
    for _ in range(2):
        kept = {key: one for key, one in world.model.items() if position_of(decode_document(one))[0] >= LIMIT_MS}
        seen = await world.read()
        assert kept.items() <= seen.items(), "a reading within the limit is gone"
        assert seen.items() <= world.model.items()
        await world.compact()
        await removal.before(SERIES, LIMIT_MS)
    assert await world.garbage() == (0, 0)


@pytest.mark.parametrize("point", POINTS)
async def test_retention_leaves_a_block_alone_that_a_compactor_has_just_made_live(world: World, point: str) -> None:
    await world.store([reading("device-1", ts, 1) for ts in range(40)])
    await world.seal()
    await world.compact()
    await world.store([reading("device-1", ts, 2) for ts in range(46, 66)])
    await world.seal()

    async def die(at: Point) -> None:
        if at == "compactor.head_replaced":
            raise Killed

    async def remove(at: Point) -> None:
        if at == point:
            await Removal(world.database).before(SERIES, LIMIT_MS)

    with pytest.raises(Killed):
        await world.compact(die)
    await world.expire_lease()
    await world.compact(remove)
    await Removal(world.database).before(SERIES, LIMIT_MS)
    seen = [position_of(decode_document(one))[0] for one in (await world.read()).values()]
    assert sorted(seen) == [START_MS + ts * 1000 for ts in range(46, 66)]
    assert await world.garbage() == (0, 0)


async def test_a_block_that_is_changed_meanwhile_stays_and_so_do_those_behind_it(world: World) -> None:
    await world.store(reading("device-1", ts, 1) for ts in range(0, 400, 2))
    await world.seal()
    await world.compact()

    class Interrupted(Removal):
        is_changed = False

        async def _pause(self, seconds: float) -> None:
            await super()._pause(seconds)
            if self.deleted and not self.is_changed:
                self.is_changed = True
                heads = [head for head, _ in await world.live()]
                first = (heads[0].start[0] - START_MS) // 1000
                await world.store(reading("device-1", first + ts, 2) for ts in range(1, 40, 2))
                await world.seal()
                await world.compact()

    removal = Interrupted(world.database)
    await removal.before(SERIES, START_MS + 390_000)
    assert removal.is_changed
    assert (await world.read()).items() <= world.model.items()  # the blocks follow each other
    await Removal(world.database).before(SERIES, START_MS + 390_000)
    seen = [position_of(decode_document(one))[0] for one in (await world.read()).values()]
    assert min(seen) > START_MS + 300_000
    assert await world.garbage() == (0, 0)
