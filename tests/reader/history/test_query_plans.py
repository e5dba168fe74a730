"""The plans of the reader's MongoDB commands: each scans a range of the one key, and nothing else.

Each command is explained as it was sent, on both forms of the collection, among other owners' readings.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import decode_all
from motor.motor_asyncio import AsyncIOMotorClient

from persister.maintenance.store import MaintenanceStore
from reader.history.bucket_boundaries import DAY_MS, BucketWidth, boundaries
from reader.history.bucket_statistics import KINDS, NUMBERS_ALONE, SUMMARY, Aggregation
from reader.history.from_mongodb import Range
from readings.document import position_of
from readings.keys import Position
from runtime.time_zones import time_zone
from tests.reader.harness import TS, Mongo, Store, make_reading, open_store
from tests.reader.query_plans import Explained, Recorder, cursors_of, require_newest, require_range

OWNERS = ("alice", "bob", "carol")
DEVICES = ("d-1", "d-2", "d-3")
SENSORS = ("door", "humidity", "temperature")
EACH = 150


@pytest.fixture(params=[False, True], ids=["ordinary", "clustered"])
async def explained(request: pytest.FixtureRequest, mongodb_database: Mongo) -> AsyncIterator[Explained]:
    """27 series of three owners, each with three readings per millisecond."""
    async with open_store(mongodb_database, clustered=request.param) as store:
        await fill(store)
    recorder = Recorder()
    client: Any = AsyncIOMotorClient(mongodb_database[0], timeoutMS=10_000, event_listeners=[recorder])
    yield Explained(client, mongodb_database[1], recorder)
    client.close()


async def fill(store: Store) -> None:
    for owner in OWNERS:
        for device in DEVICES:
            for sensor in SENSORS:
                readings = [make_reading(n / 2, TS + n // 3, n % 3, sensor=sensor) for n in range(EACH)]
                await store.insert(*readings, device=device, owner=owner)


PAST: Position = (TS + 10, 1)
# How many of the 150 a range contains: 3 per millisecond.
STRETCHES: dict[str, tuple[dict[str, Any], int]] = {
    "all": ({}, EACH),
    "from": ({"from_ms": TS + 5}, EACH - 15),
    "to": ({"to_ms": TS + 5}, 15),
    "from and to": ({"from_ms": TS + 5, "to_ms": TS + 15}, 30),
    "nothing": ({"from_ms": TS + 5, "to_ms": TS + 5}, 0),
    "days around": ({"from_ms": TS - 365 * DAY_MS, "to_ms": TS + 365 * DAY_MS}, EACH),
    "past a position": ({"past": PAST}, EACH - 32),
    "past a position, within": ({"past": PAST, "from_ms": TS + 5, "to_ms": TS + 15}, 13),
    "past a position ahead of it": ({"past": (TS, 0), "from_ms": TS + 5, "to_ms": TS + 15}, 30),
}
BACKWARD = {"past a position": 31, "past a position, within": 16, "past a position ahead of it": 0}


@pytest.mark.parametrize("descending", [False, True], ids=["asc", "desc"])
async def test_a_page_is_one_range_of_the_key(explained: Explained, descending: bool) -> None:
    for name, (bounds, forward) in STRETCHES.items():
        count = BACKWARD.get(name, forward) if descending else forward
        queried = Range("d-2", "humidity", descending=descending, **bounds)
        for limit in (1, 10, 1001):
            print(name, limit)
            found = await explained.history.page("bob", queried, limit)
            assert len(found) == min(count, limit)
            assert {tuple(one["_id"].values())[:3] for one in found} <= {("bob", "d-2", "humidity")}
            if queried.window("bob").is_empty:
                assert await explained.plans() == []
            else:
                require_range(await explained.plan(), min(count, limit))


@pytest.mark.parametrize("descending", [False, True], ids=["asc", "desc"])
async def test_each_part_of_a_stream_is_a_question_of_its_own_and_looks_at_nothing_twice(
    explained: Explained, descending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A MongoDB cursor has one time limit for its whole life, and an export may take longer.
    monkeypatch.setattr("storage.places.reading.STREAM_READINGS", 40)
    range_ = Range("d-2", "humidity", descending=descending)
    parts = [part async for part in explained.history.stream_columns("bob", range_)]
    assert [len(part) for part in parts] == [40, 40, 40, 30]
    found = [one for part in parts for one in zip(part.ts.tolist(), part.seq.tolist(), strict=True)]
    assert found == sorted(set(found), reverse=descending)
    for plan, part in zip(await explained.plans(), parts, strict=True):
        require_range(plan, len(part))


async def test_the_newest_readings_are_found_without_looking_at_others(explained: Explained) -> None:
    series = [(device, sensor) for device in DEVICES for sensor in SENSORS]
    newest = await explained.history.newest("bob", series)
    assert {(one["_id"]["seq"], one["value"]) for one in newest if one} == {(2, 74.5)}
    assert [(one["_id"]["device"], one["_id"]["sensorType"]) for one in newest if one] == series
    require_newest(await explained.plan(), 9, 9)
    assert await explained.history.newest("bob", [("d-2", "nothing")]) == [None]
    require_newest(await explained.plan(), 1, 0)
    before = await explained.history.newest_before("bob", series[:2], TS + 5)
    assert {position_of(one)[0] for one in before if one} == {TS + 4}
    require_newest(await explained.plan(), 2, 2)


async def test_a_long_list_fetches_its_newest_readings_in_few_queries(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reader.history.from_mongodb.SERIES_PER_QUERY", 4)
    series = [(device, sensor) for device in DEVICES for sensor in SENSORS]
    await explained.history.newest_until("bob", series, TS + 1000)
    assert sorted(len(list(cursors_of(plan))) for plan in await explained.plans()) == [1, 4, 4]
    found = await explained.history.newest_until("bob", series, TS + 5)
    assert {(one[0]["_id"]["seq"], one[1]["_id"]["seq"]) for one in found if one[0] and one[1]} == {(2, 2)}
    assert len(await explained.plans()) == 6


async def test_both_ends_of_a_series_are_found_at_once(explained: Explained) -> None:
    assert await explained.history.ends("bob", "d-2", "humidity") == (TS, TS + 49)
    for plan in await explained.plans():
        require_range(plan, 1)


@pytest.mark.parametrize("clipped", [False, True], ids=["all", "a part"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("aggregation", [NUMBERS_ALONE, SUMMARY, KINDS], ids=["numbers", "summary", "every kind"])
async def test_buckets_go_through_their_range_in_order_once(
    explained: Explained, clipped: bool, aggregation: Aggregation, zone: str | None
) -> None:
    start, end = (TS + 5, TS + 15) if clipped else (TS - 300 * DAY_MS, TS + 300 * DAY_MS)
    width = BucketWidth(5, "ms" if clipped else "d")
    bounds = boundaries(width, time_zone(zone) if zone else None, start, end, 10_000)
    buckets = await explained.history.buckets("bob", Range("d-2", "humidity", start, end), bounds, aggregation)
    count = sum(bucket["count"] for bucket in buckets)
    assert count == (30 if clipped else EACH)
    require_range(await explained.plan(), count)


@pytest.mark.parametrize(
    ("device", "past", "count"),
    [
        (None, None, 9),
        (None, ("d-2", "humidity"), 4),
        (None, ("d-9", "x"), 0),
        ("d-2", None, 3),
        ("d-2", ("d-2", "door"), 2),
        ("d-9", None, 0),
    ],
)
async def test_the_list_of_series_is_one_range(
    explained: Explained, device: str | None, past: tuple[str, str] | None, count: int
) -> None:
    assert len(await explained.history.series("bob", device, None, past, 1000)) == count
    require_range(await explained.plan(), count)


BY_TYPE = [
    (None, 3),
    (("d-2", "door"), 2),
    (("d-2", "humidity"), 1),
    (("d-2", "temperature"), 1),
    (("d-3", "humidity"), 0),
    (("a", "x"), 3),
    (("d-9", "x"), 0),
]


@pytest.mark.parametrize(("past", "count"), BY_TYPE)
async def test_the_series_of_a_sensor_type_are_one_range_of_its_index(
    explained: Explained, past: tuple[str, str] | None, count: int
) -> None:
    await MaintenanceStore(explained.database).index_series()
    for limit in (1, 1000):
        found = await explained.history.series("bob", None, "humidity", past, limit)
        assert found == [(device, "humidity") for device in DEVICES][3 - count :][:limit]
        require_range(await explained.plan(), min(count, limit), index="_id.owner_1__id.sensorType_1__id.device_1")
    assert await explained.history.series("bob", None, "nothing", past, 1000) == []
    require_range(await explained.plan(), 0, index="_id.owner_1__id.sensorType_1__id.device_1")


@pytest.mark.parametrize(("past", "count"), BY_TYPE)
async def test_without_that_index_the_series_of_the_owner_are_gone_through_by_the_server(
    explained: Explained, past: tuple[str, str] | None, count: int
) -> None:
    for limit in (1, 1000):
        found = await explained.history.series("bob", None, "humidity", past, limit)
        assert found == [(device, "humidity") for device in DEVICES][3 - count :][:limit]
        refused, queried = explained.recorder.commands
        assert refused["hint"]
        explained.recorder.commands = [queried]
        require_range(await explained.plan(), min(count, limit), examined=9)


@pytest.mark.parametrize("indexed", [False, True])
async def test_one_sensor_type_of_one_device_is_looked_up(explained: Explained, indexed: bool) -> None:
    if indexed:
        await MaintenanceStore(explained.database).index_series()
    for past, count in ((None, 1), (("d-2", "door"), 1), (("d-2", "humidity"), 0), (("d-3", "a"), 1)):
        assert len(await explained.history.series("bob", "d-2", "humidity", past, 1000)) == count
        require_range(await explained.plan(), count)


async def test_a_scan_would_be_seen(explained: Explained) -> None:
    fetch = explained.database["readings"]
    for filter_ in ({"_id.device": "d-2", "_id.sensorType": "humidity"}, {"value": 1.5}):
        assert await fetch.find(filter_).batch_size(1000).to_list(None)
        with pytest.raises(AssertionError, match=r"COLLSCAN"):
            require_range(await explained.plan(), EACH)
    bob = Range("d-2", "humidity").window("bob").filter()
    assert await fetch.find(bob).sort("value", 1).batch_size(1000).to_list(None)
    with pytest.raises(AssertionError, match=r"'SORT'"):
        require_range(await explained.plan(), EACH)
    assert await fetch.find({**bob, "_id.seq": 2}).batch_size(1000).to_list(None)
    with pytest.raises(AssertionError, match=r"15\d documents"):
        require_range(await explained.plan(), EACH // 3)


async def test_all_series_of_an_owner_are_one_range(explained: Explained) -> None:
    for most, count in ((100, 9), (5, 5)):
        documents = await explained.history.series_documents("bob", most)
        assert len(decode_all(b"".join(documents))) == count
        require_range(await explained.plan(), count)


async def test_whether_a_device_is_known_is_one_look_at_its_series(explained: Explained) -> None:
    assert await explained.history.has_device("bob", "d-2")
    require_range(await explained.plan(), 1)
    assert not await explained.history.has_device("bob", "d-22")
    for plan in await explained.plans():
        require_range(plan, 0)
