"""Which cells a replay reads as numbers, texts and booleans, and which it refuses."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import ReplayError
from simulator.replay.file import Replay
from simulator.replay.readings import check_replay, replay_readings
from tests.simulator.replay.csv_files import csv_file

TIME = "2024-05-01 00:00:00"
T0 = 1_714_521_600_000


def rows(folder: Path, *cells: str, **options: Any) -> Replay:
    return Replay(csv_file(folder, "timestamp,value", *(f"{TIME},{cell}" for cell in cells)), **options)


def values(replay: Replay) -> list[Any]:
    return [reading.value for reading in replay_readings(replay, "x")]


async def refusal(replay: Replay) -> str:
    with pytest.raises(ReplayError) as error:
        await check_replay(replay)
    return str(error.value)


@pytest.mark.parametrize("cell", ['"1,5"', '"1,234.5"', "1 234.5", "45%", "NA", "MM", "?", "NaN", "-inf", "1e999", "x"])
async def test_a_cell_that_is_not_a_number_among_numbers_is_an_error_with_remedies(tmp_path: Path, cell: str) -> None:
    replay = rows(tmp_path, "1", cell, "2")
    error_text = await refusal(replay)
    assert error_text.startswith(f"{replay.path}: line 3, column 'value': {cell.strip(chr(34))!r} is not a")
    assert "--missing" in error_text
    assert "--value-type text" in error_text


@pytest.mark.parametrize("cell", ['"1,5"', "45%", "NA", "?"])
async def test_the_remedies_work(tmp_path: Path, cell: str) -> None:
    text = cell.strip('"')
    left_out = rows(tmp_path, "1", cell, "2", missing=(text, "MM"))
    assert (await check_replay(left_out)).readings == 2
    assert values(left_out) == [1, 2]
    as_texts = rows(tmp_path, "1", cell, "2", value_type="text")
    assert (await check_replay(as_texts)).readings == 3
    assert values(as_texts) == ["1", text, "2"]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1", "2.5", "-1e-3", "+4", ".5"], [1, 2.5, -0.001, 4, 0.5]),
        (["true", "False", "TRUE"], [True, False, True]),
        (["idle", "error", "1"], ["idle", "error", "1"]),
        (["idle", "true", "false", "off", "on"], ["idle", "true", "false", "off", "on"]),
        (["192.168.0.1", "1.2.3"], ["192.168.0.1", "1.2.3"]),
        (["1", "", "2", ""], [1, 2]),
    ],
    ids=str,
)
async def test_a_files_values_are_of_one_type_each_sensor(tmp_path: Path, cells: list[str], found: list[Any]) -> None:
    replay = rows(tmp_path, *cells)
    assert (await check_replay(replay)).readings == len(found)
    assert [repr(value) for value in values(replay)] == [repr(value) for value in found]


@pytest.mark.parametrize(
    ("cells", "column", "line"),
    [
        (["idle", "1"], "number", 2),
        (["true", "false", "maybe"], "true or false", 4),
        (["true", "1"], "number", 2),
        (['"1,5"', '"2,5"'], "number", 2),
        (["45%", "NA"], "number", 2),
        (["NA", "NA", "NA", "1"], "number", 2),
    ],
    ids=str,
)
async def test_half_decides_and_marks_of_missing_values_do_not_vote(
    tmp_path: Path, cells: list[str], column: str, line: int
) -> None:
    error_text = await refusal(rows(tmp_path, *cells))
    assert f"line {line}, column 'value'" in error_text
    assert column in error_text


@pytest.mark.parametrize("cells", [["NA"], ["MM", "MM"], ["?", "NA", ""]], ids=str)
async def test_marks_of_missing_values_alone_are_no_texts(tmp_path: Path, cells: list[str]) -> None:
    error_text = await refusal(rows(tmp_path, *cells))
    assert f"line 2, column 'value': {cells[0]!r} marks a missing value" in error_text
    assert f"--missing {cells[0]!r} skips such rows, --value-type text" in error_text
    assert values(rows(tmp_path, *cells, value_type="text")) == [cell for cell in cells if cell]


async def test_the_type_is_decided_for_each_sensor_type_by_its_own_values(tmp_path: Path) -> None:
    lines = [f"{TIME},{cell}" for cell in ("1,a", "idle,b", "2,b", "run,b", "3,a", "true,c")]
    replay = Replay(csv_file(tmp_path, "timestamp,value,kind", *lines), sensor_type_column="kind")
    kinds = (await check_replay(replay)).survey.kinds
    assert kinds == {(1, "a"): "number", (1, "b"): "text", (1, "c"): "boolean"}
    assert values(replay) == [1, "idle", "2", "run", 3, True]


async def test_a_type_that_is_given_is_not_decided(tmp_path: Path) -> None:
    assert values(rows(tmp_path, "1", "true", value_type="text")) == ["1", "true"]
    assert values(rows(tmp_path, "1", "true", "0", "FALSE", value_type="boolean")) == [True, True, False, False]
    assert "'x' is not a number" in await refusal(rows(tmp_path, "x", "y", "1", value_type="number"))
    assert "'2' is not true or false" in await refusal(rows(tmp_path, "1", "2", value_type="boolean"))


async def test_a_file_without_a_value_is_an_error(tmp_path: Path) -> None:
    assert "no row has a value" in await refusal(rows(tmp_path, "", "NA", missing=("NA",)))


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2024-05-01 00:00:00+00:00", 0),
        ("2024-05-01 02:00:00.5+0200", 500),
        ("2024-05-01 00:00:00.123456+00:00", 123),
        ("2024-05-01T00:00:00.123999999Z", 123),
        ("2024-05-01 00:00:00.123456", 123),
        ("2024-05-01", 0),
        ("1714521600007", 7),
    ],
)
async def test_the_times_of_pandas_are_taken_and_cut_to_milliseconds(tmp_path: Path, text: str, ms: int) -> None:
    replay = Replay(csv_file(tmp_path, "timestamp,value", f"{text},1"))
    assert (await check_replay(replay)).readings == 1
    assert [reading.ts - T0 for reading in replay_readings(replay, "x")] == [ms]


async def test_readings_within_a_millisecond_are_counted_so_that_none_becomes_another(tmp_path: Path) -> None:
    micros = [100, 200, 999, 1000, 1001]
    lines = [f"{datetime.datetime(2024, 5, 1, microsecond=micro, tzinfo=datetime.UTC)},{micro}" for micro in micros]
    found = [
        (reading.ts - T0, reading.seq)
        for reading in replay_readings(Replay(csv_file(tmp_path, "timestamp,value", *lines)), "x")
    ]
    assert found == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    counted = Replay(csv_file(tmp_path, "timestamp,value,n", *(f"{line},0" for line in lines)), seq_column="n")
    assert "line 2, column 'n': times finer than a millisecond are cut" in await refusal(counted)


async def test_whole_numbers_that_are_times_in_no_unit_are_an_error(tmp_path: Path) -> None:
    error_text = await refusal(Replay(csv_file(tmp_path, "timestamp,value", "17145216,1")))
    assert "column 'timestamp'" in error_text
    assert "1970-01-01T04:45:45.216Z: ts must lie between 2000-01-01 and 24 h from now" in error_text
