"""`unseal` puts every reading back, each with its first value, wherever it is interrupted and run again."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson import Int64
from structlog.testing import capture_logs

from broker.deleted_owner import DeletedOwner
from broker.failpoints import Point
from persister.collections import ZSTD, drop_if_same
from persister.compaction import service, unseal
from persister.compaction.compact_all import compact_all
from persister.compaction.lease import LeaseLostError
from persister.compaction.unseal import Unsealed, UnsealRefusedError, unseal_all
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import WriteFailed
from persister.sealing.state_document import StateDocument
from readings.document import decode_document
from readings.keys import series_key
from runtime.mongodb import mongodb_client
from storage.places import loose
from storage.places.names import BEGINNING, BLOCKS, COLUMNS, END, PIECES, sealed_name
from storage.places.reading import Places
from storage.places.state import STATE, State, state_in
from storage.places.window import Window
from tests.persister.compaction.world import Source, World, reading


class Killed(Exception):
    """Stands for the end of the process."""


async def put_back(world: World, *, is_forced: bool = False) -> Unsealed:
    return await unseal_all(world.database, lambda _: None, clustered=False, is_forced=is_forced)


async def mixed(world: World) -> None:
    """Fill blocks, pieces, two sealed collections, one in the middle of its compaction, and `readings`."""
    source = Source(3)
    for _ in range(4):
        await world.store(source.batch())
        await world.seal()
    await world.compact()
    for _ in range(2):
        await world.store(source.batch())
        await world.seal()

    async def die(at: Point) -> None:
        if at == "compactor.pieces_inserted":
            raise Killed

    with pytest.raises(Killed):
        await world.compact(die)
    await world.expire_lease()
    await world.database.create_collection("readings", storageEngine=ZSTD["storageEngine"])
    await world.store(source.batch())


async def assert_only_readings(world: World) -> None:
    names = set(await world.database.list_collection_names())
    assert names - {"deleted_owners", "deletions", "series"} == {"readings", BLOCKS}
    assert await world.count(BLOCKS) == 0
    state = await world.database[BLOCKS].find_one({"_id": STATE})
    assert not {"unsealing", "compaction"} & state.keys()
    assert (state["waiting"], state["blocks"]) == ([], False)


async def test_everything_is_back_with_its_first_value(world: World) -> None:
    await mixed(world)
    before = await world.read()
    assert before == world.model
    done = await put_back(world)
    assert done.readings >= len(before) - 300
    assert await world.read() == before
    await assert_only_readings(world)
    state = await world.database[BLOCKS].find_one({"_id": STATE})
    assert state["highest"] == world.number, "numbers are never used twice"


async def test_a_first_copy_in_a_collection_that_was_given_up_wins_against_blocks(world: World) -> None:
    await world.store([reading("device-1", ts, "first") for ts in range(0, 40, 2)])
    await world.seal()
    await world.store([reading("device-1", ts, "second") for ts in range(40)])
    await world.seal()
    await world.database[BLOCKS].update_one({"_id": STATE}, {"$set": {"waiting.0.aside": True}})
    await world.compact()
    await world.store([reading("device-1", ts, "third") for ts in range(50)])
    assert {sealed_name(1)} == {name for name in await world.database.list_collection_names() if "sealed" in name}
    await put_back(world)
    assert await world.read() == world.model
    await assert_only_readings(world)


async def test_interrupted_anywhere_and_run_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await mixed(world)
    before = await world.read()
    monkeypatch.setattr(unseal, "READINGS_PER_WRITE", 100)
    calls = most = 0
    for most in range(1, 300, 4):
        calls = 0

        def counted(method: Callable[..., Awaitable[Any]], most: int = most) -> Callable[..., Awaitable[Any]]:
            async def call(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > most:
                    raise Killed
                return await method(*arguments)

            return call

        with monkeypatch.context() as patch:
            for name in ("_write", "_commit", "_renew"):
                patch.setattr(unseal._Unseal, name, counted(getattr(unseal._Unseal, name)))
            patch.setattr(unseal, "drop_if_same", counted(drop_if_same))
            try:
                await put_back(world)
            except Killed:
                assert await world.read() == before
                continue
        break
    assert most > 20
    assert await world.read() == before
    await assert_only_readings(world)


async def nothing_to_seal() -> bool:
    """Seal nothing."""
    return True


async def test_compactors_keep_away_until_it_is_done(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await mixed(world)

    async def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(unseal._Unseal, "_commit", die)
        with pytest.raises(Killed):
            await put_back(world)
    with pytest.raises(LeaseLostError, match="unseal"):
        await world.compactor().compact_next(asyncio.Event())
    lines: list[str] = []
    compacting = asyncio.ensure_future(compact_all(world.compactor(), nothing_to_seal, lines.append))
    async with asyncio.timeout(30):
        while not any("`unseal` has begun and is not done; waiting" in line for line in lines):
            await asyncio.sleep(0.01)
    compacting.cancel()
    await asyncio.wait((compacting,))
    stop = asyncio.Event()
    with capture_logs() as logs:
        serving = asyncio.ensure_future(service.run(world.compactor(), stop))
        async with asyncio.timeout(30):
            while not any("unseal` is not done" in line["event"] for line in logs):
                await asyncio.sleep(0.01)
        stop.set()
        await serving
    sealing = StateDocument(world.database)
    assert await sealing.claim("sealer", 10)
    assert await sealing.take_number("sealer") is None
    await sealing.release("sealer")
    await put_back(world)
    assert await world.compactor().compact_next(asyncio.Event()) is None
    assert await sealing.claim("sealer", 10)
    assert await sealing.take_number("sealer") == world.number + 1


async def test_a_reader_who_began_before_finds_everything(
    world: World, mongodb_database: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read `readings` before the first reading is put back, and goes on when the last one is."""
    await mixed(world)
    sensor = series_key("owner-1", "device-1", "temperature")
    has_read, is_back = threading.Event(), threading.Event()

    def state_when_all_is_back(blocks: Any, session: Any) -> State:
        if not has_read.is_set():
            has_read.set()
            assert is_back.wait(30)
        return state_in(blocks, session)

    def report(line: str) -> None:
        if "waiting for readers" in line:
            is_back.set()

    async def unsealed() -> None:
        await unseal_all(world.database, report, clustered=False, is_forced=False)
        is_back.set()

    async with mongodb_client(mongodb_database[0], name="reader", timeout_s=20) as client:
        places = Places(client, mongodb_database[1])
        await places.documents(Window(sensor, BEGINNING, END), 1)  # so that the state is not read first
        await asyncio.sleep(loose.STATE_S)
        monkeypatch.setattr(unseal, "READERS_S", 2.0)
        monkeypatch.setattr("storage.places.loose.state_in", state_when_all_is_back)
        reading_all = asyncio.ensure_future(places.documents(Window(sensor, BEGINNING, END), 100_000))
        await asyncio.to_thread(has_read.wait, 30)
        await unsealed()
        found = await reading_all
    names = [(one["_id"]["owner"], one["_id"]["device"]) for one in map(decode_document, world.model.values())]
    assert len(found) == names.count(("owner-1", "device-1"))


async def test_it_refuses_beside_a_compactor_or_a_sealer(world: World) -> None:
    await mixed(world)
    other = world.compactor()
    assert await other.lease.acquire()
    with pytest.raises(UnsealRefusedError, match="compactor"):
        await put_back(world)
    await other.lease.release()
    until = {"sealing": {"holder": "x", "until": datetime.now(UTC) + timedelta(minutes=1)}}
    await world.database[BLOCKS].update_one({"_id": STATE}, {"$set": until})
    with pytest.raises(UnsealRefusedError, match="SEALING=off"):
        await put_back(world)
    assert await world.count(PIECES) + await world.count(COLUMNS) > 0
    await put_back(world, is_forced=True)
    await assert_only_readings(world)


async def test_what_was_sealed_meanwhile_is_put_back_by_the_next_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A persister that took its number before the command began, and was stopped, renames in the middle of it."""
    await world.store([reading("device-1", ts, "first") for ts in range(40)])
    await world.seal()
    await world.compact()
    await world.store([reading("device-1", ts, "second") for ts in range(40)])
    await world.seal()
    await world.store([reading("device-1", ts, "third") for ts in range(40)])
    put_back_blocks = unseal._Unseal._put_back_blocks

    async def after_a_seal(self: Any) -> None:
        await world.database["readings"].rename(sealed_name(99))
        one = {"number": Int64(99), "sealedAt": datetime.now(UTC), "failures": 0, "aside": False}
        await world.database[BLOCKS].update_one({"_id": STATE}, {"$push": {"waiting": one}})
        await put_back_blocks(self)

    with monkeypatch.context() as patch:
        patch.setattr(unseal._Unseal, "_put_back_blocks", after_a_seal)
        with pytest.raises(WriteFailed, match="sealed meanwhile"):
            await put_back(world, is_forced=True)
    assert await world.read() == world.model
    await put_back(world)
    assert await world.read() == world.model
    await assert_only_readings(world)


async def test_an_erased_owner_does_not_come_back(world: World) -> None:
    await mixed(world)
    maintenance = MaintenanceStore(world.database)
    await maintenance.prepare()
    await maintenance.write_tombstone(DeletedOwner("owner-0", 0))
    await put_back(world)
    owners = {decode_document(one)["_id"]["owner"] for one in (await world.read()).values()}
    assert owners == {"owner-1"}


async def test_nothing_was_ever_sealed(world: World) -> None:
    assert await put_back(world) == Unsealed(0, 0)
