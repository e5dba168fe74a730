"""Boundaries of buckets against the clocks of many zones, minute by minute, as Python's zoneinfo shows them."""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from reader.history.bucket_boundaries import DAY_MS, BucketWidth, TooManyBuckets, Unit, boundaries
from runtime.time_zones import UnknownZone, time_zone, zone_names

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
LIMIT = 10_000
CALENDAR = [
    *(BucketWidth(1, "d"), BucketWidth(2, "d"), BucketWidth(1, "w")),
    *(BucketWidth(1, "M"), BucketWidth(3, "M"), BucketWidth(12, "M")),
]
CLOCK = [
    *(BucketWidth(number, "m") for number in (1, 5, 15, 20, 30, 45, 90)),
    *(BucketWidth(number, "h") for number in (1, 2, 3, 4, 6, 12, 24)),
]

# Half an hour forward, no midnight, changes just after midnight, in Ramadan and by three hours, a skipped day.
UNUSUAL = (
    *("Australia/Lord_Howe", "America/Sao_Paulo", "America/St_Johns", "Africa/Casablanca", "Antarctica/Casey"),
    *("Pacific/Apia", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Amman", "America/Nuuk", "Europe/Berlin"),
)


def at(text: str, zone: ZoneInfo | None = None) -> int:
    found = datetime.fromisoformat(text)
    return round((found if zone is None else found.replace(tzinfo=zone)).timestamp() * 1000)


def local(ms: int, zone: ZoneInfo) -> datetime:
    """What the clocks of a zone show."""
    return datetime.fromtimestamp(ms // 1000, zone).replace(tzinfo=None)


def shown(name: str, every: tuple[int, Unit], start: str, end: str) -> list[tuple[str, float]]:
    """Return what the clocks show where each bucket begins, and its hours."""
    zone = time_zone(name)
    found = boundaries(BucketWidth(*every), zone, at(start, zone), at(end, zone), LIMIT)
    return [(local(one, zone).isoformat(" ", "minutes"), (next_ - one) / HOUR_MS) for one, next_ in pairwise(found)]


def test_a_day_has_23_or_25_hours_where_the_clocks_change_and_half_an_hour_less_or_more_on_lord_howe() -> None:
    assert shown("Europe/Berlin", (1, "d"), "2025-03-29", "2025-04-01") == [
        ("2025-03-29 00:00", 24),
        ("2025-03-30 00:00", 23),
        ("2025-03-31 00:00", 24),
    ]
    assert shown("Europe/Berlin", (1, "d"), "2025-10-25", "2025-10-28") == [
        ("2025-10-25 00:00", 24),
        ("2025-10-26 00:00", 25),
        ("2025-10-27 00:00", 24),
    ]
    assert shown("Australia/Lord_Howe", (1, "d"), "2025-04-06", "2025-04-08") == [
        ("2025-04-06 00:00", 24.5),
        ("2025-04-07 00:00", 24),
    ]
    assert shown("Australia/Lord_Howe", (1, "d"), "2025-10-05", "2025-10-06") == [("2025-10-05 00:00", 23.5)]


def test_days_and_hours_begin_half_an_hour_beside_those_of_utc_in_kolkata() -> None:
    zone = time_zone("Asia/Kolkata")
    assert boundaries(BucketWidth(1, "d"), zone, at("2025-06-15T12:00Z"), at("2025-06-15T12:01Z"), 1) == [
        at("2025-06-14T18:30Z"),
        at("2025-06-15T18:30Z"),
    ]
    hours = boundaries(BucketWidth(1, "h"), zone, at("2025-06-15T12:00Z"), at("2025-06-15T14:00Z"), LIMIT)
    assert hours == [at(f"2025-06-15T{hour}:30Z") for hour in (11, 12, 13, 14)]


def test_a_day_without_a_midnight_begins_later_and_a_skipped_one_is_no_bucket() -> None:
    assert shown("America/Sao_Paulo", (1, "d"), "2018-11-03", "2018-11-06") == [
        ("2018-11-03 00:00", 24),
        ("2018-11-04 01:00", 23),
        ("2018-11-05 00:00", 24),
    ]
    assert shown("Pacific/Apia", (1, "d"), "2011-12-28", "2012-01-01") == [
        ("2011-12-28 00:00", 24),
        ("2011-12-29 00:00", 24),
        ("2011-12-31 00:00", 24),
    ]
    # One minute after midnight the clocks were set back to the day before.
    assert shown("America/St_Johns", (1, "d"), "2010-11-06", "2010-11-08") == [
        ("2010-11-06 00:00", 24),
        ("2010-11-07 00:00", 25),
    ]


def test_weeks_begin_on_monday_and_months_are_those_of_the_calendar() -> None:
    assert shown("Europe/Berlin", (1, "w"), "2025-10-26", "2025-11-04") == [
        ("2025-10-20 00:00", 169),
        ("2025-10-27 00:00", 168),
        ("2025-11-03 00:00", 168),
    ]
    assert shown("Europe/Berlin", (1, "M"), "2024-02-29", "2024-04-01") == [
        ("2024-02-01 00:00", 29 * 24),
        ("2024-03-01 00:00", 31 * 24 - 1),
    ]
    assert [start for start, _ in shown("UTC", (3, "M"), "2024-12-31", "2025-07-02")] == [
        "2024-10-01 00:00",
        "2025-01-01 00:00",
        "2025-04-01 00:00",
        "2025-07-01 00:00",
    ]
    for start in boundaries(BucketWidth(1, "w"), None, -(10**13), 10**13 // 2, 50_000):
        day = date(1970, 1, 1) + timedelta(milliseconds=start)
        assert day.weekday() == 0
        assert start % DAY_MS == 0


def test_an_hour_that_occurs_twice_is_two_buckets_and_wider_ones_become_shorter_or_longer() -> None:
    autumn = [("2025-10-26 01:00", 1), ("2025-10-26 02:00", 1), ("2025-10-26 02:00", 1), ("2025-10-26 03:00", 1)]
    assert shown("Europe/Berlin", (1, "h"), "2025-10-26T01:00", "2025-10-26T04:00") == autumn
    spring = [("2025-03-30 01:00", 1), ("2025-03-30 03:00", 1)]
    assert shown("Europe/Berlin", (1, "h"), "2025-03-30T01:00", "2025-03-30T04:00") == spring
    for day, hours in (("2025-03-30", 5), ("2025-10-26", 7)):
        quarters = shown("Europe/Berlin", (6, "h"), day, f"{day}T23:00")
        assert quarters == [(f"{day} 00:00", hours), *((f"{day} {hour}:00", 6) for hour in ("06", "12", "18"))]
    assert shown("Australia/Lord_Howe", (1, "h"), "2025-04-06T01:00", "2025-04-06T03:00") == [
        ("2025-04-06 01:00", 1.5),
        ("2025-04-06 02:00", 1),
    ]


# The model: what the clocks show at each minute.


def walked(width: BucketWidth, zone: ZoneInfo, start: int, end: int) -> Iterator[int]:
    """Yield the minutes at which a bucket begins, from the second minute on."""
    before, day = local(start, zone), local(start, zone).date()
    for ms in range(start + MINUTE_MS, end, MINUTE_MS):
        now = local(ms, zone)
        if width.unit in {"d", "w", "M"}:
            latest = max(day, now.date())  # a day that has begun does not end when the clocks are set back
            begins, day = calendar_bucket(width, latest) != calendar_bucket(width, day), latest
        elif now < before:
            begins = multiple(width, now) and multiple(width, before + timedelta(minutes=1))
        else:
            begins = clock_bucket(width, now) != clock_bucket(width, before)
        if begins:
            yield ms
        before = now


def calendar_bucket(width: BucketWidth, day: date) -> object:
    if width.unit == "M":
        return ((day.year - 1970) * 12 + day.month - 1) // width.number
    return day.isocalendar()[:2] if width.unit == "w" else (day - date(1970, 1, 1)).days // width.number


def clock_bucket(width: BucketWidth, now: datetime) -> object:
    return now.date(), (now.hour * 60 + now.minute) * MINUTE_MS // width.ms


def multiple(width: BucketWidth, now: datetime) -> bool:
    return (now.hour * 60 + now.minute) * MINUTE_MS % width.ms == 0


def changes(zone: ZoneInfo, years: range) -> list[int]:
    """Return the days on which a zone's offset changes."""
    days = range(at(f"{years.start}-01-01T00:00Z"), at(f"{years.stop}-01-01T00:00Z"), DAY_MS)
    return [day for day, next_ in pairwise(days) if local(day, zone) - local(next_, zone) != timedelta(days=-1)]


def chosen_days(zone: ZoneInfo, rng: random.Random) -> list[int]:
    """Return some days, most beside a change of the clocks; since 1973 all offsets are whole minutes."""
    changed = changes(zone, range(2000 + rng.randrange(25), 2027)) or changes(zone, range(1973, 2000))
    return [*rng.sample(changed, min(2, len(changed))), at("2000-01-01T00:00Z") + rng.randrange(11_000) * DAY_MS]


@pytest.mark.fuzz
def test_the_clocks_of_many_zones_come_to_a_new_bucket_exactly_at_each_boundary(rng: random.Random) -> None:
    compared = 0
    for name in (*UNUSUAL, *rng.sample(sorted(zone_names()), 60)):
        zone = time_zone(name)
        for day in chosen_days(zone, rng):
            start, end = day - rng.randrange(DAY_MS) // MINUTE_MS * MINUTE_MS, day + 2 * DAY_MS
            for width in (rng.choice(CALENDAR), rng.choice(CLOCK)):
                print(name, width, start, end)
                found = boundaries(width, zone, start, end, LIMIT)
                assert [one for one in found if start < one < end] == list(walked(width, zone, start, end))
                require_cover(found, start, end)
                compared += len(found)
    assert compared > 3000


def require_cover(found: Sequence[int], start: int, end: int) -> None:
    """Assert that the first bucket contains the start of a range, and the last one its end."""
    assert found[0] <= start < found[1]
    assert found[-2] < end <= found[-1]
    assert all(one < next_ for one, next_ in pairwise(found))


@pytest.mark.fuzz
def test_boundaries_do_not_depend_on_the_range_asked_for(rng: random.Random) -> None:
    for name in rng.sample(sorted(zone_names()), 100):
        zone = rng.choice([time_zone(name), None])
        for width in (*CALENDAR, BucketWidth(6, "h"), BucketWidth(1, "h")):
            start = at("1995-01-01T00:00Z") + rng.randrange(1200 * 365 * DAY_MS // 30)
            middle, end = (start + rng.randrange(1, 200 * DAY_MS) for _ in range(2))
            middle, end = min(middle, end), max(middle, end)
            print(name, width, start, middle, end)
            whole = boundaries(width, zone, start, end, LIMIT)
            parts = [*boundaries(width, zone, start, middle, LIMIT), *boundaries(width, zone, middle, end, LIMIT)]
            assert sorted(set(parts)) == list(whole)
            require_cover(whole, start, end)
            days = set(boundaries(BucketWidth(1, "d"), zone, whole[0], whole[-1] + 1, LIMIT))
            if width in CALENDAR:
                assert set(whole) <= days
            else:
                assert {day for day in days if whole[0] <= day <= whole[-1]} <= set(whole)


def test_a_width_of_utc_is_a_number_of_milliseconds() -> None:
    for number, unit in ((1, "ms"), (7, "s"), (7, "h"), (1, "d"), (30, "d")):
        width = BucketWidth(number, unit)  # type: ignore[arg-type]
        for start in (-1, 0, 1, at("2025-06-15T12:34:56Z")):
            found = boundaries(width, None, start, start + 10 * width.ms, LIMIT)
            assert found[0] == start // width.ms * width.ms
            assert {end - begin for begin, end in pairwise(found)} == {width.ms}
            require_cover(found, start, start + 10 * width.ms)


@pytest.mark.parametrize(("day", "hours"), [("2025-10-26", 25), ("2025-03-30", 23), ("2025-06-15", 24)])
def test_milliseconds_are_counted_from_where_the_range_begins(day: str, hours: int) -> None:
    zone = time_zone("Europe/Berlin")
    end = at(day, zone) + hours * HOUR_MS
    for start in (at(day, zone), at(day, zone) + 3 * HOUR_MS, end - LIMIT):
        found = boundaries(BucketWidth(1, "ms"), zone, start, start + LIMIT, LIMIT)
        assert found == list(range(start, start + LIMIT + 1))
        assert boundaries(BucketWidth(5, "ms"), zone, start + 7, start + 8, LIMIT) == [start + 5, start + 10]
    with pytest.raises(TooManyBuckets):
        boundaries(BucketWidth(1, "ms"), zone, end - LIMIT, end + 1, LIMIT)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("width", [*CALENDAR, *CLOCK], ids=str)
def test_there_are_at_most_as_many_buckets_as_allowed(name: str, width: BucketWidth) -> None:
    zone, start = time_zone(name), at("2024-01-01T00:00", time_zone(name))
    end = boundaries(width, zone, start, start + 100 * width.ms, LIMIT)[100]
    assert len(boundaries(width, zone, start, end, 100)) in {101, 102}  # of some days the first began before
    begin = boundaries(width, zone, start, end, 102)[-101]
    assert len(boundaries(width, zone, begin, end, 100)) == 101
    with pytest.raises(TooManyBuckets) as refused:
        boundaries(width, zone, begin, end + 1, 100)
    assert refused.value.number == 101
    with pytest.raises(TooManyBuckets):
        boundaries(width, zone, -(10**18), 10**18, 100)


@pytest.mark.parametrize("start", [-(10**18) + 1, at("0001-01-01T00:00Z"), at("9999-12-31T12:00Z"), 10**17, 2**63 - 2])
def test_beyond_the_calendar_years_are_counted_on(start: int) -> None:
    for zone in (None, time_zone("UTC"), time_zone("Europe/Berlin")):
        for width in (*CALENDAR, *CLOCK, BucketWidth(10**9, "d"), BucketWidth(10**9 - 1, "M")):
            found = boundaries(width, zone, start, start + 1, LIMIT)
            require_cover(found, start, start + 1)
            assert found[1] - found[0] >= 28 / 31 * width.ms - HOUR_MS
    gregorian = 146_097 * DAY_MS  # 400 years
    months = boundaries(BucketWidth(1, "M"), None, 0, 10**12, LIMIT)
    assert boundaries(BucketWidth(1, "M"), None, 100 * gregorian, 100 * gregorian + 10**12, LIMIT) == [
        month + 100 * gregorian for month in months
    ]


def test_zones_are_known_by_their_name_alone() -> None:
    for name in ("Europe/Berlin", "Asia/Kolkata", "Asia/Calcutta", "Etc/GMT+3", "EST5EDT", "UTC"):
        assert time_zone(name).utcoffset(datetime(2025, 1, 1, tzinfo=UTC)) is not None
    for name in (
        "",
        "europe/berlin",
        "Europe",
        "Europe/",
        "Mars/Base",
        "../zones",
        "/etc/localtime",
        "+01:00",
        "zones",
    ):
        with pytest.raises(UnknownZone):
            time_zone(name)
    assert len(zone_names()) > 500
