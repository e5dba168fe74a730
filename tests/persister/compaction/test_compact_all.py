"""`compact --all` has sealed and compacted what was there when it began, whoever else seals or compacts meanwhile."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from persister.compaction import compact_all as module
from persister.compaction.command import sealing
from persister.compaction.compact_all import Compacted, compact_all
from persister.compaction.service import SealNow
from persister.maintenance.readings_collection import ReadingsCollection
from persister.sealing.state_document import MAX_WAITING
from persister.settings import CompactSettings
from storage.places.names import BLOCKS
from storage.places.state import STATE
from tests.persister.compaction.world import World, compact_with, reading

TOO_MANY = "`readings` could not be sealed yet; trying again …"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER_S", 0.05)


def seal_now(world: World) -> SealNow:
    return sealing(CompactSettings(readings_url="mongodb://unused"), world.database)


async def full(world: World) -> None:
    """Let as many sealed collections wait as may, beside new readings."""
    for number in range(MAX_WAITING):
        await world.store(reading("device-1", number * 40 + ts, 1) for ts in range(40))
        await world.seal()
    await world.store(reading("device-1", 9000 + ts, 1) for ts in range(10))


async def compact(world: World, lines: list[str]) -> Compacted:
    async with asyncio.timeout(30):
        return await compact_all(world.compactor(), seal_now(world), lines.append)


async def said(lines: list[str], text: str) -> None:
    async with asyncio.timeout(30):
        while not any(text in line for line in lines):
            await asyncio.sleep(0.01)


async def assert_nothing_waits(world: World) -> None:
    assert await world.count("readings") == 0
    state = await world.database[BLOCKS].find_one({"_id": STATE})
    assert state["waiting"] == []
    assert await world.read() == world.model


async def test_it_seals_once_more_when_too_many_waited_before(world: World) -> None:
    await full(world)
    lines: list[str] = []
    done = await compact(world, lines)
    assert (done.collections, done.readings) == (MAX_WAITING + 1, MAX_WAITING * 40 + 10)
    assert lines.count(TOO_MANY) == 1
    await assert_nothing_waits(world)


async def test_it_seals_when_another_process_has_compacted_what_waited(world: World) -> None:
    await full(world)
    other = world.compactor()
    assert await other.lease.acquire()
    lines: list[str] = []
    running = asyncio.ensure_future(compact(world, lines))
    await said(lines, "another process has the lease")
    await compact_with(other)
    done = await running
    assert (done.collections, done.readings) == (1, 10)
    await assert_nothing_waits(world)


async def test_it_waits_for_the_lease_of_a_persister_that_died_while_it_sealed(world: World) -> None:
    await world.store(reading("device-1", ts, 1) for ts in range(40))
    await world.seal()
    await world.store(reading("device-1", 9000 + ts, 1) for ts in range(10))
    until = {"sealing": {"holder": "x", "until": datetime.now(UTC) + timedelta(seconds=2)}}
    await world.database[BLOCKS].update_one({"_id": STATE}, {"$set": until})
    lines: list[str] = []
    assert (await compact(world, lines)).collections == 2
    assert lines.count(TOO_MANY) == 1
    await assert_nothing_waits(world)


async def test_it_ends_when_given_up_collections_leave_no_room(world: World) -> None:
    await full(world)
    await world.database[BLOCKS].update_one({"_id": STATE}, {"$set": {"waiting.$[].aside": True}})
    done = await compact(world, [])
    assert (done.collections, len(done.left)) == (0, MAX_WAITING)
    assert await world.count("readings") == 10


async def test_what_arrives_while_it_seals_is_not_sealed_once_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = ReadingsCollection.create

    async def and_store(self: ReadingsCollection) -> None:
        await create(self)
        await world.store([reading("device-1", world.repeats + 9000, 1)])
        world.repeats += 1

    await world.store(reading("device-1", ts, 1) for ts in range(40))
    monkeypatch.setattr(ReadingsCollection, "create", and_store)
    done = await compact(world, [])
    assert (done.collections, done.readings) == (1, 40)
    assert await world.count("readings") == 1
