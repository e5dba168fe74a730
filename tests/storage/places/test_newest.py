"""What is remembered of the newest readings is asked again when it may have become wrong."""

import gc
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64, ObjectId

from readings.collections import READINGS
from readings.document import AS_MILLISECONDS
from runtime.mongodb import mongodb_client
from storage.places import newest
from storage.places.documents import piece_document
from storage.places.each import Document, Pipeline, find_each
from storage.places.names import BLOCKS, PIECES, sealed_name
from storage.places.newest import Newest
from storage.places.reading import Places
from storage.places.state import STATE
from tests.storage.codec.cases import DEVICE, OWNER, SENSOR_TYPE, START_MS, columns, document
from tests.storage.places.layout import SERIES, newest_of

ONE = (DEVICE, SENSOR_TYPE)


class World:
    """A database, and the newest reading of its one series."""

    def __init__(self, client: Any, name: str) -> None:
        self.database = client[name]
        self.newest = Newest(Places(client, name))

    async def state(self, highest: int, *waiting: int, has_blocks: bool = False, **more: Any) -> None:
        """Store the state: what waits is renamed if it exists."""
        names = await self.database.list_collection_names()
        listed = [{"number": Int64(number), "renamed": sealed_name(number) in names} for number in waiting]
        state = {"_id": STATE, "highest": Int64(highest), "waiting": listed, "blocks": has_blocks, **more}
        await self.database[BLOCKS].replace_one({"_id": STATE}, state, upsert=True)

    async def store(self, place: str, value: Any, ts: int) -> None:
        made = document(value, START_MS + ts)
        await self.database[place].insert_one(bson.decode(made, AS_MILLISECONDS))

    async def seal(self, number: int) -> None:
        await self.database[READINGS].rename(sealed_name(number))

    async def compact(self, number: int, value: Any, ts: int) -> None:
        part = columns([document(value, START_MS + ts)], number)
        await self.database[PIECES].insert_one(piece_document(SERIES, 0, ObjectId(), part, newest_of(part)))
        await self.database[sealed_name(number)].drop()

    async def value(self) -> Any:
        found = await self.newest.of(OWNER, [ONE])
        return found[ONE]["value"] if found else None


@pytest.fixture
async def world(mongodb_database: tuple[str, str]) -> AsyncIterator[World]:
    async with mongodb_client(mongodb_database[0], name="test", timeout_s=10) as client:
        yield World(client, mongodb_database[1])


async def test_a_number_whose_collection_is_renamed_only_later_is_looked_at_again(world: World) -> None:
    await world.store(READINGS, "old", 0)
    await world.seal(1)
    await world.state(2, 1, 2)  # 2 is taken, and not renamed
    assert await world.value() == "old"
    await world.store(READINGS, "new", 1)
    await world.seal(2)
    assert await world.value() == "new"
    await world.state(2, 1)
    await world.compact(2, "new", 1)
    await world.state(2, 1, has_blocks=True)
    assert await world.value() == "new"


async def test_what_was_found_in_renamed_collections_is_not_looked_up_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.store(READINGS, "old", 0)
    await world.seal(1)
    other = bson.decode(document("other", START_MS), AS_MILLISECONDS)
    await world.database[READINGS].insert_one(other | {"_id": other["_id"] | {"device": "another"}})
    await world.seal(2)
    await world.state(2, 1, 2)
    assert await world.value() == "old"
    names: list[str] = []

    async def recorded(collection: Any, parts: list[Pipeline], session: Any) -> list[Document]:
        names.extend([collection.name] * len(parts))
        return await find_each(collection, parts, session)

    monkeypatch.setattr("storage.places.newest.find_each", recorded)
    assert await world.value() == "old"
    assert names == [READINGS]


async def test_what_is_sealed_and_compacted_at_once_is_looked_up(world: World) -> None:
    await world.store(READINGS, "old", 0)
    await world.seal(1)
    await world.state(1, 1)
    assert await world.value() == "old"
    await world.store(READINGS, "new", 1)
    await world.seal(2)
    await world.compact(2, "new", 1)
    await world.state(2, 1, has_blocks=True)
    assert await world.value() == "new"


@pytest.mark.parametrize("is_listed", [False, True], ids=["off the list", "on the list"])
async def test_what_is_compacted_in_the_middle_of_the_question_is_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch, is_listed: bool
) -> None:
    await world.store(READINGS, "old", 0)
    await world.seal(1)
    await world.state(1, 1)
    assert await world.value() == "old"
    await world.store(READINGS, "new", 1)
    await world.seal(2)
    await world.state(2, 1, 2)
    left = [2]

    async def compacted_before(collection: Any, parts: list[Pipeline], session: Any) -> list[Document]:
        if collection.name == sealed_name(2) and left:
            await world.compact(left.pop(), "new", 1)
            await world.state(2, *((1, 2) if is_listed else (1,)), has_blocks=True)
        return await find_each(collection, parts, session)

    monkeypatch.setattr("storage.places.newest.find_each", compacted_before)
    assert await world.value() == "new"
    assert not left
    await world.state(2, 1, has_blocks=True)
    assert await world.value() == "new"


async def test_the_first_copy_of_the_newest_reading_is_shown(world: World) -> None:
    await world.store(READINGS, "first", 0)
    await world.seal(1)
    await world.store(READINGS, "second", 0)
    await world.seal(2)
    await world.store(READINGS, "third", 0)
    await world.state(2, 1, 2)
    for _ in range(2):
        assert await world.value() == "first"


async def test_what_is_remembered_is_not_shown_past_its_retention(world: World) -> None:
    await world.store(READINGS, "old", 0)
    await world.seal(1)
    await world.state(1, 1)
    assert await world.value() == "old"
    await world.state(1, 1, retention={"days": 3, "bySensorType": {SENSOR_TYPE: 1}})
    assert await world.value() is None
    await world.state(1, 1, retention={"days": 1, "bySensorType": {SENSOR_TYPE: 0}})
    assert await world.value() == "old"


async def test_what_is_remembered_is_shown_as_it_was_found(world: World) -> None:
    place = {"lat": 48.1, "lon": 11.5}
    attributes = {"unit": "°C", "location": place, "tags": {"line": "7"}, "later": [None, Decimal128("1.50")]}
    made = bson.decode(document("text", START_MS), AS_MILLISECONDS) | attributes
    await world.database[READINGS].insert_one(made)
    await world.seal(1)
    await world.state(1, 1)
    for _ in range(2):
        assert await world.newest.of(OWNER, [ONE]) == {ONE: made}


async def test_what_is_remembered_is_forgotten_where_nobody_asks_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(newest, "time", SimpleNamespace(monotonic=lambda: now))
    for number in range(20):
        await world.newest.of(OWNER, [(f"device-{number}", SENSOR_TYPE)])
        now += newest.KNOWN_S / 4
    assert len(world.newest) <= 6


async def test_a_series_that_is_remembered_takes_less_than_a_kilobyte(world: World) -> None:
    made = bson.decode(document(1.5, START_MS), AS_MILLISECONDS) | {"location": {"lat": 48.1, "lon": 11.5}}
    series = [(f"device-{number:03}", SENSOR_TYPE) for number in range(500)]
    keys = [made["_id"] | {"device": device} for device, _ in series]
    await world.database[READINGS].insert_many([made | {"_id": key} for key in keys])
    await world.seal(1)
    await world.state(1, 1)
    await world.newest.of(OWNER, series[:50])  # what the driver keeps is there now
    gc.collect()
    tracemalloc.start()
    try:
        for start in range(50, len(series), 50):
            assert len(await world.newest.of(OWNER, series[start : start + 50])) == 50
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1000 * (len(series) - 50)


@pytest.mark.parametrize("before_ms", [START_MS + 1, START_MS + 2, START_MS + 100])
async def test_the_newest_before_a_time_is_found_in_pieces_that_go_on_behind_it(world: World, before_ms: int) -> None:
    part = columns([document(number, START_MS + number) for number in range(10)], 1)
    await world.database[PIECES].insert_one(piece_document(SERIES, 0, ObjectId(), part, newest_of(part)))
    await world.state(1, has_blocks=True)
    found = await world.newest.before(OWNER, [ONE, (DEVICE, "another")], before_ms)
    assert {one: each["value"] for one, each in found.items()} == {ONE: min(before_ms - START_MS - 1, 9)}
