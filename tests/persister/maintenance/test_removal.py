"""Erasure and retention reach every place of readings."""

import random
from collections.abc import AsyncIterator
from typing import Any

import bson
import pytest

from persister.maintenance.removal import Removal
from readings.document import AS_MILLISECONDS, date_ms, position_of
from runtime.mongodb import mongodb_client
from storage.places.names import BLOCKS, COLUMNS, PIECES
from storage.places.reading import Places
from storage.places.window import Window
from tests.storage.codec.cases import DEVICE, OWNER
from tests.storage.places.layout import SERIES, Layout, random_layout


@pytest.fixture
async def client(mongodb_database: tuple[str, str]) -> AsyncIterator[Any]:
    async with mongodb_client(mongodb_database[0], name="test", timeout_s=10) as client:
        yield client


async def laid_out(client: Any, name: str, seed: int) -> Layout:
    layout = random_layout(random.Random(seed))
    await layout.store(client[name])
    return layout


def of_another(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the documents as another owner's, whose name begins with the first one's."""
    return [
        {**one, "_id": {**one["_id"], "owner": OWNER + "2"}} if isinstance(one["_id"], dict) else one
        for one in documents
    ]


@pytest.mark.parametrize("seed", range(8))
async def test_an_owner_is_erased_from_all_places_and_another_one_is_not(
    client: Any, mongodb_database: tuple[str, str], seed: int
) -> None:
    database = client[mongodb_database[1]]
    layout = await laid_out(client, mongodb_database[1], seed)
    other = {name: of_another(documents) for name, documents in layout.collections.items()}
    for name, documents in other.items():
        await database[name].insert_many([one for one in documents if isinstance(one["_id"], dict)] or [{"_id": 1}])
    removal = Removal(database)
    counted = await removal.count(OWNER)
    assert counted >= len(layout.copies[DEVICE])
    await removal.of_owner(OWNER)
    assert removal.deleted >= counted
    assert await removal.count(OWNER) == 0
    for name in await database.list_collection_names():
        assert await database[name].count_documents({"_id.owner": OWNER}) == 0, name
    assert await Removal(database).count(OWNER + "2") == counted
    assert await Places(client, mongodb_database[1]).documents(Window(SERIES), 10) == []


@pytest.mark.parametrize("seed", range(24))
async def test_what_is_older_is_removed_and_nothing_else(
    client: Any, mongodb_database: tuple[str, str], seed: int
) -> None:
    database, name = client[mongodb_database[1]], mongodb_database[1]
    layout = await laid_out(client, name, seed)
    readings = layout.readings()
    dice = random.Random(seed)
    limit_ms = dice.choice(sorted(layout.copies[DEVICE]))[0]
    await Removal(database).before(SERIES, limit_ms)
    found = await Places(client, name).documents(Window(SERIES, (limit_ms, 0)), 10_000)
    assert found == [one for one in readings if position(one)[0] >= limit_ms]
    for place in (PIECES, BLOCKS):
        collection = database.get_collection(place, codec_options=AS_MILLISECONDS)
        # What is left of a split that was not finished is nothing, and the compactor's to remove.
        async for document in collection.find({"last": {"$exists": True}, "pending": {"$exists": False}}):
            assert date_ms(document["last"]["ts"]) >= limit_ms
    columns = {one["_id"]["id"] async for one in database[COLUMNS].find({}, {"_id.id": 1})}
    heads = database[BLOCKS].find({"columns": {"$exists": True}}, {"_id": 0, "columns": 1})
    assert columns == {one["columns"] async for one in heads}


async def test_the_series_of_what_is_left_are_written_again(client: Any, mongodb_database: tuple[str, str]) -> None:
    await laid_out(client, mongodb_database[1], 1)
    database = client[mongodb_database[1]]
    await database["readings"].drop()
    await Removal(database).rebuild_series(OWNER)
    assert [one["_id"] async for one in database["series"].find()] == [SERIES]


def position(raw: bytes) -> tuple[int, int]:
    return position_of(bson.decode(raw, AS_MILLISECONDS))
