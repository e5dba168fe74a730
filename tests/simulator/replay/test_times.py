"""Times as files have them: their forms, those with two meanings, and hours that a zone skips or repeats."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from simulator.replay.time_evidence import TimeEvidence
from simulator.replay.times import TimeError, TimeOptions, Times
from simulator.replay.zones import Clock, Zone
from tests.simulator.replay.checked import file, kept_of, refusal, report_of, series_of


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31 12:05", "2026-01-31T12:05"),
        ("2026-1-3 7:05", "2026-01-03T07:05"),
        ("2026/01/31 12:05:06", "2026-01-31T12:05:06"),
        ("2026.01.31 12:05:06,789", "2026-01-31T12:05:06.789"),
        ("2026/01/31", "2026-01-31"),
        ("2026-01-31T12:05Z", "2026-01-31T12:05"),
        ("2026-01-31 12:05+01", "2026-01-31T11:05"),
        ("2026-01-31 12:05:06 -0930", "2026-01-31T21:35:06"),
        ("2026-01-31 12:05 UTC", "2026-01-31T12:05"),
        ("2026-01-31 24:00", "2026-02-01"),
        ("2026-12-31 24:00:00.000", "2027-01-01"),
        ("2028/02/28 24:00", "2028-02-29"),
        ("31/01/2026 12:05", "2026-01-31T12:05"),
        ("31.1.2026 7:05", "2026-01-31T07:05"),
        ("2026-01-31 12:05 AM", "2026-01-31T00:05"),
        ("2026-01-31 12:05:06 p.m.", "2026-01-31T12:05:06"),
        ("2026-01-31, 1:05pm", "2026-01-31T13:05"),
        ("Jan 31 2026", "2026-01-31"),
        ("January 31, 2026 12:05", "2026-01-31T12:05"),
        ("Jan-31-2026", "2026-01-31"),
        ("31-Jan-2026 12:05", "2026-01-31T12:05"),
        ("31 sept. 2026", None),
        ("30 sept. 2026", "2026-09-30"),
        ("20260131", "2026-01-31"),
        ("20260131T1205", "2026-01-31T12:05"),
        ("202601311205", "2026-01-31T12:05"),
        ("20260131120506", "2026-01-31T12:05:06"),
        ("2026-01-31 24:01", None),
        ("2026-01-31 25:00", None),
        ("2026-02-30", None),
        ("2026-01-31 13:05 PM", None),
        ("2026-01-31 00:05 AM", None),
        ("20261301", None),
        ("12:05", None),
        ("31/01/26", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_forms_of_time(text: str, expected: str | None) -> None:
    evidence = TimeEvidence(TimeOptions(), (), "")
    evidence.add(text, 2)
    times = evidence.times()
    if expected is None:
        with pytest.raises(TimeError):
            times.parse(text)
    else:
        assert times.parse(text).ms == at(expected)


@pytest.mark.parametrize(
    ("text", "ms", "cut"),
    [
        ("1714521600", 0, False),
        ("1714521600.25", 250, False),
        ("1714521600.0005", 0, True),
        ("1714521600123", 123, False),
        ("1714521600123456", 123, True),
        ("1714521600123000", 123, False),
        ("1714521600123456789", 123, True),
        ("946684800", at("2000-01-01") - at("2024-05-01"), False),
    ],
)
def test_numbers_are_s_ms_us_or_ns_since_1970_by_their_size(text: str, ms: int, cut: bool) -> None:
    evidence = TimeEvidence(TimeOptions(), (), "")
    evidence.add(text, 2)
    found = evidence.times().parse(text)
    assert (found.ms - at("2024-05-01"), found.cut, found.is_utc) == (ms, cut, True)


def test_times_of_two_units_are_an_error() -> None:
    evidence = TimeEvidence(TimeOptions(), (), "")
    evidence.add("1714521600", 2)
    evidence.add("1714521600000", 7)
    with pytest.raises(TimeError, match="of two units, s in line 2 and ms in line 7; --time-format says"):
        evidence.times()


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("%d/%m/%y %H:%M", "01/02/26 12:05", "2026-02-01T12:05"),
        ("%m/%d/%y", "01/02/26", "2026-01-02"),
        ("%d.%m.%Y %H.%M", "01.02.2026 12.05", "2026-02-01T12:05"),
        ("%d.%m.%Y %H:%M", "31.12.2026 24:00", "2027-01-01"),
        ("%M:%S on %Y%m%d", "24:00 on 20260131", "2026-01-31T00:24"),
        ("%H:%M:%S %d %m %Y", "10:24:00 31 1 2026", "2026-01-31T10:24"),
        ("%Y-%m-%d %H:%M:%S.%f", "2026-01-31 12:05:06.123456789", "2026-01-31T12:05:06.123"),
        ("%Y-%m-%d %H:%M %z", "2026-01-31 12:05 +0100", "2026-01-31T11:05"),
        ("s", "1769861106", "2026-01-31T12:05:06"),
        ("ms", "1769861106", "1970-01-21T11:37:41.106"),
        ("%Y-%m-%d", "2026-02-30", None),
        ("s", "2026-01-31", None),
    ],
)
def test_a_format_decides(wanted: str, text: str, expected: str | None) -> None:
    times = Times(TimeOptions(wanted))
    if expected is None:
        with pytest.raises(TimeError):
            times.parse(text)
    else:
        assert times.parse(text).ms == at(expected)


def test_a_year_takes_the_place_of_the_files_own() -> None:
    times = Times(TimeOptions(year=2023), "month")
    for text in ("12/31/1988 24:00", "1988-12-31 24:00"):
        assert times.parse(text).ms == at("2024-01-01")
    assert Times(TimeOptions("%m/%d %H:%M", year=2023)).parse("12/31 24:00").ms == at("2024-01-01")
    with pytest.raises(TimeError):
        times.parse("02/29/1988")


@pytest.mark.parametrize(
    ("dates", "header", "expected", "told"),
    [
        (["01/02/2026", "13/02/2026"], "when", "2026-02-01", "day first, as '13/02/2026' in line 3 shows"),
        (["01/02/2026", "02/13/2026"], "when", "2026-01-02", "month first, as '02/13/2026' in line 3 shows"),
        (["01.02.2026 10:00", "31.02.2026 10:00"], "when", "2026-02-01T10:00", "day first"),
        (["01-02-2026"], "when (DD-MM-YYYY)", "2026-02-01", "day first, as the name"),
        (["01/02/2026"], "Date (MM/DD/YYYY)", "2026-01-02", "month first, as the name"),
    ],
)
def test_the_whole_file_shows_whether_days_or_months_come_first(
    dates: list[str], header: str, expected: str, told: str
) -> None:
    evidence = TimeEvidence(TimeOptions(), (), header)
    for line, date in enumerate(dates, 2):
        evidence.add(date, line)
    times = evidence.times()
    assert times.parse(dates[0]).ms == at(expected)
    assert told in times.why


@pytest.mark.parametrize(
    ("wanted", "text", "expected"),
    [
        ("%d.%m.%y %H:%M", "31.12.24 24:00", "2025-01-01"),
        ("%Y-%m-%d %H", "2024-12-24 24", "2024-12-25"),
        ("%Y%m%d%H%M", "202412242400", "2024-12-25"),
        ("%d.%m.%y %H.%M", "24.12.24 23.24", "2024-12-24T23:24"),
        ("%d.%m.%y %H.%M", "24.12.24 24.24", None),
        ("%d.%m.%y %H.%M", "24.24.24 00.00", None),
    ],
)
async def test_a_format_has_24_hours_too_and_finds_the_column_of_times(
    tmp_path: Path, wanted: str, text: str, expected: str | None
) -> None:
    replay = file(tmp_path / "a.csv", "x,taken", f"1,{text}", time_format=wanted)
    if expected is None:
        assert await refusal(replay)
    else:
        assert await series_of(replay) == {"x": [(at(expected), 1)]}


@pytest.mark.parametrize("name", ["Hour", "Time (HHMM)", "hr"])
async def test_dates_beside_numbers_of_hours_are_not_taken_for_midnight(tmp_path: Path, name: str) -> None:
    lines = (f"Date,{name},x", "2026-01-01,1,5", "2026-01-01,24,6")
    path = tmp_path / "a.csv"
    error = await refusal(file(path, *lines))
    assert (
        f"column 'Date': these are dates without a time of day, which '{name}' may have: --time-column 'Date'" in error
    )
    both = file(path, time_columns=("Date", name), time_format="%Y-%m-%d %H")
    assert await series_of(both) == {"x": [(at("2026-01-01T01:00"), 5), (at("2026-01-02"), 6)]}
    assert [ts for ts, _ in (await series_of(file(path, time_columns=("Date",))))["x"]] == [at("2026-01-01")] * 2


async def test_dates_with_two_meanings_are_refused_unless_the_format_is_given(tmp_path: Path) -> None:
    lines = ("when,x", *(f"0{day}/02/2026 10:00,1" for day in range(1, 10)))
    path = tmp_path / "a.csv"
    assert (
        "a.csv: column 'when': is '01/02/2026 10:00' in line 2 day first or month first? No time of the file shows it; "
        "--time-format '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M' decides"
    ) in await refusal(file(path, *lines))
    found = await series_of(file(path, time_format="%d/%m/%Y %H:%M"))
    assert found["x"][1] == (at("2026-02-02T10:00"), 1)
    contradicting = file(path, "when,x", "13/02/2026,1", "02/13/2026,1")
    error = await refusal(contradicting)
    assert "contradict each other, first comes the day, as '13/02/2026' in line 2 shows and the month" in error


BERLIN = ("2025-10-26 01:30", "2025-10-26 02:00", "2025-10-26 02:30", "2025-10-26 02:00", "2025-10-26 02:30")


def rows(times: tuple[str, ...]) -> list[str]:
    return ["when,x", *(f"{time},{number}" for number, time in enumerate(times))]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("earlier", ["23:30", "00:00", "00:30", "00:00", "00:30"]),
        ("later", ["23:30", "01:00", "01:30", "01:00", "01:30"]),
        ("order", ["23:30", "00:00", "00:30", "01:00", "01:30"]),
    ],
)
async def test_an_hour_that_occurs_twice_has_the_meaning_that_is_asked_for(
    tmp_path: Path, rule: Any, expected: list[str]
) -> None:
    replay = file(tmp_path / "a.csv", *rows(BERLIN), zone="Europe/Berlin", repeated=rule)
    found = await series_of(replay)
    assert [datetime.fromtimestamp(ts / 1000, UTC).strftime("%H:%M") for ts, _ in found["x"]] == expected
    assert "in Europe/Berlin unless they say otherwise" in await report_of(replay)


async def test_an_hour_that_occurs_twice_is_refused_without_a_rule(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    error = await refusal(file(path, *rows(BERLIN), zone="Europe/Berlin"))
    assert "line 3, column 'when': '2025-10-26 02:00': the clocks of Europe/Berlin show this time twice" in error
    assert "--repeated-hour earlier, later, or order (rows in the order of time) decides" in error
    once = await refusal(file(path, *rows(BERLIN[:3]), zone="Europe/Berlin", repeated="order"))
    assert "line 3" in once
    assert "its rows pass through this hour only once: --repeated-hour earlier or later decides" in once
    checked, refused = await kept_of(file(path, *rows(BERLIN), zone="Europe/Berlin"))
    assert (checked.readings, [error.line for error in refused]) == (1, [3, 4, 5, 6])
    assert (await series_of(file(path, *rows(BERLIN), zone="+01:00")))["x"][1][0] == at("2025-10-26T01:00")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # Several rows have one time: the hour is passed again where the clock goes back, not where it stands.
        (
            ("02:00", "02:00", "02:30", "02:30", "02:00", "02:30"),
            ["00:00", "00:00", "00:30", "00:30", "01:00", "01:30"],
        ),
        (("01:00", "02:00", "02:00", "03:00"), ["23:00", "00:00", "01:00", "02:00"]),
        (("01:59", "02:30", "02:31", "02:05"), ["23:59", "00:30", "00:31", "01:05"]),
    ],
)
async def test_with_order_the_second_pass_begins_where_the_clock_goes_back(
    tmp_path: Path, times: tuple[str, ...], expected: list[str]
) -> None:
    lines = rows(tuple(f"2025-10-26 {time}" for time in times))
    found = await series_of(file(tmp_path / "a.csv", *lines, zone="Europe/Berlin", repeated="order"))
    assert [datetime.fromtimestamp(ts / 1000, UTC).strftime("%H:%M") for ts, _ in found["x"]] == expected


@pytest.mark.parametrize(
    "times",
    [
        ("03:00", "02:45", "02:30", "02:45", "02:30", "01:45"),  # newest first
        ("03:00", "02:00", "02:00", "01:00"),
        ("02:00", "02:00", "01:00"),
        ("02:00", "02:00", "02:30", "02:30", "03:00"),  # two rows of each time, and one pass
        ("02:00", "02:30", "02:00", "02:30", "02:00", "02:30"),
    ],
)
async def test_an_order_that_does_not_show_the_second_pass_is_refused(tmp_path: Path, times: tuple[str, ...]) -> None:
    lines = rows(tuple(f"2025-10-26 {time}" for time in times))
    error = await refusal(file(tmp_path / "a.csv", *lines, zone="Europe/Berlin", repeated="order"))
    assert "in no order that shows it (newest first, or more than one row does not advance)" in error


async def test_a_row_without_a_value_may_begin_the_second_pass(tmp_path: Path) -> None:
    times = ("02:00", "02:15", "02:00", "02:30")
    lines = ["when,x", *(f"2025-10-26 {time},{x}" for time, x in zip(times, (1, 2, "", 4), strict=True))]
    found = await series_of(file(tmp_path / "a.csv", *lines, zone="Europe/Berlin", repeated="order"))
    assert found["x"][-1] == (at("2025-10-26T01:30"), 4)


async def test_an_hour_that_is_repeated_around_midnight_is_one_hour(tmp_path: Path) -> None:
    """Until 2011 the clocks of St. John's were set back at 00:01."""
    times = ("29 23:00", "29 23:30", "30 00:00", "29 23:30", "30 00:00", "30 00:30")
    lines = rows(tuple(f"2005-10-{time}" for time in times))
    found = await series_of(file(tmp_path / "a.csv", *lines, zone="America/St_Johns", repeated="order"))
    halves = [(ts - at("2005-10-30T01:30")) // 1_800_000 for ts, _ in found["x"]]
    assert halves == [0, 1, 2, 3, 4, 5]


async def test_the_order_is_that_of_each_series(tmp_path: Path) -> None:
    lines = [f"2025-10-26 02:{minute:02},{kind},1" for minute in (0, 30, 0, 30) for kind in ("a", "b")]
    replay = file(
        tmp_path / "a.csv", "when,kind,value", *lines, zone="Europe/Berlin", repeated="order", sensor_type_column="kind"
    )
    found = await series_of(replay)
    hours = [at("2025-10-26T00:00") + half * 1_800_000 for half in range(4)]
    assert {kind: [ts for ts, _ in readings] for kind, readings in found.items()} == {"a": hours, "b": hours}


async def test_a_time_that_clocks_skip_is_refused_without_a_rule(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = rows(("2025-03-30 01:30", "2025-03-30 02:30", "2025-03-30 03:30"))
    error = await refusal(file(path, *lines, zone="Europe/Berlin"))
    assert "line 3, column 'when': '2025-03-30 02:30': the clocks of Europe/Berlin skip this time" in error
    found = await series_of(file(path, *lines, zone="Europe/Berlin", skipped="forward"))
    assert [ts - at("2025-03-30") for ts, _ in found["x"]] == [1_800_000, 5_400_000, 5_400_000]


async def test_a_zone_is_for_times_without_one(tmp_path: Path) -> None:
    lines = rows(("2025-07-01 12:00", "2025-07-01 12:00Z", "2025-07-01 12:00+09:00", "1751371200"))
    found = await series_of(file(tmp_path / "a.csv", *lines, zone="Europe/Berlin"))
    hours = [(ts - at("2025-07-01")) // 3_600_000 for ts, _ in found["x"]]
    assert hours == [10, 12, 3, 12]


@pytest.mark.parametrize(
    ("name", "ms"),
    [("UTC", 0), ("+01:00", -3_600_000), ("-0930", 34_200_000), ("UTC-9", 32_400_000), ("gmt+2", -7_200_000)],
)
def test_zones_may_be_offsets(name: str, ms: int) -> None:
    assert Clock(Zone(name)).utc_ms(0, "") == ms
