"""Tables as they are found in the field: what is found in them, what it is told, and what is refused."""

import gzip
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from simulator.replay.readings import replay_rows
from tests.simulator.replay.checked import DEVICE, file, kept_of, refusal, report_of, report_on, series_in, series_of

T0 = round(datetime(2026, 1, 31, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


async def test_a_logger_with_a_preamble_two_columns_of_time_units_and_decimal_commas(tmp_path: Path) -> None:
    lines = [
        "sep=;",
        "Messstelle: Halle 3;;",
        "",
        "Datum;Uhrzeit;Druck [bar];Temp. (\u00b0C);Zustand;",
        "31.01.2026;23:45;1,5;20,25;an;",
        "31.01.2026;24:00;1;-0,5;aus;",
        "01.02.2026;00:15;;1,25e1;an;",
    ]
    replay = file(tmp_path / "a.csv", *lines)
    assert await series_of(replay) == {
        "Druck": [(T0 + 23 * HOUR + 45 * 60_000, 1.5), (T0 + 24 * HOUR, 1)],
        "Temp": [(T0 + 23 * HOUR + 45 * 60_000, 20.25), (T0 + 24 * HOUR, -0.5), (T0 + 24 * HOUR + 15 * 60_000, 12.5)],
    }
    assert (await report_of(replay)).splitlines() == [
        "semicolon-separated, decimal comma, header in line 4",
        "times from 'Datum + Uhrzeit', day first, as '31.01.2026 23:45' in line 5 shows, in UTC unless they say "
        "otherwise",
        "Druck from 'Druck [bar]', numbers in bar",
        "Temp from 'Temp. (\u00b0C)', numbers in \u00b0C",
        "not taken: 'Zustand' (texts); --value-column takes a column",
    ]
    units = {row.reading.sensor_type: row.reading.unit for row in replay_rows(replay, "")}
    assert units == {"Druck": "bar", "Temp": "\u00b0C"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
async def test_delimiters_are_found(tmp_path: Path, delimiter: str) -> None:
    rows = [["when", "a", "b"], ["2026-01-31T00:00", "1.5", "x"], ["2026-01-31T01:00", "2", "y"]]
    replay = file(tmp_path / "a.csv", *(delimiter.join(row) for row in rows))
    assert await series_of(replay) == {"a": [(T0, 1.5), (T0 + HOUR, 2)]}


async def test_options_take_the_place_of_what_would_be_found(tmp_path: Path) -> None:
    lines = ["a;b;c", "2026-01-31 00:00;1,5;2026-01-31 01:00", "x;y;z", "2026-01-31 02:00;2,5;2026-01-31 03:00"]
    path = tmp_path / "a.csv"
    assert "'a', 'c' are times: --time-column says which" in await refusal(file(path, *lines, skip_rows=0))
    chosen = file(path, skip_rows=2, time_columns=("z",), delimiter=";", decimal=",")
    assert await series_of(chosen) == {"y": [(T0 + 3 * HOUR, 2.5)]}
    assert "'2,5' is not a number such as 1234.5" in await refusal(
        file(path, skip_rows=2, time_columns=("z",), decimal=".")
    )
    renamed = file(path, skip_rows=2, time_columns=("#1",), value_columns=("y=level",))
    renamed_series = await series_of(renamed)
    assert renamed_series == {"level": [(T0 + 2 * HOUR, 2.5)]}


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [(["1,5", "20"], "comma"), (["0,125"], "comma"), (["1,234", "5,678"], "point"), (["1,5", "2.5"], "point")],
)
async def test_a_comma_is_the_decimal_sign_only_where_it_cannot_be_a_thousand(
    tmp_path: Path, cells: list[str], decimal: str
) -> None:
    replay = file(tmp_path / "a.csv", "when;x", *(f"2026-01-31 00:00;{cell}" for cell in cells))
    if decimal == "comma":
        assert f"decimal {decimal}" in await report_of(replay)
    else:
        assert "--decimal says which sign is the decimal" in await refusal(replay)


async def test_several_columns_of_values_are_sensor_types_and_may_be_chosen_and_named(tmp_path: Path) -> None:
    lines = ["time,Room temp (C),CO2 [ppm],on,note", "2026-01-31 00:00,20,400,true,a", "2026-01-31 01:00,21,,false,b"]
    path = tmp_path / "a.csv"
    found = await series_of(file(path, *lines))
    assert found == {
        "Room_temp": [(T0, 20), (T0 + HOUR, 21)],
        "CO2": [(T0, 400)],
        "on": [(T0, True), (T0 + HOUR, False)],
    }
    chosen = file(path, value_columns=("note", "CO2 [ppm]=co2"), units={"co2": "ppm(v)"})
    assert await series_of(chosen) == {"note": [(T0, "a"), (T0 + HOUR, "b")], "co2": [(T0, 400)]}
    assert {row.reading.unit for row in replay_rows(chosen, "") if row.reading.sensor_type == "co2"} == {"ppm(v)"}


async def test_long_tables_have_the_sensor_type_in_a_column_whose_texts_are_spelled_as_types(tmp_path: Path) -> None:
    lines = ["at,what,value", "2026-01-31,Solar power,1", "2026-01-31,wind,2"]
    replay = file(tmp_path / "a.csv", *lines, sensor_type_column="what")
    assert await series_of(replay) == {"Solar_power": [(T0, 1)], "wind": [(T0, 2)]}
    assert "sensor types as Solar_power for 'Solar power'" in await report_of(replay)
    without = file(tmp_path / "c.csv", *lines, sensor_type="x")
    assert await series_of(without) == {"x": [(T0, 1), (T0, 2)]}
    assert "not taken: 'what'; --value-column takes a column" in await report_of(without)
    same = file(tmp_path / "b.csv", *lines, "2026-01-31,Solar_power,2", sensor_type_column="what")
    assert "'Solar power' and 'Solar_power' are both written 'Solar_power'" in await refusal(same)


async def test_columns_of_the_same_name_or_type_have_to_be_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert "the columns 'x (m)' and 'x (s)' are both 'x'" in await refusal(
        file(path, "t,x (m),x (s)", "2026-01-31,1,2")
    )
    twice = file(path, "t,x,x", "2026-01-31,1,2", value_columns=("x",))
    assert "several columns have this name: say #2 and #3" in await refusal(twice)
    assert await series_of(file(path, value_columns=("#2", "#3=y"))) == {"x": [(T0, 1)], "y": [(T0, 2)]}


async def test_a_table_without_a_header_has_numbers_for_names(tmp_path: Path) -> None:
    replay = file(tmp_path / "a.csv", "2026-01-31 00:00,5", "2026-01-31 01:00,6")
    assert await series_of(replay) == {"column_2": [(T0, 5), (T0 + HOUR, 6)]}
    assert "no header" in await report_of(replay)


async def test_parts_of_times_in_columns_of_their_own(tmp_path: Path) -> None:
    lines = ["Year Month Day Hour level", "2026 1 31 1 7", "2026 1 31 24 8"]
    replay = file(tmp_path / "a.txt", *lines)
    assert await series_of(replay) == {"level": [(T0 + HOUR, 7), (T0 + 24 * HOUR, 8)]}
    without = file(tmp_path / "b.txt", "MM DD HH mm level", "*** ***", "1 31 1 30 7", year=2026)
    assert await series_of(without) == {"level": [(T0 + HOUR + 1_800_000, 7)]}


@pytest.mark.parametrize(
    ("lines", "options", "reason"),
    [
        (["a,b", "x,1"], {}, "no column of times was found; the file has a, b; --time-column names it"),
        (["t,a", "2026-01-31,x"], {"skip_rows": 9}, "line 10: there is no header"),
        (["t,a,b", "2026-01-31,x,y"], {}, "no column has numbers: 'a', 'b' have texts; --value-column names those"),
        (["t,value", "2026-01-31,1"], {}, "its rows name no sensor type: --sensor-type, or --sensor-type-column, does"),
        (["t,a", "2026-01-31,1,5"], {}, "line 2: the row has 3 fields, and only 2 have names"),
        (["t,a,b", "2026-01-31,1,2", "2026-01-31,1"], {}, "line 3, column 'b': the row has only 2 fields of 3"),
        (["t,a", "2026-01-31,1", "2026-01-31,MM"], {}, "line 3, column 'a': 'MM' is not a number"),
        (["t,a", "1969-01-31,1"], {}, "line 2, column 't': 1969-01-31T00:00:00.000Z: ts must lie between 2000-01-01"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_remedy(
    tmp_path: Path, lines: list[str], options: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(file(tmp_path / "a.csv", *lines, **options))


async def test_marks_of_missing_values_are_told_and_skipped_if_that_is_asked_for(tmp_path: Path) -> None:
    lines = ["t,a,b", "2026-01-31 00:00,NA,1", "2026-01-31 01:00,2,-9999", "2026-01-31 02:00,NA,-9999"]
    path = tmp_path / "a.csv"
    _, refused = await kept_of(file(path, *lines))
    assert [(error.line, error.column) for error in refused] == [(2, "a"), (4, "a")]
    skipped = file(path, missing=("NA", "-9999"))
    assert await series_of(skipped) == {"b": [(T0, 1)], "a": [(T0 + HOUR, 2)]}


async def test_keeping_going_accounts_for_every_row(tmp_path: Path) -> None:
    lines = [
        "t,a,b",
        "2026-01-31 00:00,1,2",
        "2026-01-31 01:00,,",
        "never,3,4",
        "2026-01-31 03:00,x,5",
        "",
        "2026-01-31 04:00,6",
        "2026-01-31 05:00,y,z",
        '2026-01-31 06:00,"7"8,9',
        "2026-01-31 07:00,10,11",
        "1999-12-31,12,13",
    ]
    replay = file(tmp_path / "a.csv", *lines)
    checked, refused = await kept_of(replay)
    counts = checked.rows
    assert (counts.rows, counts.complete, counts.partial, counts.empty, counts.refused) == (9, 2, 1, 1, 5)
    assert [(error.line, error.column) for error in refused] == [
        (4, "t"),
        (5, "a"),
        (7, "b"),
        (8, "a"),
        (8, "b"),
        (9, ""),
        (11, "t"),
    ]
    assert series_in(checked) == {
        "a": [(T0, 1), (T0 + 7 * HOUR, 10)],
        "b": [(T0, 2), (T0 + 3 * HOUR, 5), (T0 + 7 * HOUR, 11)],
    }
    assert str(refused[0]) == await refusal(replay)


async def test_lines_within_a_quote_that_does_not_end_are_one_row_that_is_refused(tmp_path: Path) -> None:
    replay = file(tmp_path / "a.csv", "t,a", "2026-01-31,1", '2026-01-31,"2', "2026-01-31,3", "2026-01-31,4")
    checked, refused = await kept_of(replay)
    assert (checked.rows.rows, checked.readings) == (2, 1)
    assert "line 3: the row to line 5 cannot be read: unexpected end of data" in str(refused[0])


async def test_a_row_that_is_mended_changes_the_identity_of_no_other(tmp_path: Path) -> None:
    def identities(value: str) -> list[tuple[int, int]]:
        replay = file(tmp_path / "a.csv", "t,a", *(f"2026-01-31,{cell}" for cell in ("1", value, "3")))
        rows = replay_rows(replay, "", keep_going=True)
        return [(row.reading.ts, row.reading.seq) for row in rows]

    assert identities("2") == [(T0, 0), (T0, 1), (T0, 2)]
    assert identities("?!") == [(T0, 0), (T0, 2)]


async def test_rows_keep_their_identities_though_others_above_are_mended_or_new(tmp_path: Path) -> None:
    def identities(*times: str) -> dict[int, tuple[int, int]]:
        """Of the readings that can be read, by value."""
        rows = replay_rows(file(tmp_path / "a.csv", "t,a", *times), "", keep_going=True)
        return {int(row.reading.value): (row.reading.ts, row.reading.seq) for row in rows}

    steps_back = ("2026-01-31 01:00,1", "2026-01-31 02:00,2", "2026-01-31 01:00,4", "2026-01-31 01:00,5")
    without = identities(*steps_back[:2], "never,3", *steps_back[2:])
    short = identities(*steps_back[:2], "2026-01-31", *steps_back[2:])
    mended = identities(*steps_back[:2], "2026-01-31 03:00,3", *steps_back[2:])
    assert without == short == {value: identity for value, identity in mended.items() if value != 3}
    newest_first = ("2026-01-31 02:00,2", "2026-01-31 01:00,1", "2026-01-31 01:00,0")
    with_newer = identities("2026-01-31 04:00,4", "2026-01-31 03:00,3", *newest_first)
    assert identities(*newest_first).items() <= with_newer.items()
    assert [seq for _, seq in with_newer.values()] == [0, 0, 0, 0, 1]


async def test_options_without_an_effect_are_refused(tmp_path: Path) -> None:
    wide = ("t,a,b", "2026-01-31,1,2")
    path = tmp_path / "a.csv"
    for options in ({"sensor_type": "x"}, {"sensor_type_column": "kind"}):
        lines = ("t,kind,a,b", "2026-01-31,k,1,2")
        assert "is for one column of values, and there are 'a', 'b'" in await refusal(file(path, *lines, **options))
    one = file(path, "t,a,note", "2026-01-31,1,on", sensor_type="x")
    assert (await series_of(one)).keys() == {"x"}
    assert "x from 'a', numbers" in await report_of(one)
    assert "--unit c=\u2026 is for a sensor type that the file has not; it has a, b" in await refusal(
        file(path, *wide, units={"a": "bar", "c": "C"})
    )
    long = file(path, "t,kind,v", "2026-01-31,k,1", sensor_type_column="kind", units={"l": "C"})
    assert "it has k" in await refusal(long)
    named = replace(long, units={"k": "C"})
    assert [row.reading.unit for row in replay_rows(named, "")] == ["C"]


async def test_a_missing_number_is_left_out_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = ("t,a", "2026-01-31,-999.0", "2026-02-01,-999", "2026-02-02,-9.99e2", "2026-02-03,-99", "2026-02-04,2.5")
    found = await series_of(file(path, *lines, missing=("-999",)))
    assert [value for _, value in found["a"]] == [-99, 2.5]
    comma = file(path, "t;a", "2026-01-31;-999,0", "2026-02-01;2,5", missing=("-999",))
    assert [value for _, value in (await series_of(comma))["a"]] == [2.5]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("sep=;", "t;a", "2026-01-31;1,5"), "semicolon-separated, decimal comma, header in line 2"),
        (("Station,Hall 3", "t,a", "2026-01-31,1.5"), "header in line 2"),
        (("Station,Hall 3", "Serial,12345", "Zeit,a", "2026-01-31,1.5"), "header in line 3"),
        (("# unit: C, bar", "x,a", "2026-01-31,1.5"), "header in line 2"),
        (("t,a", "s,bar", "2026-01-31,1.5"), "header in line 1, units in line 2"),
        (("x,a", "2026-01-31,1.5,", "2026-02-01,1.5,"), "header in line 1"),
        (("x,a,", "2026-01-31,1.5", "2026-02-01,1.5"), "header in line 1"),
        (("t,a", "2026-01-31,1.5", "# moved", "2026-02-01,1.5"), "header in line 1"),
    ],
)
async def test_the_names_are_told_from_what_stands_above_and_below(
    tmp_path: Path, lines: tuple[str, ...], told: str
) -> None:
    checked, _ = await kept_of(file(tmp_path / "a.csv", *lines))
    assert told in report_on(checked).splitlines()[0]
    assert series_in(checked)["a"][0] == (T0, 1.5)


async def test_lines_are_skipped_however_many_and_whether_or_not_names_follow(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    above = [f"2026-01-30,{number}" for number in range(300)]
    assert await series_of(file(path, *above, "t,a", "2026-01-31,1", skip_rows=300)) == {"a": [(T0, 1)]}
    unnamed = file(path, "x,y", "2026-01-31,1", skip_rows=1)
    assert await series_of(unnamed) == {"column_2": [(T0, 1)]}
    assert "no header, lines above line 2 left out" in await report_of(unnamed)
    assert "the file has no row below its names, t, a" in await refusal(file(path, "t,a"))


async def test_files_may_be_gzipped_and_in_other_encodings(tmp_path: Path) -> None:
    plain = file(tmp_path / "a.csv", "t;H\u00f6he [\u00b5m]", "2026-01-31;1,5", written_as="cp1252")
    assert "after line 1: the file is not UTF-8; --encoding cp1252" in await refusal(plain)
    assert await series_of(file(plain.path, encoding="cp1252")) == {"Hohe": [(T0, 1.5)]}
    for encoding in ("utf-8-sig", "utf-16"):
        name = encoding.removesuffix("-sig")
        packed = tmp_path / "a.csv.gz"
        packed.write_bytes(gzip.compress("t;H\u00f6he [\u00b5m]\n2026-01-31;1,5\n".encode(encoding)))
        assert await series_of(file(packed, encoding=name)) == {"Hohe": [(T0, 1.5)]}
    assert "not UTF-8 but UTF-16: --encoding utf-16" in await refusal(file(packed))
    packed.write_bytes(packed.read_bytes()[:-9])
    assert "the gzip file is cut off or broken" in await refusal(file(packed, encoding="utf-16"))
    packed.write_bytes(b"PK\x03\x04")
    assert "a ZIP archive: decompress it" in await refusal(file(packed))


async def test_every_reading_is_of_the_device_that_is_named(tmp_path: Path) -> None:
    replay = file(tmp_path / "a.csv", "t,a", "2026-01-31,1")
    assert [row.device for row in replay_rows(replay, "")] == [DEVICE]


async def test_a_file_of_any_length_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"

    async def peak(rows: int) -> int:
        lines = (f"2026-01-31 {row // 3600 % 24:02}:{row // 60 % 60:02}:{row % 60:02},{row}\n" for row in range(rows))
        path.write_bytes(gzip.compress(("t,a\n" + "".join(lines)).encode(), 1))
        tracemalloc.start()
        try:
            assert (await kept_of(file(path)))[0].readings == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    await peak(100)  # imports, caches
    assert await peak(2000) < 1.5 * await peak(500) + 100_000
