"""A page asks for few things: the state of a moment ago will do until the next seal, and no longer."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import bson
import pytest
from bson import Int64, ObjectId

from persister.collections import uuid_of
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS
from runtime.mongodb import mongodb_client
from storage.codec.to_documents import documents_of
from storage.places import loose
from storage.places.documents import piece_document
from storage.places.names import BLOCKS, PIECES, sealed_name
from storage.places.reading import Places
from storage.places.state import STATE, state_in
from storage.places.window import Window
from tests.storage.codec.cases import START_MS, columns, document
from tests.storage.places.layout import SERIES, Layout, newest_of

WINDOW = Window(SERIES, descending=True)
LIMIT = 1000


@pytest.fixture
async def database(mongodb_database: tuple[str, str]) -> AsyncIterator[tuple[Any, str]]:
    url, name = mongodb_database
    async with mongodb_client(url, name="test", timeout_s=10) as client:
        yield client, name


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Has an item for each time the state was read; it will do for a minute."""
    read: list[None] = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def read_state(*arguments: Any) -> Any:
            read.append(None)
            return original(*arguments)

        return read_state

    monkeypatch.setattr(loose, "state_in", counted(state_in))
    monkeypatch.setattr(loose, "STATE_S", 60.0)
    return read


def some(first: int, count: int) -> list[bytes]:
    return [document(1.5, START_MS + at * 1000, 0) for at in range(first, first + count)]


async def store(database: Any, name: str, documents: list[bytes]) -> None:
    await database[name].insert_many([bson.decode(one, AS_MILLISECONDS) for one in documents])


async def with_state(database: Any, waiting: tuple[int, ...] = ()) -> None:
    """Write the state as a sealer leaves it behind a seal."""
    numbers = [{"number": Int64(number), "renamed": True} for number in waiting]
    change = {"highest": Int64(len(waiting)), "waiting": numbers, "blocks": False}
    change["sealing"] = {"hotUuid": await uuid_of(database, READINGS)}
    await database[BLOCKS].update_one({"_id": STATE}, {"$set": change}, upsert=True)


async def page(places: Places) -> list[bytes]:
    found, _, _ = await places.page(WINDOW, LIMIT)
    return [] if found is None else documents_of(found)[::-1]


async def test_the_state_is_not_read_for_each_page(database: tuple[Any, str], states: list[None]) -> None:
    client, name = database
    await store(client[name], READINGS, some(0, 5))
    await with_state(client[name])
    places = Places(client, name)
    assert await page(places) == some(0, 5)
    before = len(states)
    await store(client[name], READINGS, some(5, 3))
    for _ in range(3):
        assert await page(places) == some(0, 8)
    assert len(states) == before


async def test_a_state_of_long_ago_is_read_again(
    database: tuple[Any, str], states: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = database
    await store(client[name], READINGS, some(0, 5))
    await with_state(client[name])
    places = Places(client, name)
    monkeypatch.setattr(loose, "STATE_S", 0.0)
    assert await page(places) == some(0, 5)
    before = len(states)
    assert await page(places) == some(0, 5)
    assert len(states) > before


@pytest.mark.parametrize("is_created", [True, False])
async def test_a_seal_since_the_state_was_read_is_noticed(
    database: tuple[Any, str], states: list[None], is_created: bool
) -> None:
    client, name = database
    await store(client[name], READINGS, some(0, 5))
    await with_state(client[name])
    places = Places(client, name)
    assert await page(places) == some(0, 5)
    # The number waits before the rename, and the birth of the next collection is recorded behind it.
    change = {"waiting": [{"number": Int64(1), "renamed": False}], "highest": Int64(1)}
    await client[name][BLOCKS].update_one({"_id": STATE}, {"$set": change})
    await client[name][READINGS].rename(sealed_name(1))
    newer = []
    if is_created:
        newer = some(5, 3)
        await store(client[name], READINGS, newer)
    for _ in range(2):
        assert await page(places) == some(0, 5) + newer
    if is_created:
        await with_state(client[name], (1,))
        for _ in range(2):
            assert await page(places) == some(0, 8)
        before = len(states)
        assert await page(places) == some(0, 8)
        assert len(states) == before


@pytest.mark.parametrize("limit", [10, 100, 1000])
@pytest.mark.parametrize("descending", [True, False])
async def test_more_pieces_than_a_reply_has(database: tuple[Any, str], limit: int, descending: bool) -> None:
    client, name = database
    layout, made = Layout(), some(0, 150)
    parts = [columns([one], 1) for one in made]
    state = {"_id": STATE, "highest": Int64(1), "waiting": [], "blocks": True}
    layout.collections = {
        PIECES: [piece_document(SERIES, 0, ObjectId(), part, newest_of(part)) for part in parts],
        BLOCKS: [state],
    }
    await layout.store(client[name])
    found, has_more, _ = await Places(client, name).page(Window(SERIES, descending=descending), limit)
    assert found is not None
    assert documents_of(found) == (made[::-1] if descending else made)[:limit]
    assert has_more == (limit < len(made))
