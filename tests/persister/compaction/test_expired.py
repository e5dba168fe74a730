"""What is past its retention is cut off the blocks and pieces that have newer readings, too."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from broker.failpoints import Point
from persister.compaction import expired
from persister.compaction.compactor import Compactor
from persister.compaction.expired import JOB
from persister.compaction.metrics import CompactorMetrics
from persister.maintenance.removal import Removal
from persister.sealing.state_document import CONFIRMED_AT, StateDocument
from readings.document import decode_document, position_of
from storage.places.names import BLOCKS, PIECES
from storage.places.state import DAY_MS, STATE
from tests.persister.compaction.world import START_MS, World, reading

CUT_POINTS = ["compactor.before_columns", "compactor.columns_inserted", "compactor.head_replaced"]
SERIES = {"owner": "owner-1", "device": "device-1", "sensorType": "temperature"}


class Killed(Exception):
    """Stands for the end of the process."""


async def publish(world: World, limit_ms: int, monkeypatch: pytest.MonkeyPatch, device: str = "device-1") -> None:
    """Let readings of the series before a time be past their retention from now on, and a round be due."""
    monkeypatch.setattr("persister.compaction.expired.now_ms", lambda: limit_ms + DAY_MS)
    await StateDocument(world.database).publish_retention(1, {})
    series = SERIES | {"device": device}
    await world.database["series"].update_one({"_id": series}, {"$set": {"firstSeenAt": 0}}, upsert=True)
    long_ago = {"$set": {"dueAt": datetime(2000, 1, 1, tzinfo=UTC)}}
    await world.database["chores"].update_one({"_id": JOB}, long_ago, upsert=True)


async def older_than(world: World, limit_ms: int) -> int:
    """Return how many readings before a time are stored; nothing else may be missing."""
    kept = {key: one for key, one in world.model.items() if position_of(decode_document(one))[0] >= limit_ms}
    seen = await world.read()
    assert kept.items() <= seen.items(), "a reading within the limit is gone"
    assert seen.items() <= world.model.items()
    return len(seen) - len(kept)


async def stored_in(world: World, where: str, readings: int) -> None:
    await world.store([reading("device-1", ts, ts / 4) for ts in range(readings)])
    await world.seal()
    await world.compact()
    assert await world.count(where)


@pytest.mark.parametrize(("where", "readings"), [(BLOCKS, 64), (PIECES, 14)])
async def test_half_of_a_block_or_piece_is_cut_off_and_less_is_not(
    world: World, where: str, readings: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored_in(world, where, readings)
    first = 32 if where == BLOCKS else readings
    for past, left in (first // 2 - 2, first // 2 - 2), (first // 2 + 1, 0), (first // 2 + 3, 2), (first - 1, 0):
        limit_ms = START_MS + past * 1000
        await publish(world, limit_ms, monkeypatch)
        await Removal(world.database).before(SERIES, limit_ms)
        before = await older_than(world, limit_ms)
        cut = await world.compactor().cut_expired(asyncio.Event())
        await world.expire_lease()
        assert (await older_than(world, limit_ms), cut) == (left, before - left)
        assert await world.garbage() == (0, 0)
    # What came behind it is compacted as ever.
    await world.store([reading("device-1", ts, 1) for ts in range(100, 140)])
    await world.seal()
    await world.compact()
    assert await older_than(world, limit_ms) == 0
    assert await world.garbage() == (0, 0)


async def two_thirds_expired(world: World, monkeypatch: pytest.MonkeyPatch) -> int:
    """Store two blocks, let two thirds of the first one be past their retention, and return since when."""
    await stored_in(world, BLOCKS, 60)
    limit_ms = START_MS + 20_000
    await publish(world, limit_ms, monkeypatch)
    return limit_ms


@pytest.mark.parametrize("point", CUT_POINTS)
async def test_a_compactor_that_dies_while_it_cuts_leaves_nothing_behind(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_ms = await two_thirds_expired(world, monkeypatch)

    async def step(at: Point) -> None:
        if at == point:
            raise Killed

    with pytest.raises(Killed):
        await world.compactor(step).cut_expired(asyncio.Event())
    await world.expire_lease()
    await older_than(world, limit_ms)
    await publish(world, limit_ms, monkeypatch)
    await world.compactor().cut_expired(asyncio.Event())
    await world.expire_lease()
    assert await older_than(world, limit_ms) == 0
    assert await world.garbage() == (0, 0)


@pytest.mark.parametrize("point", ["compactor.before_columns", "compactor.columns_inserted"])
async def test_retention_that_deletes_the_block_meanwhile_wins(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_thirds_expired(world, monkeypatch)

    async def step(at: Point) -> None:
        if at == point:
            await Removal(world.database).before(SERIES, START_MS + 40_000)

    assert await world.compactor(step).cut_expired(asyncio.Event()) == 0
    assert await older_than(world, START_MS + 40_000) <= 32
    assert await world.garbage() == (0, 0)


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("point", CUT_POINTS)
async def test_an_owner_who_is_erased_meanwhile_leaves_nothing(
    world: World, point: str, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_thirds_expired(world, monkeypatch)

    async def step(at: Point) -> None:
        if at == point:
            await Removal(world.database).of_owner("owner-1")
            if dies:
                raise Killed

    with suppress(Killed):
        await world.compactor(step).cut_expired(asyncio.Event())
    await Removal(world.database).of_owner("owner-1")  # the next sweep
    assert await world.read() == {}
    assert await world.garbage() == (0, 0)
    assert not await world.columns()


@pytest.mark.parametrize("point", CUT_POINTS)
async def test_another_compactor_that_takes_over_in_the_middle_of_a_cut_does_it_once(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_ms = await two_thirds_expired(world, monkeypatch)
    others = list[int]()

    async def step(at: Point) -> None:
        if at == point:  # as if this process had been stopped until its lease was over
            await world.expire_lease()
            await publish(world, limit_ms, monkeypatch)
            others.append(await world.compactor().cut_expired(asyncio.Event()))
            await world.expire_lease()

    cut = await world.compactor(step).cut_expired(asyncio.Event())
    assert len(others) == 1
    assert await older_than(world, limit_ms) == 0
    assert cut + others[0] == 20
    assert await world.garbage() == (0, 0)


async def test_a_round_is_due_once_an_hour_for_all_compactors_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored_in(world, PIECES, 12)
    await publish(world, START_MS + 6_000, monkeypatch)
    assert await world.compactor().cut_expired(asyncio.Event()) == 6
    await world.expire_lease()
    monkeypatch.setattr("persister.compaction.expired.now_ms", lambda: START_MS + 11_000 + DAY_MS)
    assert await world.compactor().cut_expired(asyncio.Event()) == 0


async def test_a_round_that_takes_long_is_followed_by_a_longer_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored_in(world, PIECES, 12)
    await publish(world, START_MS + 6_000, monkeypatch)
    monkeypatch.setattr(expired, "PAUSE_FACTOR", 1e9)
    assert await world.compactor().cut_expired(asyncio.Event()) == 6
    due = (await world.database["chores"].find_one({"_id": JOB}))["dueAt"]
    # Of no time at all it is none, and then it would be an hour; a first step has taken some milliseconds.
    assert due.replace(tzinfo=UTC) - datetime.now(UTC) > timedelta(hours=2)


async def test_without_a_retention_nothing_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await stored_in(world, PIECES, 12)
    await publish(world, START_MS + 6_000, monkeypatch)
    await StateDocument(world.database).publish_retention(0, {})
    assert await world.compactor().cut_expired(asyncio.Event()) == 0
    assert await older_than(world, START_MS + 6_000) == 6


async def test_by_a_retention_that_no_persister_confirms_nothing_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a restored copy: the settings may say something else now."""
    await stored_in(world, PIECES, 12)
    await publish(world, START_MS + 6_000, monkeypatch)
    old = datetime.now(UTC) - timedelta(minutes=25)
    await world.database[BLOCKS].update_one({"_id": STATE}, {"$set": {CONFIRMED_AT: old}})
    assert await world.compactor().cut_expired(asyncio.Event()) == 0
    assert await older_than(world, START_MS + 6_000) == 6


async def test_a_round_goes_on_where_its_last_step_ended_and_a_damaged_piece_holds_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired, "STEP_S", 0.01)
    monkeypatch.setattr(expired, "SERIES_PER_QUERY", 1)
    devices = [f"device-{at}" for at in range(4)]
    for device in devices:
        await world.store([reading(device, ts, 1) for ts in range(12)])
    await world.seal()
    await world.compact()
    for device in devices:
        await publish(world, START_MS + 6_000, monkeypatch, device)
    change = {"$unset": {"run": ""}}
    await world.database[PIECES].update_one({"_id.device": "device-1"}, change)
    compactor, cut = world.compactor(), list[int]()
    for _ in range(20):
        cut.append(await compactor.cut_expired(asyncio.Event()))
    assert sum(cut) == 18
    assert max(cut) < 18, "all of it was done in one step"


async def test_a_round_obeys_a_stop_and_is_not_paused_for_what_the_process_did_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored_in(world, PIECES, 12)
    await publish(world, START_MS + 6_000, monkeypatch)
    stop = asyncio.Event()
    stop.set()
    compactor = Compactor(world.database, CompactorMetrics(CollectorRegistry()), cores=0.25)
    assert await compactor.cut_expired(stop) == 0
    used = time.process_time()
    while time.process_time() - used < 1.0:
        pass
    started = time.monotonic()
    assert await compactor.cut_expired(asyncio.Event()) == 6
    assert time.monotonic() - started < 4.0, "8 s of pause for 1 s of processor time"
    assert compactor.lease.left_s > 0
