from pathlib import Path

import pytest

from simulator.errors import ReplayError
from simulator.replay.file import Replay
from simulator.replay.readings import check_replay, replay_readings
from tests.simulator.replay.csv_files import csv_file


def test_repeated_timestamps_get_distinct_and_reproducible_identities(tmp_path: Path) -> None:
    times = ["2013-12-02 21:15:00", "2013-12-02 21:15:00", "2013-12-02 21:20:00", "2013-12-02 21:15:00"]
    replay = Replay(csv_file(tmp_path, "timestamp,value", *(f"{time},1.5" for time in times)))
    first = [(reading.ts, reading.seq) for reading in replay_readings(replay, "temperature")]
    assert len(set(first)) == 4
    assert first == [(reading.ts, reading.seq) for reading in replay_readings(replay, "temperature")]
    assert first[0] == (1_386_018_900_000, 0)


async def test_every_form_of_time_and_value_is_read(tmp_path: Path) -> None:
    lines = [
        "2024-05-01T12:00:00Z,1",
        "2024-05-01T14:00:00.5+02:00,2.5",
        "2024-05-01 12:00:01,true",
        "",
        '1714564802000,"open, wide"',
        "2024-05-01 12:00:03.250,-1e-3",
    ]
    kinds = ["number", "number", "boolean", "", "text", "number"]
    lines = [f"{line},{kind}" if line else "" for line, kind in zip(lines, kinds, strict=True)]
    replay = Replay(csv_file(tmp_path, "timestamp,value,kind", *lines), sensor_type_column="kind")
    assert (await check_replay(replay)).readings == 5
    read = list(replay_readings(replay, "mixed"))
    assert [reading.value for reading in read] == [1, 2.5, True, "open, wide", -0.001]
    assert [reading.ts - 1_714_564_800_000 for reading in read] == [0, 500, 1000, 2000, 3250]
    assert [type(reading.value) for reading in read] == [int, float, bool, str, float]


async def test_a_leap_second_is_the_beginning_of_the_next_with_a_zone_or_without(tmp_path: Path) -> None:
    lines = [
        "2016-12-31 23:59:59.5,1",
        "2016-12-31 23:59:60,2",
        "2017-01-01T00:59:60.5+01:00,3",
        "2017-01-01 00:00:00,4",
    ]
    replay = Replay(csv_file(tmp_path, "timestamp,value", *lines))
    assert (await check_replay(replay)).readings == 4
    readings = [(reading.ts - 1_483_228_800_000, reading.seq) for reading in replay_readings(replay, "mixed")]
    assert readings == [(-500, 0), (0, 0), (0, 1), (0, 2)]


async def test_columns_can_be_named_and_carry_the_sensor_type(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "kind,when,extra,reading", "co2,1714564800000,x,400", "noise,1714564800000,x,40")
    replay = Replay(path, ("when",), ("reading",), "kind")
    assert (await check_replay(replay)).readings == 2
    assert [(reading.sensor_type, reading.seq) for reading in replay_readings(replay, "temperature")] == [
        ("co2", 0),
        ("noise", 0),
    ]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("yesterday,1", "timestamp"),
        ("2024-13-01 00:00:00,1", "timestamp"),
        ("2024-05-01 00:00:60,1", "timestamp"),
        ("1999-01-01 00:00:00,1", "timestamp"),
        ("2024-05-01 00:00:00", "value"),
        ("2024-05-01 00:00:00,NaN", "value"),
        ("2024-05-01 00:00:00,99999999999999999999", "value"),
        ("2024-05-01 00:00:00," + "x" * 257, "value"),
    ],
)
async def test_a_bad_row_names_file_line_and_column(tmp_path: Path, row: str, column: str) -> None:
    path = csv_file(tmp_path, "timestamp,value", "2024-05-01 00:00:00,1", row, "2024-05-01 00:00:00,1")
    with pytest.raises(ReplayError) as error:
        await check_replay(Replay(path))
    assert str(error.value).startswith(f"{path}: line 3, column {column!r}: ")


async def test_a_file_that_cannot_be_replayed_is_reported_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ReplayError, match="line 1: no column of times was found; the file has time, value; --time-column names it"
    ):
        await check_replay(Replay(csv_file(tmp_path, "time,value", "1,1")))
    with pytest.raises(ReplayError, match="no rows"):
        await check_replay(Replay(csv_file(tmp_path, "timestamp,value")))
    with pytest.raises(ReplayError, match="No such file"):
        await check_replay(Replay(tmp_path / "missing.csv"))
    (tmp_path / "latin.csv").write_bytes(b"timestamp,value\n1714564800000,\xe9\n")
    with pytest.raises(ReplayError, match="not UTF-8"):
        await check_replay(Replay(tmp_path / "latin.csv"))
