"""Files as others publish them: of weather stations, and the data sets of packages for analyses."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulator.replay.readings import check_replay, replay_rows
from testing.wheels import file_of
from tests.simulator.replay.checked import (
    file,
    kept_of,
    refusal,
    report_of,
    report_on,
    series_in,
    series_of,
    unchecked_series,
)

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def published(package: str, name: str, **options: Any) -> Any:
    return file(file_of(REQUIREMENTS, package, name), **options)


async def test_a_typical_year_with_a_station_above_the_names_two_columns_of_time_and_24_00() -> None:
    columns = ("GHI (W/m^2)", "Dry-bulb (C)=temperature")
    checked = await check_replay(published("pvlib", "703165TY.csv", zone="-09:00", year=2023, value_columns=columns))
    report = report_on(checked)
    assert "header in line 2" in report
    assert "times from 'Date (MM/DD/YYYY) + Time (HH:MM)', month first, as the name" in report
    assert "GHI from 'GHI (W/m^2)', numbers in W/m^2" in report
    found = series_in(checked)
    assert found.keys() == {"GHI", "temperature"}
    assert found["temperature"][0] == (at("2023-01-01T10:00"), 4.0)
    assert found["temperature"][-1] == (at("2024-01-01T09:00"), -6.0)  # 12/31 24:00, nine hours behind
    times = [ts for ts, _ in found["GHI"]]
    assert times == list(range(at("2023-01-01T10:00"), at("2024-01-01T10:00"), 3_600_000))


async def test_a_typical_year_takes_its_columns_of_numbers_in_a_dry_run_of_its_first_days(tmp_path: Path) -> None:
    """All 68 columns, without the marks of their sources, which are letters."""
    lines = file_of(REQUIREMENTS, "pvlib", "723170TYA.CSV").read_text().splitlines()[:50]
    checked = await check_replay(file(tmp_path / "a.csv", *lines, zone="-05:00", year=2023))
    report = report_on(checked)
    assert "Dry-bulb from 'Dry-bulb (C)', numbers in C" in report
    assert "'Dry-bulb source' (texts)" in report
    assert checked.rows.complete == 48


async def test_hourly_temperatures_in_local_time_without_seconds_and_with_slashes() -> None:
    found = unchecked_series(published("vega_datasets", "seattle-temps.csv"))
    assert found["temp"][:2] == [(at("2010-01-01"), 39.4), (at("2010-01-01T01:00"), 39.2)]
    assert len(found["temp"]) == 8759
    seconds_last = unchecked_series(published("vega_datasets", "sf-temps.csv"))
    assert seconds_last["temp"][-1] == (at("2010-12-31T23:00"), 48.3)
    # Its hour 02:00 of 2010-03-14 never was in its zone: the file skips 03:00 instead.
    error = await refusal(published("vega_datasets", "sf-temps.csv", zone="America/Los_Angeles"))
    assert "line 1732, column 'date': '2010/03/14 02:00:00': the clocks of America/Los_Angeles skip this time" in error


async def test_wide_and_long_tables_of_vega() -> None:
    weather = await check_replay(published("vega_datasets", "seattle-weather.csv"))
    found = series_in(weather)
    assert {name: len(readings) for name, readings in found.items()} == dict.fromkeys(
        ("precipitation", "temp_max", "temp_min", "wind"), 1461
    )
    assert "not taken: 'weather' (texts)" in report_on(weather)
    stocks = unchecked_series(published("vega_datasets", "stocks.csv", sensor_type_column="symbol"))
    assert stocks["MSFT"][0] == (at("2000-01-01"), 39.81)
    assert sum(map(len, stocks.values())) == 560
    power = unchecked_series(published("vega_datasets", "iowa-electricity.csv", sensor_type_column="source"))
    assert power["Fossil_Fuels"][0] == (at("2001-01-01"), 35361)


def test_load_profiles_and_a_test_reference_year_of_demandlib() -> None:
    profiles = unchecked_series(published("demandlib", "selp_series.csv", value_columns=("h0", "g0")))
    assert profiles["h0"][0] == (at("2007-01-01"), 0.08636)
    assert [len(readings) for readings in profiles.values()] == [2016, 2016]
    reference = published(
        "demandlib", "TRY2010_01_Jahr.dat", encoding="latin-1", year=2023, zone="+01:00", value_columns=("t", "p")
    )
    found = unchecked_series(reference)
    assert found["t"][0] == (at("2023-01-01"), -0.2)
    assert found["p"][-1] == (at("2023-12-31T23:00"), 1026.2)
    assert len(found["t"]) == 8760


async def test_data_sets_of_statsmodels_keep_what_a_reading_can_be() -> None:
    checked, refused = await kept_of(published("statsmodels", "datasets/co2/co2.csv"))
    counts = checked.rows
    assert (counts.rows, counts.complete, counts.empty, counts.refused) == (2284, 105, 59, 2120)
    assert series_in(checked)["co2"][0] == (at("2000-01-01"), 368.6)
    assert refused[0].reason.startswith("1958-03-29T00:00:00.000Z: ts must lie between 2000-01-01")
    equipment, _ = await kept_of(published("statsmodels", "elec_equip.csv", sensor_type="index"))
    assert series_in(equipment)["index"][0][0] == at("2000-01-01")
    quarters, _ = await kept_of(
        published(
            "statsmodels", "macrodata/macrodata.csv", time_columns=("year",), time_format="%Y", value_columns=("cpi",)
        )
    )
    assert [ts for ts, _ in series_in(quarters)["cpi"]][:5] == [at("2000-01-01")] * 4 + [at("2001-01-01")]


EPW = [
    "LOCATION,Somewhere,-,DEU,TMY,123456,52.50,13.40,1.0,40.0",
    "DESIGN CONDITIONS,0",
    "TYPICAL/EXTREME PERIODS,0",
    "GROUND TEMPERATURES,0",
    "HOLIDAYS/DAYLIGHT SAVINGS,No,0,0,0",
    "COMMENTS 1,made for a test",
    "COMMENTS 2,",
    "DATA PERIODS,1,1,Data,Sunday, 1/ 1,12/31",
]
EPW_ROW = (
    "{time},?9?9?9,{dry},2.0,93,101300,0,1415,300,0,0,0,0,0,0,0,250,{wind},9,8,20.0,77777,9,999999999,12,0.0710,0,88,"
    "0.000,0.0,0.0"
)


async def test_epw_has_its_own_names_zone_and_marks_of_missing_values(tmp_path: Path) -> None:
    rows = [("2021,1,1,1,60", 3.1, 999), ("2021,1,1,2,60", 99.9, 4.1), ("2021,12,31,24,60", -0.5, 4.2)]
    lines = [EPW_ROW.format(time=time, dry=dry, wind=wind) for time, dry, wind in rows]
    replay = file(tmp_path / "a.epw", *EPW, *lines)
    found = await series_of(replay)
    assert found["Dry_Bulb_Temperature"] == [(at("2021-01-01"), 3.1), (at("2021-12-31T23:00"), -0.5)]
    assert found["Wind_Speed"] == [(at("2021-01-01T01:00"), 4.1), (at("2021-12-31T23:00"), 4.2)]
    assert len(found) == 27
    units = {row.reading.sensor_type: row.reading.unit for row in replay_rows(replay, "")}
    assert (units["Dry_Bulb_Temperature"], units["Atmospheric_Station_Pressure"]) == ("C", "Pa")
    assert "an EPW file: hours end at the time given" in await report_of(replay)
    wanted = file(replay.path, value_columns=("Wind Speed=wind",), zone="UTC", year=2022)
    assert (await series_of(wanted))["wind"] == [(at("2022-01-01T02:00"), 4.1), (at("2023-01-01"), 4.2)]


async def test_epw_of_quarters_of_hours_and_of_minute_0(tmp_path: Path) -> None:
    times = ["2021,1,1,1,15", "2021,1,1,1,30", "2021,1,1,1,60", "2021,1,1,2,0"]
    lines = [EPW_ROW.format(time=time, dry=number, wind=1) for number, time in enumerate(times)]
    found = await series_of(file(tmp_path / "a.epw", *EPW, *lines, zone="UTC"))
    minutes = [(ts - at("2021-01-01")) // 60_000 for ts, _ in found["Dry_Bulb_Temperature"]]
    assert minutes == [15, 30, 60, 120]


BUOY = """\
#YY  MM DD hh mm WDIR WSPD GST  WVHT   DPD   APD MWD   PRES  ATMP  WTMP  DEWP  VIS PTDY  TIDE
#yr  mo dy hr mn degT m/s  m/s     m   sec   sec degT   hPa  degC  degC  degC  nmi  hPa    ft
2024 05 01 00 50 190  5.0  6.0   1.2     8   5.6 170 1014.2  14.1  13.2  11.0   MM   MM    MM
2024 05 01 00 40 200  5.1  6.2    MM    MM    MM  MM 1014.3    MM    MM  11.1   MM +0.3    MM"""


async def test_the_text_of_a_buoy_has_its_time_in_five_columns_units_and_mm_for_missing(tmp_path: Path) -> None:
    replay = file(tmp_path / "46000.txt", *BUOY.splitlines())
    found = await series_of(replay)
    assert found["WVHT"] == [(at("2024-05-01T00:50"), 1.2)]
    assert found["WSPD"] == [(at("2024-05-01T00:50"), 5.0), (at("2024-05-01T00:40"), 5.1)]
    assert found["PTDY"] == [(at("2024-05-01T00:40"), 0.3)]
    report = await report_of(replay)
    assert "header in line 1, units in line 2, a buoy's text: MM is missing" in report
    assert "WVHT from 'WVHT', numbers in m\n" in report
    assert "not taken: 'VIS' (no values), 'TIDE' (no values)" in report
