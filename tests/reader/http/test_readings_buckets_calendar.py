"""`GET /readings/buckets` by days, weeks and months of a time zone, against Python's calendar and MongoDB's."""

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest

from reader.history.bucket_boundaries import DAY_MS, BucketWidth, boundaries
from readings.reading import Reading
from runtime.time_zones import time_zone
from runtime.times import rfc3339
from tests.reader.bucket_model import MODELS
from tests.reader.harness import TS, ReaderClient, Store, make_reading, series

# In none of these is there a day without a midnight in these years, nor a new law that an older MongoDB cannot know.
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York", "Pacific/Auckland"]
START, END = (round(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000) for year in (2012, 2022))
DATES: dict[str, Callable[[date], date]] = {
    "1d": lambda day: day,
    "1w": lambda day: day - timedelta(days=day.weekday()),
    "1M": lambda day: day.replace(day=1),
    "3M": lambda day: day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1),
}


def milliseconds(day: date, zone: str) -> int:
    """The midnight of a day as the clocks show it."""
    return round(datetime(day.year, day.month, day.day, tzinfo=time_zone(zone)).timestamp() * 1000)


def values(rng: random.Random) -> Any:
    return rng.choice([rng.uniform(-50, 50), rng.randrange(100), rng.random() < 0.5, rng.choice(["idle", "busy"])])


def calendar_bounds(readings: list[Reading], every: str, zone: str) -> list[int]:
    """The boundaries of the dates with readings, from Python's dates; gaps between them contain no readings."""
    days = {DATES[every](datetime.fromtimestamp(one.ts_ms / 1000, time_zone(zone)).date()) for one in readings}
    ends = {DATES[every](day + timedelta(days=int(every[0]) * {"d": 1, "w": 7, "M": 31}[every[-1]])) for day in days}
    return sorted(milliseconds(day, zone) for day in days | ends)


@pytest.mark.fuzz
@pytest.mark.parametrize("zone", ZONES)
async def test_days_weeks_and_months_are_what_plain_sums_over_the_calendar_are(
    reader_client: ReaderClient, store: Store, zone: str, rng: random.Random
) -> None:
    readings = [make_reading(values(rng), rng.randrange(START, END), n % 3) for n in range(1500)]
    # Half of them within days of a change of the clocks.
    changes = [day for day in range(START, END, DAY_MS) if changes_clocks(day, zone)]
    readings += [make_reading(values(rng), rng.choice(changes or [START]) + rng.randrange(DAY_MS)) for _ in range(1500)]
    readings = list({(one.ts_ms, one.seq): one for one in readings}.values())
    await store.insert(*readings)
    for every in DATES:
        bounds = calendar_bounds(readings, every, zone)
        for name, model in MODELS.items():
            query = series(every=every, zone=zone) | ({"values": name} if name else {})
            items = (await reader_client.fetch("/readings/buckets", query)).items
            assert items == model(readings, bounds), (every, name)


def changes_clocks(day_ms: int, zone: str) -> bool:
    offsets = [datetime.fromtimestamp(ms / 1000, time_zone(zone)).utcoffset() for ms in (day_ms, day_ms + DAY_MS)]
    return offsets[0] != offsets[1]


@pytest.mark.parametrize("zone", ZONES)
async def test_mongodbs_own_calendar_agrees(store: Store, zone: str, rng: random.Random) -> None:
    times = [rng.randrange(START, END) for _ in range(1000)]
    await store.insert(*(make_reading(1, ts) for ts in set(times)))
    units = {"day": BucketWidth(1, "d"), "week": BucketWidth(1, "w"), "month": BucketWidth(1, "M")}
    started = {
        unit: {"$dateTrunc": {"date": "$_id.ts", "unit": unit, "timezone": zone, "startOfWeek": "monday"}}
        for unit in units
    }
    cursor = store.to_mongodb.database["readings"].aggregate([{"$project": {"ts": "$_id.ts", "_id": 0, **started}}])
    compared = 0
    async for found in cursor:
        ts = milliseconds_of(found["ts"])
        for unit, width in units.items():
            assert boundaries(width, time_zone(zone), ts, ts + 1, 1)[0] == milliseconds_of(found[unit]), (unit, ts)
            compared += 1
    assert compared > 2900


def milliseconds_of(time: datetime) -> int:
    return round(time.replace(tzinfo=UTC).timestamp() * 1000)


async def test_days_have_23_and_25_hours_and_hours_begin_with_the_zones_clocks(
    reader_client: ReaderClient, store: Store
) -> None:
    half_hours = range(milliseconds(date(2025, 1, 1), "UTC"), milliseconds(date(2026, 1, 1), "UTC"), 1_800_000)
    await store.insert(*(make_reading(n, ts) for n, ts in enumerate(half_hours)))

    async def counted(zone: str, every: str, start: str, end: str) -> list[tuple[str, int]]:
        items = (
            await reader_client.fetch("/readings/buckets", series(every=every, zone=zone, from_=start, to=end))
        ).items
        return [(item["ts"][5:16], item["count"]) for item in items]

    assert await counted("Europe/Berlin", "1d", "2025-03-28T23:00:00Z", "2025-03-31T22:00:00Z") == [
        ("03-28T23:00", 48),
        ("03-29T23:00", 46),
        ("03-30T22:00", 48),
    ]
    assert await counted("Europe/Berlin", "1d", "2025-10-25T22:00:00Z", "2025-10-26T23:00:00Z") == [("10-25T22:00", 50)]
    assert await counted("Australia/Lord_Howe", "1d", "2025-04-05T13:00:00Z", "2025-04-06T13:30:00Z") == [
        ("04-05T13:00", 49)
    ]
    assert await counted("Asia/Kolkata", "1h", "2025-06-15T10:30:00Z", "2025-06-15T12:00:00Z") == [
        ("06-15T10:30", 2),
        ("06-15T11:30", 1),
    ]
    assert await counted("Europe/Berlin", "1w", "2025-10-19T22:00:00Z", "2025-11-02T23:00:00Z") == [
        ("10-19T22:00", 2 * 169),
        ("10-26T23:00", 2 * 168),
    ]
    months = await counted("America/New_York", "1M", "2025-03-01T05:00:00Z", "2025-05-01T04:00:00Z")
    assert months == [("03-01T05:00", 2 * (31 * 24 - 1)), ("04-01T04:00", 2 * 30 * 24)]
    # Without a zone: UTC, weeks from Monday.
    assert (await counted("UTC", "1w", "2025-06-09T00:00:00Z", "2025-06-16T00:00:00Z")) == [("06-09T00:00", 2 * 168)]
    plain = series(every="1M", from_="2025-02-01T00:00:00Z", to="2025-03-01T00:00:00Z")
    assert [item["count"] for item in (await reader_client.fetch("/readings/buckets", plain)).items] == [2 * 28 * 24]


async def test_ten_thousand_days_are_given_and_not_one_more(reader_client: ReaderClient, store: Store) -> None:
    zone = "Europe/Berlin"
    days = [milliseconds(date(1999, 1, 1) + timedelta(days=number), zone) for number in range(10_001)]
    await store.insert(*(make_reading(number, day) for number, day in enumerate(days)))
    query = series(every="1d", zone=zone, from_=days[0])
    items = (await reader_client.fetch("/readings/buckets", query | {"to": days[-1]})).items
    assert [(item["ts"], item["first"], item["count"]) for item in items] == [
        (rfc3339(day), number, 1) for number, day in enumerate(days[:-1])
    ]
    assert (await reader_client.fetch("/readings/buckets", query | {"to": days[-1] + 1})).invalid_fields == ["every"]
    assert (await reader_client.fetch("/readings/buckets", query)).invalid_fields == ["every"]
    kinds = query | {"values": "all", "to": days[5000]}
    assert len((await reader_client.fetch("/readings/buckets", kinds)).items) == 5000
    assert (await reader_client.fetch("/readings/buckets", kinds | {"to": days[5000] + 1})).invalid_fields == ["every"]


async def test_months_of_eight_hundred_years_are_ten_thousand_buckets(
    reader_client: ReaderClient, store: Store, rng: random.Random
) -> None:
    months = [date(year, month, 1) for year in range(1600, 2433) for month in range(1, 13)]
    chosen = rng.sample(months, 300)
    # MongoDB stores times before 1970, and gateways refuse those before 2000.
    await store.insert(*(make_reading(day.year, milliseconds(day, "UTC") + DAY_MS) for day in chosen))
    query = series(every="1M", zone="Asia/Kolkata", from_="1600-01-15T00:00:00Z", to="2432-12-15T00:00:00Z")
    inside = sorted(day for day in chosen if date(1600, 1, 31) < day < date(2432, 12, 1))
    items = (await reader_client.fetch("/readings/buckets", query)).items
    assert [item["first"] for item in items if date(1600, 1, 31).isoformat() < item["ts"] < "2432-11-30"] == [
        day.year for day in inside
    ]
    assert {item["count"] for item in items} == {1}


async def test_hours_of_a_zone_must_divide_a_day(reader_client: ReaderClient, store: Store) -> None:
    await store.insert(make_reading(1, TS))
    for every in ("7h", "7m", "36h", "48h", "11ms"):
        query = series(every=every, zone="Europe/Berlin")
        assert (await reader_client.fetch("/readings/buckets", query)).invalid_fields == ["every"], every
        assert len((await reader_client.fetch("/readings/buckets", query | {"zone": "UTC"})).items) == 1
    for every in ("15m", "24h", "86400s", "250ms", "2d", "5w", "7M"):
        assert len((await reader_client.fetch("/readings/buckets", series(every=every, zone="Asia/Tokyo"))).items) == 1


async def test_times_beyond_the_calendar_have_their_days_and_months(reader_client: ReaderClient, store: Store) -> None:
    times = [-(10**14), -1, 0, 316_517_760_000_000]  # of the years -1200, 1969, 1970 and 12000
    await store.insert(*(make_reading(1, ts) for ts in times))
    for every in ("1d", "1w", "1M"):
        for ts in times:
            query = series(every=every, zone="Europe/Berlin", from_=ts, to=ts + 1)
            assert [item["count"] for item in (await reader_client.fetch("/readings/buckets", query)).items] == [1]
    # Before 1970 the remainder of a division is negative.
    query = series(every="1s", from_=-1000, to=1000)
    items = (await reader_client.fetch("/readings/buckets", query)).items
    assert [item["ts"] for item in items] == ["1969-12-31T23:59:59.000Z", "1970-01-01T00:00:00.000Z"]


def test_the_dates_of_the_model_are_those_of_the_calendar() -> None:
    days = [date(2024, 12, 28) + timedelta(days=number) for number in range(70)]
    mondays = [day for day, _ in groupby(days, key=DATES["1w"])]
    assert mondays[:2] == [date(2024, 12, 23), date(2024, 12, 30)]
    assert {DATES["3M"](day) for day in days} == {date(2024, 10, 1), date(2025, 1, 1)}
