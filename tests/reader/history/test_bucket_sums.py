"""Buckets from columns and from precomputed sums, against the same sums in plain Python."""

import math
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any

import bson
import numpy as np
import pytest
from bson import Decimal128, Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from reader.history import bucket_sums
from reader.history.bucket_boundaries import DAY_MS, BucketWidth, boundaries
from reader.history.bucket_statistics import KINDS, NUMBERS_ALONE, SUMMARY, Aggregation
from reader.history.bucket_sums import BucketSums, TooManyTexts
from reader.responses import encode_json
from readings.document import encode_document
from readings.reading import Reading
from runtime.time_zones import time_zone
from storage.codec.columns import Columns
from storage.codec.from_documents import columns_of
from storage.codec.head import HOUR_MS, head_of
from storage.codec.head_sums import head_sums_from
from storage.codec.sums import sums_of
from tests.reader.bucket_model import MODELS, OVERFLOW, by_kind, in_buckets
from tests.reader.harness import DEVICE, OWNER, TS, make_reading

AGGREGATIONS = {"": SUMMARY, "number": NUMBERS_ALONE, "all": KINDS}
EVER = (-(2**63), 0), (2**63 - 1, 0)
# The clocks go forward in Berlin and back on Lord Howe, by half an hour: (zone, width), and a time near the change.
CASES: dict[str, tuple[str | None, BucketWidth, datetime]] = {
    "days of 23 hours": ("Europe/Berlin", BucketWidth(1, "d"), datetime(2025, 3, 29, tzinfo=UTC)),
    "days of 25 hours": ("Europe/Berlin", BucketWidth(1, "d"), datetime(2025, 10, 25, tzinfo=UTC)),
    "hours of half hours": ("Asia/Kolkata", BucketWidth(1, "h"), datetime(2025, 6, 15, tzinfo=UTC)),
    "days of 24.5 hours": ("Australia/Lord_Howe", BucketWidth(1, "d"), datetime(2025, 4, 5, tzinfo=UTC)),
    "six hours": ("Europe/Berlin", BucketWidth(6, "h"), datetime(2025, 10, 25, tzinfo=UTC)),
    "weeks": ("America/New_York", BucketWidth(1, "w"), datetime(2025, 3, 7, tzinfo=UTC)),
    "months": (None, BucketWidth(1, "M"), datetime(2025, 5, 29, tzinfo=UTC)),
    "hours of UTC": (None, BucketWidth(1, "h"), datetime(2025, 6, 15, tzinfo=UTC)),
    "quarters of an hour": (None, BucketWidth(15, "m"), datetime(2025, 6, 15, tzinfo=UTC)),
    "before 1970": (None, BucketWidth(7, "h"), datetime(1969, 12, 31, tzinfo=UTC)),
}

floats = st.one_of(
    st.integers(-3000, 3000).map(lambda hundredths: hundredths / 100),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 0.0, 5e-324, 1.7e308]),
)
integers = st.one_of(
    st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1), st.sampled_from([2**53 + 1, 2**63 - 1, -(2**63)])
)
texts = st.sampled_from(["on", "off", "", "öffnet", "1", "2", "3"])
columns_of_values = st.one_of(
    *(st.lists(each, min_size=1, max_size=60) for each in (floats, integers, st.booleans(), texts)),
    st.lists(st.one_of(floats, integers, st.booleans(), texts), min_size=1, max_size=60),
)


def columns(readings: Iterable[Reading]) -> Columns:
    return columns_of(b"".join(encode_document(OWNER, DEVICE, one) for one in readings), 1)


def add_in_pieces(buckets: BucketSums, readings: Sequence[Reading], cuts: Iterable[int], rng: random.Random) -> int:
    """Add readings in pieces as blocks have them: by columns, total, or hours; return how many were added by sums."""
    by_sums = 0
    for begin, end in pairwise(sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})):
        piece = columns(readings[begin:end])
        first, last = int(piece.ts[0]), int(piece.ts[-1])
        way = rng.choice(["columns", "total", "hours"])
        (total,) = sums_of(piece, np.zeros(1, np.int64))
        if way == "total" and buckets.in_one_bucket(first, last) and buckets.can_use(total):
            buckets.add_sums(first, last, total)
            by_sums += end - begin
        elif way == "hours":
            by_sums += add_hours(buckets, piece)
        else:
            buckets.add_columns(piece)
    return by_sums


def add_hours(buckets: BucketSums, piece: Columns) -> int:
    by_sums, hours = 0, piece.ts // HOUR_MS
    starts = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    for begin, end, sums in zip(starts, [*starts[1:], len(piece)], sums_of(piece, starts), strict=True):
        hour = int(hours[begin]) * HOUR_MS
        if buckets.in_one_bucket(hour, hour + HOUR_MS - 1) and buckets.can_use(sums):
            buckets.add_sums(hour, hour + HOUR_MS - 1, sums)
            by_sums += end - begin
        else:
            buckets.add_columns(piece.take(slice(begin, end)))
    return by_sums


def without_averages(buckets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return buckets without `avg`."""
    return [
        {
            name: {inner: value for inner, value in part.items() if inner != "avg"} if isinstance(part, dict) else part
            for name, part in bucket.items()
            if name != "avg"
        }
        for bucket in buckets
    ]


def assert_averages(parts: list[dict[str, Any]], readings: Iterable[Reading], bounds: Sequence[int]) -> None:
    expected = {start: by_kind(values)[0] for start, values in in_buckets(readings, bounds)}
    for part in parts:
        if "avg" not in part:
            continue
        start = part["_id"]["at"] if isinstance(part["_id"], dict) else part["_id"]
        numbers = [Fraction(number) for number in expected[start]]
        exact, size = sum(numbers, Fraction()), sum(map(abs, numbers), Fraction())
        if part["avg"] is None:
            assert size >= OVERFLOW
            continue
        assert type(part["avg"]) is float
        # Two doubles miss what is beyond 106 bits of the largest sum that is added, which others may cancel.
        allowed = (abs(exact) / 10**12 + size / 2**100) / len(numbers) + Fraction(1, 2**1074)
        assert abs(Fraction(part["avg"]) - exact / len(numbers)) <= allowed or size >= OVERFLOW


def typed(buckets: list[dict[str, Any]]) -> str:
    """Return text in which int and float, 0.0 and -0.0 differ, and int64 is as in a response."""
    return encode_json(buckets).decode()


@pytest.mark.fuzz
@pytest.mark.parametrize("values", MODELS)
@pytest.mark.parametrize("case", CASES)
@given(st.data(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=25)
def test_columns_and_sums_give_the_same_buckets(
    case: str, values: str, data: st.DataObject, rng: random.Random
) -> None:
    zone, width, near = CASES[case]
    column = data.draw(columns_of_values)
    cuts = data.draw(st.lists(st.integers(1, 60), max_size=8))
    start = round(near.timestamp() * 1000)
    spread = data.draw(st.sampled_from([HOUR_MS, DAY_MS, 4 * DAY_MS]))
    places = {(start + rng.randrange(spread), rng.randrange(2)) for _ in column}
    readings = [make_reading(value, *at) for value, at in zip(column, sorted(places), strict=False)]
    # Some readings are outside of the range.
    first, last = readings[0].ts_ms, readings[-1].ts_ms
    inside = (first, last + 1) if data.draw(st.booleans()) else (first + (last - first) // 3, first + spread // 2)
    bounds = boundaries(width, None if zone is None else time_zone(zone), *inside, 10_000)
    aggregation = AGGREGATIONS[values]
    alone, mixed = aggregation.sums(bounds), aggregation.sums(bounds)
    alone.add_columns(columns(readings))
    add_in_pieces(mixed, readings, cuts, rng)
    right = MODELS[values](readings, bounds)
    for buckets in (alone, mixed):
        assert_averages(buckets.parts(), readings, bounds)
        found = without_averages(aggregation.buckets(buckets.parts()))
        assert found == without_averages(right)
        assert typed(found) == typed(
            [sorted_as(bucket, one) for bucket, one in zip(without_averages(right), found, strict=True)]
        )


def sorted_as(bucket: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return a bucket with its fields in another one's order."""
    return {
        name: sorted_as(bucket[name], part) if isinstance(part, dict) else bucket[name] for name, part in other.items()
    }


@pytest.mark.parametrize("values", MODELS)
@pytest.mark.parametrize("case", ["days of 23 hours", "days of 25 hours", "hours of half hours", "six hours"])
def test_heads_give_what_columns_give(case: str, values: str, rng: random.Random) -> None:
    zone, width, near = CASES[case]
    start = round(near.timestamp() * 1000)
    readings = [make_reading(round(rng.gauss(20, 3), 2), start + at * 40_000) for at in range(5000)]
    bounds = boundaries(width, time_zone(zone or ""), readings[0].ts_ms, readings[-1].ts_ms + 1, 10_000)
    aggregation = AGGREGATIONS[values]
    buckets, totals, by_hours = aggregation.sums(bounds), 0, 0
    for at in range(0, 5000, 500):
        piece = columns(readings[at : at + 500])
        head = head_sums_from(bson.encode(head_of(piece, *EVER).document()))
        if buckets.in_one_bucket(head.first[0], head.last[0]):
            buckets.add_sums(head.first[0], head.last[0], head.sums)
            totals += 1
            continue
        hours = head.hours()
        for hour in range(head.first[0] // HOUR_MS * HOUR_MS, head.last[0] + 1, HOUR_MS):
            if hour in hours and buckets.in_one_bucket(hour, hour + HOUR_MS - 1):
                buckets.add_sums(hour, hour + HOUR_MS - 1, hours[hour])
                by_hours += 1
            else:
                buckets.add_columns(piece.take((piece.ts >= hour) & (piece.ts < hour + HOUR_MS)))
    found = aggregation.buckets(buckets.parts())
    assert found == MODELS[values](readings, bounds)
    assert_averages(buckets.parts(), readings, bounds)
    # Hours of India's clocks begin within those of UTC.
    if case == "hours of half hours":
        assert (totals, by_hours) == (0, 0)
    else:
        assert totals > 0
        assert by_hours > 5


def test_thousands_of_buckets(rng: random.Random) -> None:
    readings = [make_reading(rng.uniform(-1, 1), TS + at * 7) for at in range(20_000) if rng.random() < 0.5]
    bounds = boundaries(BucketWidth(14, "ms"), None, readings[0].ts_ms, readings[0].ts_ms + 140_000 - 14, 10_000)
    buckets = BucketSums(bounds)
    for at in range(0, len(readings), 999):
        buckets.add_columns(columns(readings[at : at + 999]))
    assert SUMMARY.buckets(buckets.parts()) == MODELS[""](readings, bounds)
    assert_averages(buckets.parts(), readings, bounds)


def test_the_most_frequent_texts_are_counted_over_all_pieces(rng: random.Random) -> None:
    words = ["a", "b", "10", "9", "", "\u00e4", "z" * 256, "<b>"]
    readings = [make_reading(rng.choice([*words, 1, True]), TS + at * 1000) for at in range(3000)]
    bounds = boundaries(BucketWidth(20, "m"), None, TS, readings[-1].ts_ms + 1, 5000)
    buckets = KINDS.sums(bounds)
    for at in range(0, 3000, 333):
        buckets.add_columns(columns(readings[at : at + 333]))
    assert KINDS.buckets(buckets.parts()) == MODELS["all"](readings, bounds)
    assert KINDS.buckets(buckets.parts()) == MODELS["all"](readings, bounds)  # once more


def test_equally_frequent_texts_are_in_the_order_of_utf_8() -> None:
    words = ["\U0001f600", "\uffff", "b", "a", "a\0", "c", "d"]
    buckets = KINDS.sums([TS, TS + 100])
    buckets.add_columns(columns(make_reading(word, TS + at) for at, word in enumerate(words)))
    (found,) = KINDS.buckets(buckets.parts())
    assert [text for text, _ in found["texts"]["top"]] == ["a", "a\0", "b", "c", "d"]


def test_too_many_distinct_texts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_sums, "MAX_TEXTS", 5)
    readings = [make_reading(str(at), TS + at) for at in range(12)]
    buckets = KINDS.sums([TS, TS + 5, TS + 10, TS + 20])
    buckets.add_columns(columns(readings))
    with pytest.raises(TooManyTexts, match="more than 5"):
        buckets.add_columns(columns(make_reading(str(at), TS + at) for at in range(12, 20)))


@pytest.mark.parametrize("aggregation", AGGREGATIONS.values())
def test_values_of_other_types_and_infinite_ones_do_not_count(aggregation: Aggregation) -> None:
    others = [math.nan, math.inf, -math.inf, None, Decimal128("1.5"), [1], b"1"]
    buckets = aggregation.sums([TS, TS + 100, TS + 200])
    kept = [make_reading(1.5, TS + 20), make_reading(7, TS + 21), make_reading("on", TS + 22)]
    made = [bson.encode({**bson.decode(encode_document(OWNER, DEVICE, one))}) for one in kept]
    odd = [
        bson.encode({**bson.decode(encode_document(OWNER, DEVICE, make_reading(0, ts))), "value": other})
        for at, other in enumerate(others)
        for ts in (TS + at, TS + 100 + at)
    ]
    everything = sorted([*made, *odd], key=lambda raw: bson.decode(raw)["_id"]["ts"])
    buckets.add_columns(columns_of(b"".join(everything), 1))
    values = {SUMMARY: "", NUMBERS_ALONE: "number", KINDS: "all"}[aggregation]
    assert aggregation.buckets(buckets.parts()) == MODELS[values](kept, [TS, TS + 100])


def test_values_of_documents_that_are_kept_whole_count() -> None:
    def whole(reading: Reading) -> bytes:
        fields = bson.decode(encode_document(OWNER, DEVICE, reading))
        return bson.encode({"_id": fields.pop("_id"), "note": "before", **fields})

    readings = [make_reading(value, TS + at) for at, value in enumerate((2, 2**40, -1.5, True, "on", "new"))]
    buckets = KINDS.sums([TS, TS + 100])
    plain = encode_document(OWNER, DEVICE, make_reading("on", TS + 9))
    buckets.add_columns(columns_of(b"".join((*map(whole, readings), plain)), 1))
    assert KINDS.buckets(buckets.parts()) == MODELS["all"]([*readings, make_reading("on", TS + 9)], [TS, TS + 100])


def test_types_of_numbers_are_kept() -> None:
    buckets = SUMMARY.sums([TS, TS + 100])
    buckets.add_columns(columns([make_reading(-0.0, TS), make_reading(0, TS + 1), make_reading(2**63 - 1, TS + 2)]))
    (found,) = buckets.parts()
    assert found.pop("avg") == (2**63 - 1) / 3
    assert typed([found]) == (
        f'[{{"_id":{{"at":{TS},"kind":"number"}},"min":-0.0,"max":9223372036854775807,'
        '"first":-0.0,"last":9223372036854775807,"count":3}]'
    )
    assert type(found["max"]) is Int64


@pytest.mark.parametrize("by_sums", [False, True])
def test_an_average_is_null_where_the_sum_overflows(by_sums: bool) -> None:
    buckets = SUMMARY.sums([TS, TS + 100])
    for ts in (TS, TS + 1):
        piece = columns([make_reading(1.7e308, ts)])
        if by_sums:
            buckets.add_sums(ts, ts, sums_of(piece, np.zeros(1, np.int64))[0])
        else:
            buckets.add_columns(piece)
    (found,) = SUMMARY.buckets(buckets.parts())
    assert (found["avg"], found["max"], found["count"]) == (None, 1.7e308, 2)


def test_an_average_is_null_where_the_sum_of_a_part_overflows() -> None:
    """Hours that are summed up in blocks overflow on their own, also if both together do not."""
    buckets = SUMMARY.sums([TS, TS + 100])
    for ts, value in ((TS, 1.7e308), (TS + 10, -1.7e308)):
        hour = columns([make_reading(value, ts), make_reading(value, ts + 1)])
        buckets.add_sums(ts, ts + 1, sums_of(hour, np.zeros(1, np.int64))[0])
    (found,) = SUMMARY.buckets(buckets.parts())
    assert (found["avg"], found["min"], found["max"], found["count"]) == (None, -1.7e308, 1.7e308, 4)


def test_times_of_all_64_bits_have_buckets() -> None:
    times = [-(2**63), -5, 0, 2**63 - 2, 2**63 - 1]
    readings = [make_reading(at, ts, received_ms=0) for at, ts in enumerate(times)]
    for width in (BucketWidth(9_999_999_999, "d"), BucketWidth(10**9 - 1, "w")):
        bounds = boundaries(width, None, times[0], times[-1], 10_000)
        buckets = BucketSums(bounds)
        buckets.add_columns(columns(readings))
        right = [[start, len(values)] for start, values in in_buckets(readings, bounds)]
        assert [[part["_id"]["at"], part["count"]] for part in buckets.parts()] == right
        assert sum(count for _, count in right) == 5


def test_sums_are_refused_where_they_would_be_wrong_and_ignored_outside() -> None:
    (sums,) = sums_of(columns([make_reading("on", TS)]), np.zeros(1, np.int64))
    buckets = SUMMARY.sums([TS, TS + 100, TS + 200])
    for first, last in ((TS + 99, TS + 100), (TS - 1, TS), (TS + 199, TS + 200), (TS - 1, TS + 200)):
        with pytest.raises(ValueError, match="several buckets"):
            buckets.add_sums(first, last, sums)
    buckets.add_sums(TS - 5, TS - 1, sums)
    buckets.add_sums(TS + 200, TS + 300, sums)
    assert buckets.parts() == []
    buckets.add_sums(TS + 100, TS + 199, sums)
    with pytest.raises(ValueError, match="order of time"):
        buckets.add_sums(TS, TS + 99, sums)
    kinds = KINDS.sums([TS, TS + 100])
    assert not kinds.can_use(sums)
    with pytest.raises(ValueError, match="most frequent"):
        kinds.add_sums(TS, TS, sums)
    assert NUMBERS_ALONE.sums([TS, TS + 100]).can_use(sums)


def test_bounds_of_a_bucket() -> None:
    buckets = BucketSums([TS, TS + 100, TS + 150])
    inside = [(TS, TS), (TS, TS + 99), (TS + 100, TS + 149), (TS + 120, TS + 130), (TS + 5, TS + 6)]
    assert all(buckets.in_one_bucket(*each) for each in inside)
    outside = [(TS - 1, TS - 1), (TS - 1, TS), (TS, TS + 100), (TS + 149, TS + 150), (TS + 150, TS + 150)]
    assert not any(buckets.in_one_bucket(*each) for each in outside)
