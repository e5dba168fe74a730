"""What the compactor does with the list of sealed collections, its lease and its position."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from unittest.mock import AsyncMock

import pytest
from bson import Int64, ObjectId
from prometheus_client import CollectorRegistry
from pymongo.errors import BulkWriteError, OperationFailure, WriteConcernError

from broker.failpoints import Point
from persister.compaction import service
from persister.compaction.compactor import CompactionError, Compactor
from persister.compaction.lease import LeaseLostError
from persister.compaction.metrics import CompactorMetrics
from persister.compaction.pieces import Pieces
from persister.compaction.service import run
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import WriteFailed
from readings.keys import reading_key
from storage.places.names import BLOCKS, COLUMNS, PIECES, sealed_name
from storage.places.state import STATE
from testing.waiting import eventually
from tests.persister.compaction.world import START_MS, World, compact_with, reading

NEVER = asyncio.Event()
# As the driver raises them, for several documents and for one.
NOT_SAFE = {"code": 189, "errmsg": "Primary stepped down while waiting for replication"}
OUTAGES = [
    BulkWriteError({"writeErrors": [], "writeConcernErrors": [NOT_SAFE]}),
    BulkWriteError({"writeErrors": [{"index": 0, "code": 11602, "errmsg": "interrupted"}], "writeConcernErrors": []}),
    WriteConcernError("Primary stepped down while waiting for replication", 189, NOT_SAFE),
]


async def waiting(world: World) -> dict[int, dict[str, Any]]:
    state = await world.database[BLOCKS].find_one({"_id": STATE})
    return {int(one["number"]): one for one in state["waiting"]}


async def sealed(world: World, seals: int = 1, count: int = 300) -> None:
    for at in range(seals):
        await world.store(
            reading(f"device-{device}", at * 1000 + ts, ts / 4) for ts in range(count // 10) for device in range(10)
        )
        await world.seal()


async def test_nothing_was_ever_sealed(world: World) -> None:
    assert await world.compactor().compact_next(NEVER) is None
    assert await world.database.list_collection_names() == []


async def test_the_lowest_number_is_first_and_leaves_the_list_with_its_collection(world: World) -> None:
    await sealed(world, 3)
    compactor = world.compactor()
    for number in (1, 2, 3):
        found = await compactor.compact_next(NEVER)
        assert found is not None
        assert found.number == number
        assert sorted(await waiting(world)) == list(range(number + 1, 4))
        assert sealed_name(number) not in await world.database.list_collection_names()
        assert await world.read() == world.model
    assert await compactor.compact_next(NEVER) is None


async def test_repeats_are_counted_at_the_drop_and_a_redo_is_none(world: World) -> None:
    registry = CollectorRegistry()
    metrics = CompactorMetrics(registry)
    await world.store(reading("device-1", ts, 1) for ts in range(50))
    await world.seal()
    await compact_with(Compactor(world.database, metrics, cores=1000))
    await world.store(reading("device-1", ts, 2) for ts in range(30, 80))
    await world.seal()

    async def die(at: Point) -> None:
        if at == "compactor.before_drop":
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await compact_with(Compactor(world.database, metrics, cores=1000, step=die))
    assert registry.get_sample_value("tidegate_compactor_repeats_total") == 0
    await world.expire_lease()
    await compact_with(Compactor(world.database, metrics, cores=1000))
    assert registry.get_sample_value("tidegate_compactor_repeats_total") == 20
    assert registry.get_sample_value("tidegate_compactor_dropped_total") == 2
    assert await world.read() == world.model


async def test_a_stop_saves_the_position_and_the_next_one_goes_on_there(world: World) -> None:
    await sealed(world, 1, 3000)
    stop, batches = asyncio.Event(), 0

    async def after_two(at: Point) -> None:
        nonlocal batches
        batches += at == "compactor.pieces_inserted"
        if batches == 2:
            stop.set()

    first = world.compactor(after_two)
    await first.compact_next(stop)
    await first.lease.release()
    assert await world.read() == world.model
    assert sorted(await waiting(world)) == [1]
    second = await world.compact()
    assert 0 < first.totals.readings < 3000
    assert first.totals.readings + second.totals.readings == 3000
    assert await world.read() == world.model


async def test_another_process_waits_until_the_lease_is_given_up_or_runs_out(world: World) -> None:
    await sealed(world, 2)
    one, two = world.compactor(), world.compactor()
    assert await one.lease.acquire()
    with pytest.raises(LeaseLostError):
        await two.compact_next(NEVER)
    await one.lease.release()
    assert await two.compact_next(NEVER) is not None
    with pytest.raises(LeaseLostError):
        await one.compact_next(NEVER)
    await world.expire_lease()
    assert await one.compact_next(NEVER) is not None
    with pytest.raises(LeaseLostError):
        await two.lease.renew()


async def test_a_collection_that_fails_three_times_stays_readable_and_the_next_one_is_compacted(world: World) -> None:
    await sealed(world)
    await world.database["readings"].insert_one({"_id": "zzz"})
    await world.seal()
    await sealed(world)
    registry = CollectorRegistry()
    compactor = Compactor(world.database, CompactorMetrics(registry), cores=1000)
    stop = asyncio.Event()
    task = asyncio.create_task(run(compactor, stop))

    async def is_done() -> bool:
        return sorted(await waiting(world)) == [2] and (await waiting(world))[2]["aside"]

    await eventually(is_done, "given up")
    stop.set()
    await task
    await compactor.refresh_metrics()
    samples = {name: registry.get_sample_value(f"tidegate_compactor_{name}") for name in ("waiting", "given_up")}
    assert samples == {"waiting": 0, "given_up": 1}
    assert registry.get_sample_value("tidegate_compactor_failures_total") == 3
    assert (await waiting(world))[2]["failures"] == 3
    assert sealed_name(2) in await world.database.list_collection_names()


async def test_a_compactor_goes_on_when_mongodb_was_away_for_a_look_at_deleted_owners(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sealed(world)
    compactor, stop = world.compactor(), asyncio.Event()
    all_deleted, calls = MaintenanceStore.all_deleted, 0

    async def away_once(self: MaintenanceStore) -> tuple[list[str], int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise WriteFailed("away")
        return await all_deleted(self)

    monkeypatch.setattr(MaintenanceStore, "all_deleted", away_once)
    monkeypatch.setattr(service, "POLL_EVERY_S", 0.1)
    task = asyncio.create_task(run(compactor, stop))

    async def is_done() -> bool:
        return not await waiting(world)

    await eventually(is_done, "compacted")
    stop.set()
    await task
    assert await world.read() == world.model


@pytest.mark.parametrize("error", OUTAGES)
async def test_a_write_that_no_majority_has_is_no_failure_of_the_collection(
    world: World, monkeypatch: pytest.MonkeyPatch, error: OperationFailure
) -> None:
    await sealed(world)
    compactor = world.compactor()
    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "insert", AsyncMock(side_effect=error))
        with pytest.raises(type(error)):
            await compactor.compact_next(NEVER)
    assert (await waiting(world))[1]["failures"] == 0
    await compact_with(compactor)
    assert await world.read() == world.model


async def test_damaged_columns_are_a_failure_of_that_collection(world: World) -> None:
    await world.store(reading("device-1", ts, 1) for ts in range(12))
    await world.seal()
    await world.compact()
    assert await world.count(PIECES) == 1
    await world.database[PIECES].update_one({}, {"$set": {"columns": b"nothing"}})
    await world.store(reading("device-1", ts, 1) for ts in range(20, 40))
    await world.seal()
    with pytest.raises(CompactionError):
        await world.compact()
    assert sealed_name(2) in await world.database.list_collection_names()


async def test_a_damaged_head_is_a_failure_of_that_collection(world: World) -> None:
    start = reading_key("owner-1", "device-1", "temperature", START_MS, 0)
    damaged = {"_id": start, "until": 5, "last": 5, "edit": ObjectId(), "columns": ObjectId(), "count": 1}
    await world.store(reading("device-1", ts, 1) for ts in range(30))
    await world.seal()
    await world.database[BLOCKS].insert_one(damaged)
    with pytest.raises(CompactionError, match="not the head of a block"):
        await world.compact()
    assert sealed_name(1) in await world.database.list_collection_names()


async def test_a_number_without_a_collection_leaves_the_list_only_after_some_minutes(world: World) -> None:
    await sealed(world)
    state = world.database[BLOCKS]
    for number, at in ((50, datetime.now(UTC)), (60, datetime(2024, 1, 1, tzinfo=UTC))):
        one = {"number": Int64(number), "sealedAt": at, "failures": 0, "aside": False}
        await state.update_one({"_id": STATE}, {"$push": {"waiting": one}})
    await world.compact()
    assert sorted(await waiting(world)) == [50]


async def test_another_collection_of_the_same_name_is_not_dropped(world: World) -> None:
    await sealed(world)
    other = [reading("device-9", 5000 + ts, "restored") for ts in range(30)]

    is_restored = False

    async def restore(at: Point) -> None:
        nonlocal is_restored
        if at == "compactor.before_drop" and not is_restored:
            is_restored = True
            await world.database[sealed_name(1)].drop()
            await world.store(other)
            await world.database["readings"].rename(sealed_name(1))

    compactor = world.compactor(restore)
    await compactor.compact_next(NEVER)
    assert sorted(await waiting(world)) == [1]
    assert await world.read() == world.model
    await compact_with(compactor)
    assert sorted(await waiting(world)) == []
    assert await world.read() == world.model


async def test_readings_that_a_read_did_not_return_keep_the_collection(world: World) -> None:
    """A majority read of a collection that was just renamed may find it empty."""
    await sealed(world)
    hidden = "hidden"

    async def hide(at: Point) -> None:
        if at == "compactor.begun":
            await world.database[sealed_name(1)].rename(hidden)
        elif at == "compactor.before_save":
            await world.database[hidden].rename(sealed_name(1))

    compactor = world.compactor(hide)
    with pytest.raises(CompactionError):
        await compactor.compact_next(NEVER)
    assert await world.read() == world.model
    assert sealed_name(1) in await world.database.list_collection_names()


async def test_a_burst_of_late_readings_is_merged_into_its_blocks(world: World) -> None:
    await world.store(reading("device-1", ts, 1) for ts in range(0, 1000, 2))
    await world.seal()
    await world.compact()
    blocks = await world.count(BLOCKS)
    await world.store(reading("device-1", ts, 2, seq=seq) for ts in range(301, 401, 2) for seq in range(3))
    await world.seal()
    await world.compact()
    assert await world.read() == world.model
    assert await world.count(PIECES) == 0
    assert await world.count(BLOCKS) > blocks
    assert await world.count(BLOCKS) == await world.count(COLUMNS)


async def test_late_readings_that_are_spread_stay_pieces(world: World) -> None:
    await world.store(reading("device-1", ts, 1) for ts in range(3000))
    await world.seal()
    await world.compact()
    columns = await world.columns()
    for seal in range(5):
        await world.store(reading("device-1", ts, 2, seq=1) for ts in range(seal * 50, 3000, 250))
        await world.seal()
        await world.compact()
        assert len(await world.database[PIECES].distinct("run")) <= 3 + 1
    assert await world.columns() == columns
    assert await world.read() == world.model
