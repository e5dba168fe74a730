"""The requests of one owner do not keep another waiting."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from pymongo import MongoClient

from persister.maintenance.store import MaintenanceStore
from reader.history import from_mongodb
from reader.history.bucket_statistics import KINDS, NUMBERS_ALONE, SUMMARY
from reader.history.from_mongodb import MAX_CONCURRENT_QUERIES, MAX_CONCURRENT_QUERIES_PER_OWNER, FromMongoDB, Range
from reader.history.series_names import SeriesNames
from runtime.fair_semaphore import FairSemaphore
from tests.reader.harness import SENSOR, TS, Mongo, ReaderClient, Store, make_reading, user_token

SERIES = 40_000
GREEDY, OTHER = "greedy", "other"


async def holds_many(store: Store) -> None:
    for start in range(0, SERIES, 2000):
        numbers = range(start, start + 2000)
        await store.insert_series(((f"d-{number // 10:05d}", f"t-{number % 10}") for number in numbers), GREEDY)
    for number in range(20):
        await store.insert(make_reading(number), device=f"d-{number}", owner=OTHER)


async def took(reader_client: ReaderClient, owner: str, path: str, query: dict[str, str]) -> tuple[int, float]:
    started = time.perf_counter()
    answer = await reader_client.fetch(path, query, token=user_token(owner))
    return answer.status, time.perf_counter() - started


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "an older database"])
async def test_thirty_questions_over_forty_thousand_series_leave_another_owners_alone(
    reader_client: ReaderClient, store: Store, indexed: bool
) -> None:
    await holds_many(store)
    if indexed:
        await MaintenanceStore(store.to_mongodb.database).index_series()

    async def greedy() -> None:
        while True:
            assert (await took(reader_client, GREEDY, "/series", {"sensorType": "zzz"}))[0] == 200

    asking = [asyncio.ensure_future(greedy()) for _ in range(30)]
    await asyncio.sleep(0.5)
    found: Sequence[tuple[int, float]] = [await took(reader_client, OTHER, "/readings/latest", {}) for _ in range(20)]
    print([round(seconds, 3) for _, seconds in found])
    assert not [task for task in asking if task.done()]  # they were asked to the end, and answered
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    assert {status for status, _ in found} == {200}
    assert max(seconds for _, seconds in found) < 3.0  # 0.1 s, and 12 s without shares


async def test_an_owner_has_its_share_of_the_places_at_the_driver(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert(make_reading(1), owner=GREEDY)
    await store.insert(make_reading(2), owner=OTHER)
    fetch, go, inside = SeriesNames._find, asyncio.Event(), 0

    async def held(self: SeriesNames, *arguments: object, **more: object) -> object:
        nonlocal inside
        inside += 1
        await go.wait()
        return await fetch(self, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(SeriesNames, "_find", held)
    asking = [asyncio.ensure_future(took(reader_client, GREEDY, "/series", {"sensorType": SENSOR})) for _ in range(30)]
    await asyncio.sleep(0.5)
    assert inside == MAX_CONCURRENT_QUERIES_PER_OWNER < MAX_CONCURRENT_QUERIES
    monkeypatch.undo()
    assert (await took(reader_client, OTHER, "/series", {}))[0] == 200
    assert (await took(reader_client, OTHER, "/readings/latest", {"sensorType": SENSOR}))[0] == 200
    go.set()
    assert {status for status, _ in await asyncio.gather(*asking)} == {200}


async def test_a_long_list_of_one_owner_does_not_wait_for_anothers(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_mongodb, "SHORT_LIST", 1)
    for owner in (GREEDY, OTHER):
        for number in range(3):
            await store.insert(make_reading(number, TS), device=f"d-{number}", owner=owner)
    fetch, go = FromMongoDB.newest, asyncio.Event()

    async def held(self: FromMongoDB, owner: str, series: Sequence[tuple[str, str]]) -> object:
        if owner == GREEDY:
            await go.wait()
        return await fetch(self, owner, series)

    monkeypatch.setattr(FromMongoDB, "newest", held)
    asking = [asyncio.ensure_future(took(reader_client, GREEDY, "/series", {})) for _ in range(30)]
    await asyncio.sleep(0.5)
    async with asyncio.timeout(5):
        assert (await took(reader_client, OTHER, "/series", {}))[0] == 200
    go.set()
    assert {status for status, _ in await asyncio.gather(*asking)} == {200}


async def test_only_results_that_may_hold_many_texts_take_one_of_the_few_slots(
    mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[FairSemaphore] = []
    slot = FairSemaphore.slot

    def counting(self: FairSemaphore, owner: str) -> Any:
        taken.append(self)
        return slot(self, owner)

    monkeypatch.setattr(FairSemaphore, "slot", counting)
    few_enough = {NUMBERS_ALONE: 10_000, SUMMARY: 1000, KINDS: 285}
    async with FromMongoDB.connected(*mongodb_database, timeout_s=10) as history:
        for aggregation, most in few_enough.items():
            for buckets in (most, most + 1):
                taken.clear()
                range_ = Range("device-1", SENSOR, TS, TS + buckets)
                await history.buckets(OTHER, range_, range(TS, TS + buckets + 1), aggregation)
                assert len(taken) == (2 if buckets > most and aggregation.texts else 1), (aggregation, buckets)


async def test_the_series_of_a_sensor_type_are_the_same_with_and_without_the_index(
    reader_client: ReaderClient, store: Store, mongodb_database: Mongo
) -> None:
    names = [(device, sensor) for device in ("A", "a", "a:1", "b", "\u00e4") for sensor in ("T", "t", "t.1", "u")]
    for owner in (GREEDY, OTHER, "user-1"):
        await store.insert_series(names, owner)

    async def listed() -> list[Any]:
        pages: list[Any] = []
        for sensor in ("T", "t", "t.1", "none"):
            for limit in (1, 2, 1000):
                pages += await reader_client.all_pages("/series", {"sensorType": sensor, "limit": limit})
        return pages

    without = await listed()
    await MaintenanceStore(store.to_mongodb.database).index_series()
    await MaintenanceStore(store.to_mongodb.database).index_series()
    assert await listed() == without
    assert sum(len(page) for page in without) == 3 * 3 * 5
    with MongoClient[dict[str, object]](mongodb_database[0]) as client:
        assert set(client[mongodb_database[1]]["series"].index_information()) == {
            "_id_",
            "_id.owner_1__id.sensorType_1__id.device_1",
        }
