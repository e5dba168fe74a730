"""`GET /readings/buckets` against the same sums in plain Python."""

import random
from collections.abc import Callable

import pytest

from reader.history import bucket_sums
from readings.reading import Reading
from tests.reader.bucket_model import MODELS
from tests.reader.harness import SENSOR, TS, ReaderClient, Store, make_reading, series

UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def multiples(readings: list[Reading], every: str) -> list[int]:
    """The boundaries of buckets that contain readings, and some more: multiples of a width since 1970."""
    digits = every.rstrip("dhms")
    width = int(digits) * UNIT_MS[every.removeprefix(digits)]
    starts = {one.ts_ms // width * width for one in readings}
    return sorted(starts | {start + width for start in starts})


def within(readings: list[Reading], start: int | None = None, end: int | None = None) -> list[Reading]:
    return [one for one in readings if (start is None or one.ts_ms >= start) and (end is None or one.ts_ms < end)]


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


@pytest.mark.parametrize("values", MODELS)
@pytest.mark.parametrize("every", SPREADS)
async def test_buckets_are_what_plain_sums_are(
    reader_client: ReaderClient, store: Store, every: str, values: str, rng: random.Random
) -> None:
    readings = invented(rng, 400, SPREADS[every])
    words = ["idle", "error", "1", "10", "2", "", "\u00e4", "<b>", "x" * 256]
    readings += [make_reading(rng.choice(words), one.ts_ms, 10 + n) for n, one in enumerate(readings[:100])]
    await store.insert(*readings)
    await store.insert(make_reading(99, TS + 5, sensor="neighbour"))
    query = series(every=every) | ({"values": values} if values else {})
    # Ends within a bucket clip it; its time stays a multiple of the width.
    start, end = TS + 1234 + SPREADS[every] // 3, TS + 1234 + SPREADS[every] // 2
    for bounds in ({}, {"from": start, "to": end}, {"from": start}, {"to": end}):
        inside = within(readings, bounds.get("from"), bounds.get("to"))
        items = (await reader_client.fetch("/readings/buckets", query | bounds)).items
        assert items == MODELS[values](inside, multiples(inside, every))


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
    assert b'"items":[{"ts":"2025-06-15T15:06:00.000Z","min":1,"max":3,"avg":2.0,"first":1,"last":3,' in answer.body


async def test_numbers_have_the_same_buckets_whether_or_not_other_kinds_are_wanted(
    reader_client: ReaderClient, store: Store, rng: random.Random
) -> None:
    readings = [one for one in invented(rng, 400, 10_000_000) if not isinstance(one.value, bool | str)]
    await store.insert(*readings)
    alone = await reader_client.fetch("/readings/buckets", series(values="number"))
    assert len(alone.items) > 50
    assert (await reader_client.fetch("/readings/buckets", series())).body == alone.body
    # Nor do other kinds change the statistics of the numbers beside them.
    await store.insert(*(make_reading(rng.choice([True, "text"]), one.ts_ms, 10) for one in readings))
    assert (await reader_client.fetch("/readings/buckets", series(values="number"))).body == alone.body
    items = (await reader_client.fetch("/readings/buckets", series())).items
    assert [{name: item[name] for name in one} for item, one in zip(items, alone.items, strict=True)] == alone.items


async def test_a_bucket_of_booleans_has_them_as_zero_and_one(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(value, TS + n) for n, value in enumerate((False, True, True))))
    await store.insert(make_reading(True, TS + 60_000), make_reading(False, TS + 120_000))
    mixed, on, off = (await reader_client.fetch("/readings/buckets", series())).items
    assert mixed == {
        "ts": "2025-06-15T15:06:00.000Z",
        "min": 0,
        "max": 1,
        "avg": 2 / 3,
        "first": 0,
        "last": 1,
        "count": 3,
        "booleans": {"on": 2, "count": 3, "first": False, "last": True},
    }
    assert {type(mixed[name]) for name in ("min", "max", "first", "last")} == {int}
    assert [(one["min"], one["max"], one["avg"]) for one in (on, off)] == [(1, 1, 1.0), (0, 0, 0.0)]


async def test_texts_are_counted_beside_numbers_and_alone(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(value, TS + n) for n, value in enumerate(("idle", 7, "busy", "error", True))))
    await store.insert(make_reading("error", TS + 60_000))
    assert (await reader_client.fetch("/readings/buckets", series())).items == [
        {
            "ts": "2025-06-15T15:06:00.000Z",
            "min": 7,
            "max": 7,
            "avg": 7.0,
            "first": 7,
            "last": 7,
            "count": 1,
            "booleans": {"on": 1, "count": 1, "first": True, "last": True},
            "texts": {"count": 3, "first": "idle", "last": "error"},
        },
        {"ts": "2025-06-15T15:07:00.000Z", "count": 0, "texts": {"count": 1, "first": "error", "last": "error"}},
    ]


async def test_integers_of_64_bits_stay_integers(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(2**63 - 1, TS), make_reading(-(2**63), TS + 1), make_reading(2**53 + 1, TS + 2))
    (item,) = (await reader_client.fetch("/readings/buckets", series())).items
    assert [item[name] for name in ("min", "max", "first", "last")] == [-(2**63), 2**63 - 1, 2**63 - 1, 2**53 + 1]
    assert {type(item[name]) for name in ("min", "max", "first", "last", "count")} == {int}


async def test_where_there_is_no_number_there_is_no_bucket_of_numbers(
    reader_client: ReaderClient, store: Store
) -> None:
    await store.insert(make_reading("12", TS), make_reading(True, TS + 1))
    await store.insert(make_reading(1, TS, sensor="other"))
    for query in (series(values="number"), series(sensor_type="nothing"), series(from_=TS, to=TS)):
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
        *(
            "",
            "0s",
            "-1s",
            "1",
            "s",
            "1.5s",
            "0w",
            "0M",
            "1y",
            "1W",
            "1D",
            "1mo",
            "1S",
            "1 s",
            "01s",
            "\u0661s",
            "1s\n",
            "1s1s",
            "60 s; drop",
        ),
        *(
            "99999999999d",
            "9999999999M",
            "9999999999w",
            "999999999999ms",
            "1" * 20 + "s",
        ),  # more milliseconds than 64 bits hold, or would
    ],
    "from": ["", "now", "2025-06-15T15:06:40"],
    "to": ["", "later", "1.5"],
    "device": ["", "x" * 257],
    "sensorType": ["", "x" * 257],
    "zone": [
        *("", "berlin", "europe/berlin", "Europe", "../Europe/Berlin", "/etc/localtime", "+05:30", "CEST", "x" * 65)
    ],
    "values": ["", "text", "ALL"],
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


async def test_buckets_of_every_kind_are_fewer_at_most(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(*(make_reading(str(number), TS + 10 * number) for number in range(5001)))
    query = series(every="10ms", values="all")
    most = await reader_client.fetch("/readings/buckets", query | {"to": TS + 50_000})
    assert [item["texts"]["first"] for item in most.items] == [str(number) for number in range(5000)]
    assert (await reader_client.fetch("/readings/buckets", query)).invalid_fields == ["every"]


async def test_more_distinct_texts_than_one_bucket_counts_are_refused(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_sums, "MAX_TEXTS", 5)
    await store.insert(*(make_reading(str(number % 6), TS + number) for number in range(12)))
    refused = await reader_client.fetch("/readings/buckets", series(every="1h", values="all"))
    assert refused.invalid_fields == ["every"]
    assert "distinct texts" in refused.json["errors"][0]["message"]
    narrower = await reader_client.fetch("/readings/buckets", series(every="5ms", values="all"))
    assert sum(item["texts"]["count"] for item in narrower.items) == 12
    (whole,) = (await reader_client.fetch("/readings/buckets", series(every="1h"))).items
    assert whole["texts"]["count"] == 12
