"""Hours in which a rule applies."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from alarms.rules.schedule import DAYS, Day, Schedule, minute_of
from runtime.time_zones import UnknownZone

WORKDAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri")


def schedule(begin: str, end: str, days: tuple[Day, ...] = DAYS, zone: str = "Europe/Berlin") -> Schedule:
    return Schedule.of(zone, days, minute_of(begin), minute_of(end))


def at(local: str, zone: str = "Europe/Berlin", fold: int = 0) -> int:
    return round(datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    ("local", "within"),
    [
        ("2026-11-27T07:59:59.999", False),
        ("2026-11-27T08:00", True),
        ("2026-11-27T17:59:59.999", True),
        ("2026-11-27T18:00", False),
        ("2026-11-28T12:00", False),  # a Saturday
    ],
)
def test_the_beginning_is_within_and_the_end_is_not(local: str, within: bool) -> None:
    assert schedule("08:00", "18:00", WORKDAYS).covers(at(local)) is within


def test_the_hours_are_those_of_the_zone() -> None:
    noon = at("2026-11-27T12:00")
    assert not schedule("12:00", "13:00", zone="America/New_York").covers(noon)
    assert schedule("06:00", "07:00", zone="America/New_York").covers(noon)
    assert schedule("16:45", "16:46", zone="Asia/Kathmandu").covers(noon), "zones with odd minutes"
    # In Auckland, it is Saturday already.
    assert schedule("00:00", "24:00", ("sat",), "Pacific/Auckland").covers(noon)


@pytest.mark.parametrize(
    ("local", "within"),
    [
        ("2026-11-27T21:59", False),
        ("2026-11-27T22:00", True),
        ("2026-11-28T05:59", True),  # Saturday morning belongs to Friday
        ("2026-11-28T06:00", False),
        ("2026-11-28T23:00", False),
        ("2026-11-30T03:00", False),  # Monday morning would belong to Sunday
        ("2026-11-30T22:00", True),
    ],
)
def test_hours_past_midnight_belong_to_the_day_on_which_they_begin(local: str, within: bool) -> None:
    assert schedule("22:00", "06:00", WORKDAYS).covers(at(local)) is within


def test_24_00_is_the_end_of_a_day() -> None:
    late, whole = schedule("20:00", "24:00", ("fri",)), schedule("00:00", "24:00", ("fri",))
    for local, expected in (("2026-11-27T23:59:59.999", True), ("2026-11-28T00:00", False)):
        assert (late.covers(at(local)), whole.covers(at(local))) == (expected, expected)
    assert whole.covers(at("2026-11-27T00:00"))
    assert not late.covers(at("2026-11-27T19:59"))


def test_equal_ends_are_a_whole_day_from_there() -> None:
    it = schedule("08:00", "08:00", ("fri",))
    times = ("2026-11-27T07:59", "2026-11-27T08:00", "2026-11-28T07:59", "2026-11-28T08:00")
    assert [it.covers(at(local)) for local in times] == [False, True, True, False]


def test_a_night_is_longer_or_shorter_when_clocks_are_changed() -> None:
    night = schedule("01:00", "04:00", ("sun",))
    # Forward at 2:00 on 2026-03-29, back at 3:00 on 2026-10-25.
    for begin, hours in (("2026-03-29T00:00", 2), ("2026-10-25T00:00", 4)):
        minutes = [at(begin) + minute * 60_000 for minute in range(12 * 60)]
        assert sum(map(night.covers, minutes)) == hours * 60
    repeated = schedule("02:00", "02:30", ("sun",))
    assert all(repeated.covers(at("2026-10-25T02:15", fold=fold)) for fold in (0, 1))
    skipped = [at("2026-03-29T00:00") + minute * 60_000 for minute in range(12 * 60)]
    assert not any(map(repeated.covers, skipped)), "there is no 2:15 on that day"


@pytest.mark.parametrize("text", ["", "8:00", "08:0", "08-00", "08:60", "24:01", "25:00", "08:00:00", "-1:00", "٠٨:٠٠"])
def test_another_form_is_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time|there is no"):
        minute_of(text)


def test_a_zone_that_there_is_not() -> None:
    with pytest.raises(UnknownZone):
        schedule("08:00", "18:00", zone="Europe/Atlantis")


@pytest.mark.parametrize(
    ("local", "first"),
    [
        ("2026-11-27T12:00", "2026-11-27T12:00"),
        ("2026-11-27T05:00", "2026-11-27T08:00"),
        ("2026-11-27T18:00", "2026-11-30T08:00"),  # over the weekend
        ("2026-11-28T12:00", "2026-11-30T08:00"),
    ],
)
def test_the_first_time_within_is_the_beginning_of_the_next_hours(local: str, first: str) -> None:
    assert schedule("08:00", "18:00", WORKDAYS).first_covered(at(local)) == at(first)


def test_the_next_hours_are_found_past_midnight_at_its_end_and_where_clocks_leave_them_out() -> None:
    assert schedule("22:00", "06:00", ("fri",)).first_covered(at("2026-11-28T07:00")) == at("2026-12-04T22:00")
    assert schedule("24:00", "06:00", ("fri",)).first_covered(at("2026-11-27T12:00")) == at("2026-11-28T00:00")
    # On 2026-03-29, there is no time between 02:00 and 03:00.
    assert schedule("02:00", "02:30", ("sun",)).first_covered(at("2026-03-28T12:00")) == at("2026-04-05T02:00")
