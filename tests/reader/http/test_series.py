"""`GET /series` and `GET /readings/latest`: an owner's series, and the newest reading of each."""

import asyncio
import base64
from typing import Any

import pytest
from bson import Decimal128, ObjectId
from pymongo import MongoClient

from readings.keys import reading_key
from runtime.times import now_ms, rfc3339
from tests.reader.harness import (
    DEVICE,
    OWNER,
    SENSOR,
    TS,
    Mongo,
    ReaderClient,
    Store,
    make_reading,
    series,
    user_token,
)

HOUR_MS = 3_600_000
# Devices whose names sort in more than one way, each with a series without readings.
NAMES = [("a", "t"), ("a", "u"), ("a:1", "t"), ("b", "T"), ("b", "t"), ("\u00e4", "t"), ("A", "u")]


def names(items: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(item["device"], item["sensorType"]) for item in items]


async def fill(store: Store) -> None:
    for number, (device, sensor) in enumerate(NAMES):
        readings = [make_reading(number * 100 + n, TS + n // 2, n % 2, sensor=sensor, unit="u") for n in range(6)]
        await store.insert(*readings, device=device)
    await store.insert(make_reading(-1, TS + HOUR_MS, sensor="t"), device="a", owner="somebody-else")
    await store.insert_series([("a", "empty")])


async def test_the_newest_reading_of_each_series_in_the_order_of_their_names(
    reader_client: ReaderClient, store: Store
) -> None:
    await fill(store)
    answer = await reader_client.fetch("/readings/latest")
    assert "nextCursor" not in answer.json
    assert names(answer.items) == sorted(NAMES)
    assert {(item["seq"], item["ts"]) for item in answer.items} == {(1, "2025-06-15T15:06:40.002Z")}
    assert [item["value"] for item in answer.items] == [NAMES.index(name) * 100 + 5 for name in sorted(NAMES)]
    for item in answer.items:
        assert (await reader_client.readings(item["device"], item["sensorType"], order="desc", limit=1)).items == [item]


FILTERS: dict[str, dict[str, str]] = {
    "a device": {"device": "a"},
    "another": {"device": "\u00e4"},
    "a sensor type": {"sensorType": "t"},
    "both": {"device": "b", "sensorType": "T"},
    "nothing": {"device": "a", "sensorType": "T"},
    "nobody": {"device": "nobody"},
    "what comes before a name": {"device": ":"},
}


@pytest.mark.parametrize("path", ["/series", "/readings/latest"])
async def test_a_device_or_a_sensor_type_chooses(reader_client: ReaderClient, store: Store, path: str) -> None:
    await fill(store)
    with_empty = [*NAMES, ("a", "empty")] if path == "/series" else NAMES
    for what, chosen in FILTERS.items():
        print(what)
        assert names((await reader_client.fetch(path, chosen)).items) == sorted(
            (device, sensor)
            for device, sensor in with_empty
            if device == chosen.get("device", device) and sensor == chosen.get("sensorType", sensor)
        )


@pytest.mark.parametrize("path", ["/series", "/readings/latest"])
async def test_following_cursors_visits_every_series_once(reader_client: ReaderClient, store: Store, path: str) -> None:
    await fill(store)
    choices: list[dict[str, str]] = [{}, {"device": "a"}, {"sensorType": "t"}, {"device": "b", "sensorType": "t"}]
    for chosen in choices:
        whole = (await reader_client.fetch(path, chosen)).items
        for limit in (1, 2, 3, 1000):
            pages = await reader_client.all_pages(path, {**chosen, "limit": limit})
            assert [item for page in pages for item in page] == whole
            assert all(len(page) <= limit for page in pages)


async def test_a_series_that_is_new_behind_a_cursor_is_seen_and_none_comes_twice(
    reader_client: ReaderClient, store: Store
) -> None:
    await fill(store)
    first = await reader_client.fetch("/series", {"limit": 3})
    await store.insert(make_reading(1, sensor="t"), device="0")
    await store.insert(make_reading(1, sensor="t"), device="z")
    rest = (await reader_client.fetch("/series", {"cursor": first.json["nextCursor"]})).items
    assert ("z", "t") in names(rest)
    assert ("0", "t") not in names(rest)
    assert len(set(names(first.items + rest))) == len(first.items + rest) == len(NAMES) + 2


async def test_a_cursor_of_another_device_does_not_widen_the_choice(reader_client: ReaderClient, store: Store) -> None:
    await fill(store)
    cursor = (await reader_client.fetch("/series", {"limit": 1, "device": "b"})).json["nextCursor"]
    assert names((await reader_client.fetch("/series", {"device": "a", "cursor": cursor})).items) == [
        *(("a", "empty"), ("a", "t"), ("a", "u"))
    ]


NAMELESS = [b"\xff\x00a", b"\x00", b"a\x00", b"\x00t", b"\x00\x00"]
BAD: dict[str, list[str]] = {
    "device": ["", "x" * 257],
    "sensorType": ["", "x" * 257],
    "limit": ["0", "1001", "x", "", "10.0", "1e1"],
    "cursor": ["", "!", "YQ", "\u00e4", "x" * 600, *(base64.urlsafe_b64encode(names).decode() for names in NAMELESS)],
}


@pytest.mark.parametrize("path", ["/series", "/readings/latest"])
async def test_a_parameter_in_another_form_is_named(reader_client: ReaderClient, path: str) -> None:
    for name, values in BAD.items():
        for value in values:
            print(name, repr(value))
            assert (await reader_client.fetch(path, {name: value})).invalid_fields == [name]


async def test_an_owner_without_readings_has_empty_lists(reader_client: ReaderClient, store: Store) -> None:
    await fill(store)
    for path in ("/series", "/readings/latest"):
        assert (await reader_client.fetch(path, token=user_token("nobody"))).json == {"items": []}


async def test_a_series_says_when_its_newest_reading_was_measured_and_when_its_device_was_seen(
    reader_client: ReaderClient, store: Store
) -> None:
    # The second was measured first and received last.
    await store.insert(make_reading(1, TS + 10_000), make_reading(2, TS, received_ms=TS + 20_000))
    await store.insert_series([("device-1", "nothing-yet")])
    nothing, one = (await reader_client.fetch("/series")).items
    assert one == {
        "device": "device-1",
        "sensorType": "temperature",
        "connected": False,
        "lastSeenAt": "2025-06-15T15:06:50.250Z",
        "lastReadingAt": "2025-06-15T15:06:50.000Z",
    }
    assert nothing == {
        "device": "device-1",
        "sensorType": "nothing-yet",
        "connected": False,
        "lastSeenAt": None,
        "lastReadingAt": None,
    }


async def test_a_reading_with_a_time_ahead_does_not_hide_that_its_device_goes_on(
    reader_client: ReaderClient, store: Store
) -> None:
    # Over HTTP: its gateway announces no session.
    now = now_ms()
    await store.insert(
        make_reading("ahead", now + HOUR_MS, received_ms=now - HOUR_MS), make_reading("now", now, received_ms=now)
    )
    await store.insert(make_reading("only ahead", now + HOUR_MS, received_ms=now - HOUR_MS), device="device-2")
    one, other = (await reader_client.fetch("/series")).items
    assert (one["connected"], one["lastSeenAt"], one["lastReadingAt"]) == (False, rfc3339(now), rfc3339(now + HOUR_MS))
    assert (other["lastSeenAt"], other["lastReadingAt"]) == (rfc3339(now - HOUR_MS), rfc3339(now + HOUR_MS))
    assert [item["lastSeenAt"] for item in (await reader_client.fetch("/series/search")).items] == [
        one["lastSeenAt"],
        other["lastSeenAt"],
    ]


async def test_what_another_hand_has_stored_is_shown_as_far_as_json_goes(
    reader_client: ReaderClient, store: Store, mongodb_database: Mongo
) -> None:
    values = [None, {"a": [1]}, Decimal128("1.5"), ObjectId("0123456789abcdef01234567"), float("nan")]
    await store.insert_series([(DEVICE, SENSOR)])
    url, name = mongodb_database
    with MongoClient[dict[str, Any]](url) as client:
        keys = [reading_key(OWNER, DEVICE, SENSOR, TS + number, 0) for number in range(len(values))]
        client[name]["readings"].insert_many(
            [{"_id": key, "value": value} for key, value in zip(keys, values, strict=True)]
        )
    items = (await reader_client.readings()).items
    assert [item["value"] for item in items] == [None, "{'a': [1]}", "1.5", "0123456789abcdef01234567", None]
    assert {item["receivedAt"] for item in items} == {None}
    assert (await reader_client.fetch("/readings/latest")).items == items[-1:]
    assert [item["lastSeenAt"] for item in (await reader_client.fetch("/series")).items] == [None]
    assert len((await reader_client.readings(format="csv")).body.splitlines()) == 1 + len(values)
    # Only finite numbers, booleans and texts are in buckets.
    assert (await reader_client.fetch("/readings/buckets", series())).items == []
    await store.insert(make_reading(1.5, TS + 9))
    assert [item["count"] for item in (await reader_client.fetch("/readings/buckets", series())).items] == [1]


async def test_a_long_list_says_the_same_as_a_short_one(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store)
    for path in ("/series", "/readings/latest"):
        short = (await reader_client.fetch(path)).items
        monkeypatch.setattr("reader.history.from_mongodb.SHORT_LIST", 2)
        answers = await asyncio.gather(*(reader_client.fetch(path) for _ in range(20)))
        assert all(answer.items == short for answer in answers)
        assert [item for page in await reader_client.all_pages(path, {"limit": 3}) for item in page] == short
        monkeypatch.undo()
