"""`GET /readings/buckets` against the same sums in plain Python."""

import random
from collections.abc import Callable
from itertools import groupby
from typing import Any

import pytest

from readings.reading import Reading
from runtime.times import rfc3339
from tests.reader.harness import SENSOR, TS, ReaderClient, Store, make_reading, series

UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
NAMES = ("min", "max", "avg", "first", "last", "count")


def width(every: str) -> int:
    digits = every.rstrip("dhms")
    return int(digits) * UNIT_MS[every.removeprefix(digits)]


def summed(readings: list[Reading], every: str, start: int | None = None, end: int | None = None) -> list[Any]:
    """Compute the expected (ts, min, max, avg, first, last, count) of each bucket that contains a number."""
    inside = [
        one
        for one in sorted(readings, key=lambda one: (one.ts_ms, one.seq))
        if isinstance(one.value, int | float)
        and not isinstance(one.value, bool)
        and (start is None or one.ts_ms >= start)
        and (end is None or one.ts_ms < end)
    ]
    found = []
    for ts, group in groupby(inside, key=lambda one: one.ts_ms - one.ts_ms % width(every)):
        values: list[Any] = [one.value for one in group]
        average = pytest.approx(sum(values) / len(values), rel=1e-9, abs=1e-4)  # sums of 2**33 and of 0.1
        found.append((rfc3339(ts), min(values), max(values), average, values[0], values[-1], len(values)))
    return found


def listed(items: list[dict[str, Any]]) -> list[Any]:
    assert all(set(item) == {"ts", *NAMES} for item in items)
    return [(item["ts"], *(item[name] for name in NAMES)) for item in items]


def invented(chosen: random.Random, count: int, spread_ms: int) -> list[Reading]:
    """Readings of every type over a time span, some within one millisecond."""
    places = {(TS + 1234 + chosen.randrange(spread_ms), chosen.randrange(3)) for _ in range(count)}
    values: list[Callable[[], bool | int | float | str]] = [
        lambda: chosen.uniform(-1e3, 1e3),
        lambda: chosen.randrange(-1000, 1000),
        lambda: chosen.choice([2**33, -(2**33), 0.0, 0]),
        lambda: chosen.random() < 0.5,
        lambda: chosen.choice(["open", "12", ""]),
    ]
    return [make_reading(chosen.choice(values)(), ts, seq) for ts, seq in places]


SPREADS = {
    "1ms": 300,
    "7ms": 2000,
    "250ms": 60_000,
    "1s": 300_000,
    "7s": 3_000_000,
    "1m": 10_000_000,
    "13m": 200_000_000,
    "1h": 2_000_000_000,
    "36h": 20_000_000_000,
    "1d": 40_000_000_000,
    "30d": 500_000_000_000,
    "86400s": 40_000_000_000,
    "9999999999d": 500_000_000_000,
}


@pytest.mark.parametrize("every", SPREADS)
async def test_buckets_are_what_plain_sums_are(
    reader_client: ReaderClient, store: Store, every: str, rng: random.Random
) -> None:
    readings = invented(rng, 400, SPREADS[every])
    await store.insert(*readings)
    await store.insert(make_reading(99, TS + 5, sensor="neighbour"))
    assert listed((await reader_client.fetch("/readings/buckets", series(every=every))).items) == summed(
        readings, every
    )
    # Ends within a bucket clip it; its time stays a multiple of the width.
    start, end = TS + 1234 + SPREADS[every] // 3, TS + 1234 + SPREADS[every] // 2
    for bounds in ({"from": start, "to": end}, {"from": start}, {"to": end}):
        items = (await reader_client.fetch("/readings/buckets", series(every=every) | bounds)).items
        assert listed(items) == summed(readings, every, bounds.get("from"), bounds.get("to"))


async def test_a_minute_is_the_default_and_begins_with_the_clocks(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(
        make_reading(1, TS), make_reading(3, TS + 19_999), make_reading(8, TS + 20_000)
    )  # 15:06:40, and 15:07:00
    answer = await reader_client.fetch("/readings/buckets", series())
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {
        "items": [
            {"ts": "2025-06-15T15:06:00.000Z", "min": 1, "max": 3, "avg": 2.0, "first": 1, "last": 3, "count": 2},
            {"ts": "2025-06-15T15:07:00.000Z", "min": 8, "max": 8, "avg": 8.0, "first": 8, "last": 8, "count": 1},
        ]
    }


async def test_integers_of_64_bits_stay_integers(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(2**63 - 1, TS), make_reading(-(2**63), TS + 1), make_reading(2**53 + 1, TS + 2))
    (item,) = (await reader_client.fetch("/readings/buckets", series())).items
    assert [item[name] for name in ("min", "max", "first", "last")] == [-(2**63), 2**63 - 1, 2**63 - 1, 2**53 + 1]
    assert {type(item[name]) for name in ("min", "max", "first", "last", "count")} == {int}


async def test_where_there_is_no_number_there_is_no_bucket(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading("12", TS), make_reading(True, TS + 1))
    await store.insert(make_reading(1, TS, sensor="other"))
    for query in (series(), series(sensor_type="nothing"), series(from_=TS, to=TS)):
        assert (await reader_client.fetch("/readings/buckets", query)).json == {"items": []}
    for query in (series(sensor_type="other", from_=TS + 1), series(sensor_type="other", to=TS)):
        assert (await reader_client.fetch("/readings/buckets", query)).json == {"items": []}


async def test_ten_thousand_buckets_are_given_and_not_one_more(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(number, TS + 10 * number) for number in range(10_001)))
    most = await reader_client.fetch("/readings/buckets", series(every="10ms", to=TS + 100_000))
    assert [item["first"] for item in most.items] == list(range(10_000))
    assert (await reader_client.fetch("/readings/buckets", series(every="10ms"))).invalid_fields == ["every"]
    inside = series(every="10ms", from_=TS + 5, to=TS + 100_001)  # as long, and touches one more
    assert (await reader_client.fetch("/readings/buckets", inside)).invalid_fields == ["every"]
    assert len((await reader_client.fetch("/readings/buckets", series(every="20ms"))).items) == 5001
    # Given ends count, however few readings lie between them.
    wide = series(every="1s", from_="2000-01-01T00:00:00Z")
    assert (await reader_client.fetch("/readings/buckets", wide)).invalid_fields == ["every"]
    assert len((await reader_client.fetch("/readings/buckets", wide | {"every": "1d"})).items) == 1


BAD = {
    "every": [
        *("", "0s", "-1s", "1", "s", "1.5s", "1w", "1M", "1S", "1 s", "01s", "\u0661s", "1s\n", "1s1s", "60 s; drop"),
        *("99999999999d", "999999999999ms", "1" * 20 + "s"),  # more milliseconds than 64 bits hold, or would
    ],
    "from": ["", "now", "2025-06-15T15:06:40"],
    "to": ["", "later", "1.5"],
    "device": ["", "x" * 257],
    "sensorType": ["", "x" * 257],
}


async def test_a_parameter_in_another_form_is_named(reader_client: ReaderClient) -> None:
    for name, values in BAD.items():
        for value in values:
            print(name, repr(value))
            assert (await reader_client.fetch("/readings/buckets", series() | {name: value})).invalid_fields == [name]


async def test_what_is_missing_and_ends_in_the_wrong_order_are_named(reader_client: ReaderClient) -> None:
    assert (await reader_client.fetch("/readings/buckets")).invalid_fields == ["device", "sensorType"]
    assert (await reader_client.fetch("/readings/buckets", {"sensorType": SENSOR})).invalid_fields == ["device"]
    assert (await reader_client.fetch("/readings/buckets", series(from_=TS, to=TS - 1))).invalid_fields == ["to"]
    huge = series(from_=-(10**17), to=10**17, every="1ms")
    assert (await reader_client.fetch("/readings/buckets", huge)).invalid_fields == ["every"]


def summed_of_all(readings: list[Reading], every: str, start: int | None = None, end: int | None = None) -> list[Any]:
    """Compute the expected response with `values=all`."""
    inside = [
        one
        for one in sorted(readings, key=lambda one: (one.ts_ms, one.seq))
        if (start is None or one.ts_ms >= start) and (end is None or one.ts_ms < end)
    ]
    found: list[dict[str, Any]] = []
    for ts, group in groupby(inside, key=lambda one: one.ts_ms - one.ts_ms % width(every)):
        values: list[Any] = [one.value for one in group]
        found.append({"ts": rfc3339(ts), "count": len(values)})
        numbers = [value for value in values if not isinstance(value, bool | str)]
        booleans = [value for value in values if isinstance(value, bool)]
        texts = [value for value in values if isinstance(value, str)]
        if numbers:
            average = pytest.approx(sum(numbers) / len(numbers), rel=1e-9, abs=1e-4)
            found[-1]["numbers"] = {"min": min(numbers), "max": max(numbers), "avg": average} | ends_of(numbers)
        if booleans:
            found[-1]["booleans"] = {"on": sum(booleans)} | ends_of(booleans)
        if texts:
            often = sorted({(-texts.count(text), text.encode()) for text in texts})[:5]
            top = [[text.decode(), -count] for count, text in often]
            found[-1]["texts"] = ends_of(texts) | {"top": top}
    return found


def ends_of(values: list[Any]) -> dict[str, Any]:
    return {"count": len(values), "first": values[0], "last": values[-1]}


@pytest.mark.parametrize("every", SPREADS)
async def test_buckets_of_every_kind_are_what_plain_sums_are(
    reader_client: ReaderClient, store: Store, every: str, rng: random.Random
) -> None:
    readings = invented(rng, 400, SPREADS[every])
    words = ["idle", "error", "1", "10", "2", "", "\u00e4", "<b>", "x" * 256]
    readings += [make_reading(rng.choice(words), one.ts_ms, 10 + n) for n, one in enumerate(readings[:100])]
    await store.insert(*readings)
    await store.insert(make_reading("neighbour", TS + 5, sensor="neighbour"))
    start, end = TS + 1234 + SPREADS[every] // 3, TS + 1234 + SPREADS[every] // 2
    for bounds in ({}, {"from": start, "to": end}, {"from": start}, {"to": end}):
        items = (await reader_client.fetch("/readings/buckets", series(every=every, values="all") | bounds)).items
        assert items == summed_of_all(readings, every, bounds.get("from"), bounds.get("to"))


async def test_kinds_that_a_bucket_does_not_hold_are_left_out(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(True, TS), make_reading(False, TS + 1), make_reading(True, TS + 2))
    await store.insert(make_reading("on", TS + 60_000), make_reading(7, TS + 60_000, 1))
    answer = await reader_client.fetch("/readings/buckets", series(values="all"))
    assert answer.json == {
        "items": [
            {
                "ts": "2025-06-15T15:06:00.000Z",
                "count": 3,
                "booleans": {"on": 2, "count": 3, "first": True, "last": True},
            },
            {
                "ts": "2025-06-15T15:07:00.000Z",
                "count": 2,
                "numbers": {"min": 7, "max": 7, "avg": 7.0, "count": 1, "first": 7, "last": 7},
                "texts": {"count": 1, "first": "on", "last": "on", "top": [["on", 1]]},
            },
        ]
    }
    assert (await reader_client.fetch("/readings/buckets", series(values="number"))).items == (
        await reader_client.fetch("/readings/buckets", series())
    ).items
    assert (await reader_client.fetch("/readings/buckets", series(values="text"))).invalid_fields == ["values"]


async def test_buckets_of_every_kind_are_fewer_at_most(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(str(number), TS + 10 * number) for number in range(5001)))
    query = series(every="10ms", values="all")
    most = await reader_client.fetch("/readings/buckets", query | {"to": TS + 50_000})
    assert [item["texts"]["first"] for item in most.items] == [str(number) for number in range(5000)]
    assert (await reader_client.fetch("/readings/buckets", query)).invalid_fields == ["every"]
