"""The state document, as several workers change it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from persister.maintenance import retention
from persister.maintenance.retention import Retention, enforce
from persister.maintenance.store import MaintenanceStore
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteFailed
from persister.sealing.state_document import CONFIRMED_AT, MAX_WAITING, StateDocument
from persister.to_mongodb import ToMongoDB
from storage.places.state import read_state, state_of
from testing.waiting import eventually
from tests.persister.sealing.harness import Mongo, Stored


@pytest.fixture
async def store(mongodb_database: Mongo) -> AsyncIterator[ToMongoDB]:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10, sealing=True) as connected:
        yield connected


@pytest.fixture
def state(store: ToMongoDB) -> StateDocument:
    return StateDocument(store.database)


@pytest.fixture
def stored(mongodb_database: Mongo) -> Stored:
    return Stored(mongodb_database)


async def test_numbers_are_taken_once_by_the_lease_holder_while_fewer_than_eight_wait(
    state: StateDocument, stored: Stored
) -> None:
    assert await state.claim("one", 60)
    assert not await state.claim("other", 60)
    assert await state.take_number("other") is None
    assert [await state.take_number("one") for _ in range(MAX_WAITING + 1)] == [1, 2, 3, 4, 5, 6, 7, 8, None]
    await state.withdraw("one", 8)
    assert await state.take_number("one") == 9
    assert stored.waiting() == [1, 2, 3, 4, 5, 6, 7, 9]
    (first, *_) = stored.state()["waiting"]
    assert (first["failures"], first["aside"]) == (0, False)
    seen = await state.read()
    assert (seen.last_number, sorted(seen.waiting)) == (9, stored.waiting())
    assert 0 <= seen.oldest_seconds < 60


async def test_a_lease_ends_by_itself_and_by_its_holder_and_what_it_kept_stays(state: StateDocument) -> None:
    assert await state.claim("one", 0.2)
    assert await state.set_birth("one", b"uuid", [])
    await asyncio.sleep(0.3)
    assert await state.claim("other", 60)
    assert not await state.set_birth("one", b"another", [])
    assert (await state.read()).hot_uuid == b"uuid"
    await state.release("one")
    assert not await state.claim("one", 60)
    await state.release("other")
    assert await state.claim("one", 60)
    assert await state.claim("one", 60), "extended"


async def test_what_was_renamed_is_final_and_what_was_not_is_not(state: StateDocument, stored: Stored) -> None:
    assert await state.claim("one", 60)
    assert [await state.take_number("one") for _ in range(3)] == [1, 2, 3]
    assert state_of(stored.state()).final == 1
    assert await state.set_birth("one", b"uuid", [1, 3])
    found = state_of(stored.state())
    assert (found.waiting, found.highest, found.final) == ((1, 2, 3), 3, 2)


async def test_collections_that_exist_are_included_once_and_the_highest_number_never_goes_back(
    state: StateDocument, stored: Stored
) -> None:
    await state.include([3, 5])
    assert (stored.waiting(), stored.state()["highest"]) == ([3, 5], 5)
    await state.include([3])
    assert (stored.waiting(), stored.state()["highest"]) == ([3, 5], 5)
    await state.claim("one", 60)
    assert await state.take_number("one") == 6


async def test_readers_learn_the_limits_and_nothing_is_written_while_they_stay_the_same(
    store: ToMongoDB, state: StateDocument, stored: Stored, mongodb_database: Mongo
) -> None:
    await state.publish_retention(0, {"door": 0})
    assert stored.state() == {}, "without limits nothing has to be said"
    url, name = mongodb_database
    with MongoClient[dict[str, object]](url) as client:
        client[name].command({"profile": 2})
    for _ in range(3):
        await state.publish_retention(30, {"a.b": 7, "door": 0})
    with MongoClient[dict[str, object]](url) as client:
        client[name].command({"profile": 0})
        assert client[name]["system.profile"].count_documents({"op": "update", "ns": f"{name}.readings.blocks"}) == 1
    found = await read_state(store.database["readings.blocks"])
    assert (found.retention_days, dict(found.retention_by_sensor_type)) == (30, {"a.b": 7, "door": 0})
    assert (found.waiting, found.has_blocks) == ((), False)
    day = 86_400_000
    assert [found.oldest_ms(one, 100 * day) for one in ("a.b", "door", "other")] == [93 * day, None, 70 * day]
    await state.publish_retention(0, {})
    assert (await read_state(store.database["readings.blocks"])).retention_days == 0
    await state.claim("one", 60)
    assert await state.take_number("one") == 1


async def test_the_worker_that_enforces_the_retention_publishes_it_and_one_without_takes_it_back(
    store: ToMongoDB, state: StateDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHECK_EVERY_S", 0.1)
    metrics = PersisterMetrics(CollectorRegistry())
    await store.prepare()
    worker = asyncio.ensure_future(enforce(Retention(3), MaintenanceStore(store.database), state, metrics))

    async def published() -> bool:
        return (await read_state(store.database["readings.blocks"])).retention_days == 3

    await eventually(published, "the limit is published")
    worker.cancel()
    await asyncio.wait([worker])
    other = asyncio.ensure_future(enforce(Retention(), MaintenanceStore(store.database), state, metrics))

    async def taken_back() -> bool:
        return not await published() and (await read_state(store.database["readings.blocks"])).retention_days == 0

    await eventually(taken_back, "the limit is taken back")
    other.cancel()
    await asyncio.wait([other])


async def test_a_limit_is_confirmed_every_ten_minutes(store: ToMongoDB, state: StateDocument) -> None:
    await store.prepare()
    blocks, old = store.database["readings.blocks"], datetime(2026, 1, 1, tzinfo=UTC)
    for confirmed_at, is_again in ((old, True), (datetime.now(UTC) - timedelta(minutes=9), False)):
        await state.publish_retention(3, {})
        await blocks.update_one({"_id": "state"}, {"$set": {CONFIRMED_AT: confirmed_at}})
        await state.publish_retention(3, {})
        found = await blocks.find_one({"_id": "state"})
        since = found[CONFIRMED_AT].replace(tzinfo=UTC) - confirmed_at
        assert (since > timedelta(seconds=1)) is is_again
    await state.publish_retention(0, {})
    assert CONFIRMED_AT not in await blocks.find_one({"_id": "state"})


async def test_a_database_that_is_away_is_a_failure() -> None:
    async with ToMongoDB.connected("mongodb://127.0.0.1:9", "x", clustered=False, timeout_s=0.2) as away:
        document_of_away = StateDocument(away.database)
        for call in (document_of_away.read(), document_of_away.claim("a", 1), document_of_away.include([1])):
            with pytest.raises(WriteFailed):
                await call
