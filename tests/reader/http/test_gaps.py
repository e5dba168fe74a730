"""`GET /devices/{id}/gaps` and the completeness of series, wherever their readings are."""

import random
import time
from typing import Any

import pytest

from bench.history_blocks import Compaction
from runtime.mongodb import mongodb_client
from runtime.times import rfc3339
from tests.persister.compaction.world import make_small
from tests.reader.harness import DEVICE, SENSOR, TS, Mongo, ReaderClient, Response, Store, make_reading, user_token


async def gaps(reader_client: ReaderClient, device: str = DEVICE, token: str | None = None, **query: Any) -> Response:
    named = {name.rstrip("_"): value for name, value in query.items()}
    return await reader_client.fetch(f"/devices/{device}/gaps", {"sensorType": SENSOR} | named, token=token)


async def test_dropped_readings_are_found_to_the_reading_in_every_place(
    reader_client: ReaderClient,
    store: Store,
    mongodb_database: Mongo,
    rng: random.Random,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_small(monkeypatch)
    kept = [number for number in range(5000) if rng.random() > 0.01 or number in (0, 4999)]
    # Half of them only after the others are sealed: repeats among them are no readings of their own.
    late, early = set(rng.sample(kept, 2000)), rng.sample(kept, 500)
    missing = sorted(set(range(5000)) - set(kept))
    expected = [
        {
            "fromSeq": first,
            "toSeq": last,
            "count": last - first + 1,
            "after": rfc3339(TS + (first - 1) * 1000),
            "before": rfc3339(TS + (last + 1) * 1000),
        }
        for first, last in runs(missing)
    ]

    async def check(where: str) -> None:
        for seconds in (0.0, 1.0):  # a scan for each part, and one for all of them
            monkeypatch.setattr("reader.history.gap_scan.SCAN_S", seconds)
            answer = await gaps(reader_client)
            assert answer.items == expected, where
        counts = {name: answer.json[name] for name in ("received", "expected", "share")}
        assert counts == {"received": len(kept), "expected": 5000, "share": len(kept) / 5000}, where
        half = TS + 2500 * 1000
        before, behind = await gaps(reader_client, to=half), await gaps(reader_client, from_=half)
        assert before.json["received"] + behind.json["received"] == len(kept), where

    async with mongodb_client(mongodb_database[0], name="tests", timeout_s=20) as client:
        compaction = Compaction(client[mongodb_database[1]])
        await compaction.seal()
        await store.to_mongodb.prepare()
        await store.insert(*(make_reading(1.5, TS + number * 1000, number) for number in kept if number not in late))
        await compaction.seal()
        await store.to_mongodb.prepare()
        await store.insert(*(make_reading(2.5, TS + number * 1000, number) for number in {*late, *early}))
        await check("in readings and a sealed collection")
        await compaction.compact()
        await check("in blocks and in readings")
        await compaction.seal()
        await check("in blocks and a sealed collection")
        await compaction.compact()
        await check("in blocks")


def runs(numbers: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


async def test_pages_have_all_gaps_and_the_counts_of_the_whole_range(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(1.5, TS + number, number) for number in range(500) if number % 20 != 7))
    whole = await gaps(reader_client)
    assert len(whole.items) == 25
    query = {"sensorType": SENSOR, "limit": 7}
    pages = await reader_client.all_pages(f"/devices/{DEVICE}/gaps", query)
    assert [item for page in pages for item in page] == whole.items
    assert [len(page) for page in pages] == [7, 7, 7, 4]
    first = await gaps(reader_client, limit=7)
    assert (first.json["received"], first.json["expected"]) == (475, 500)


async def test_a_range_that_takes_too_long_is_refused_for_now(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert(*(make_reading(1.5, TS + number, number) for number in range(50)))
    monkeypatch.setattr("reader.history.gap_scan.MAX_SCAN_S", -1.0)
    for path, query in ((f"/devices/{DEVICE}/gaps", {"sensorType": SENSOR}), ("/series", {"completeness": "true"})):
        refused = await reader_client.fetch(path, query)
        assert (refused.status, refused.json["code"]) == (503, "unavailable")
        assert "Retry-After" in refused.headers


async def test_where_it_cannot_be_known_there_are_no_figures(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(1.5, TS + number) for number in range(20)))
    answer = await gaps(reader_client)
    assert answer.json == {"items": [], "received": 20, "expected": None, "share": None}
    empty = await gaps(reader_client, to=TS)
    assert empty.json == {"items": [], "received": 0, "expected": None, "share": None}


async def test_nobody_sees_gaps_of_others_and_an_unknown_device_is_404(
    reader_client: ReaderClient, store: Store
) -> None:
    await store.insert(*(make_reading(1.5, TS + number, number) for number in (1, 2, 4)))
    for answer in (await gaps(reader_client, token=user_token("user-2")), await gaps(reader_client, "device-2")):
        assert (answer.status, answer.json["code"]) == (404, "no_such_device")
    assert (await gaps(reader_client, token=user_token(scope="readings:write"))).status == 403
    other = await reader_client.fetch(f"/devices/{DEVICE}/gaps", {"sensorType": "other"})
    assert other.json["received"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from_": "soon"}, "from"),
        ({"from_": TS, "to": TS - 1}, "to"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"sensorType": ""}, "sensorType"),
    ],
)
async def test_wrong_parameters_are_named(reader_client: ReaderClient, query: dict[str, Any], field: str) -> None:
    assert (await gaps(reader_client, **query)).invalid_fields == [field]


async def test_series_are_listed_with_their_completeness_of_a_day(reader_client: ReaderClient, store: Store) -> None:
    now = time.time_ns() // 1_000_000
    recent = [make_reading(1, now - 100_000 + number, number) for number in range(100) if number % 25]
    old = [make_reading(1, now - 86_400_000 - 60_000 + number, number) for number in range(50)]
    await store.insert(*old, *recent)
    await store.insert(*(make_reading(1, now - 5000 + number, sensor="zero") for number in range(10)))
    answer = await reader_client.fetch("/series", {"completeness": "true"})
    assert {item["sensorType"]: item["completeness"] for item in answer.items} == {
        SENSOR: {"received": 96, "expected": 99, "share": 96 / 99},
        "zero": {"received": 10, "expected": None, "share": None},
    }
    assert all("completeness" not in item for item in (await reader_client.fetch("/series")).items)
    for query in ({"completeness": "true", "limit": "101"}, {"limit": "1001"}):
        assert (await reader_client.fetch("/series", query)).invalid_fields == ["limit"]
    assert (await reader_client.fetch("/series", {"completeness": "maybe"})).invalid_fields == ["completeness"]


async def test_a_page_with_completeness_has_at_most_100_series(reader_client: ReaderClient, store: Store) -> None:
    await store.insert_series((f"d-{number}", "t") for number in range(150))
    pages = await reader_client.all_pages("/series", {"completeness": "true"})
    assert [len(page) for page in pages] == [100, 50]
    assert pages[0][0]["completeness"] == {"received": 0, "expected": None, "share": None}
