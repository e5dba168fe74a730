"""The columns that a replay reads: those of options, or all of an export."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from reader.history.csv_lines import as_text
from readings.place import Place
from readings.reading import ATTRIBUTES
from simulator.errors import ReplayError
from simulator.replay.file import Replay, TextOptions
from simulator.replay.readings import check_replay, replay_readings, replay_rows
from simulator.replay.times import TimeOptions
from simulator.replay.zones import Zone
from tests.simulator.replay.csv_files import EXPORT_HEADER, RECEIVED_AT, csv_file


def export(folder: Path, *lines: str) -> Path:
    return csv_file(folder, EXPORT_HEADER, *(f"d-1,temperature,2024-05-01T00:00:00.000Z,{line}" for line in lines))


def fields_of(reading: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(reading)
    return found


async def refusal(replay: Replay) -> str:
    with pytest.raises(ReplayError) as error:
        await check_replay(replay)
    return str(error.value)


async def test_every_field_has_a_column_that_an_option_names(tmp_path: Path) -> None:
    line = '1714521600000,400,ppm,"{""lat"": 48.1, ""lon"": 11.5}","{""room"":""a""}",bad,7,dev:9,co2'
    path = csv_file(tmp_path, "when,what,u,l,t,q,s,d,k", line, "1714521600000,401,,,,,8,dev:9,co2")
    attribute_columns = {"unit": "u", "location": "l", "tags": "t", "quality": "q"}
    replay = Replay(path, ("when",), ("what",), "k", "s", "d", attribute_columns)
    checked = await check_replay(replay)
    assert (checked.readings, checked.devices, checked.names_devices) == (2, 1, True)
    first, second = replay_rows(replay, "unused")
    assert (first.device, first.reading.location) == ("dev:9", Place(48.1, 11.5))
    assert fields_of(first.reading) | {"location": None} == {
        "sensorType": "co2",
        "value": 400,
        "ts": 1_714_521_600_000,
        "seq": 7,
        "unit": "ppm",
        "location": None,
        "tags": {"room": "a"},
        "quality": "bad",
    }
    assert fields_of(second.reading) == {"sensorType": "co2", "value": 401, "ts": 1_714_521_600_000, "seq": 8}


async def test_a_sensor_type_can_be_given_to_all_rows(tmp_path: Path) -> None:
    replay = Replay(csv_file(tmp_path, "timestamp,value", "1714521600000,1"), sensor_type="pressure")
    assert [reading.sensor_type for reading in replay_readings(replay, "temperature")] == ["pressure"]
    exported = Replay(export(tmp_path, f"0,1,{RECEIVED_AT},,,,"), sensor_type="pressure")
    assert [reading.sensor_type for reading in replay_readings(exported, "temperature")] == ["pressure"]


async def test_an_export_is_known_by_its_header_and_read_as_it_was_written(tmp_path: Path) -> None:
    path = export(
        tmp_path,
        f'0,"1",{RECEIVED_AT},C,"hall ""3"", left","{{""a"":""1,2""}}",bad',
        f"1,1,{RECEIVED_AT},,,,",
        f'2,1.0,{RECEIVED_AT},"","",{{}},good',
        f"3,true,{RECEIVED_AT},,,,",
        f'{2**53 - 1},"true",{RECEIVED_AT},,"{{""lat"":1.0,""lon"":2.0}}",,',
        f'5," NA, ",{RECEIVED_AT},,"{{""lat"":1,""lon"":2}}",,',
        f"6,,{RECEIVED_AT},,,,",
        f'7,"",{RECEIVED_AT},,,,',
    )
    checked = await check_replay(Replay(path))
    assert (checked.readings, checked.devices) == (7, 1)
    readings = [row.reading for row in replay_rows(Replay(path), "unused")]
    assert [repr(reading.value) for reading in readings] == ["'1'", "1", "1.0", "True", "'true'", "' NA, '", "''"]
    assert [reading.seq for reading in readings] == [0, 1, 2, 3, 2**53 - 1, 5, 7]
    assert {reading.sensor_type for reading in readings} == {"temperature"}
    assert fields_of(readings[0])["unit"] == "C"
    assert fields_of(readings[0])["tags"] == {"a": "1,2"}
    assert [fields_of(reading).get("quality") for reading in readings[:3]] == ["bad", None, "good"]
    assert fields_of(readings[0])["receivedAt"] == RECEIVED_AT
    assert [fields_of(reading).get("unit") for reading in readings[:3]] == ["C", None, ""]
    assert [fields_of(reading).get("tags") for reading in readings[1:3]] == [None, {}]
    places = [None if reading.location is msgspec.UNSET else reading.location for reading in readings]
    assert places == ['hall "3", left', None, "", None, Place(1.0, 2.0), '{"lat":1,"lon":2}', None]


OLDER_HEADER = "device,sensorType,ts,seq,value,receivedAt,unit,location,tags"


async def test_an_export_of_a_version_with_fewer_columns_is_read_as_it_was_written(tmp_path: Path) -> None:
    row = f'd,t,2024-05-01T00:00:00.000Z,7,"1",{RECEIVED_AT},C,,'
    path = csv_file(tmp_path, OLDER_HEADER, row, "# end 1")
    checked = await check_replay(Replay(path))
    assert (checked.readings, checked.names_devices) == (1, True)
    (found,) = replay_rows(Replay(path), "unused")
    assert (found.device, found.reading.value, found.reading.unit) == ("d", "1", "C")
    assert found.reading.quality is msgspec.UNSET
    asked = Replay(path, attribute_columns={"quality": "quality"})
    assert "line 1, column 'quality': there is no such column" in await refusal(asked)


@pytest.mark.parametrize("older_first", [True, False])
async def test_appended_exports_of_two_versions_keep_all_their_fields(tmp_path: Path, older_first: bool) -> None:
    row = f"d,t,2024-05-01T00:00:00.000Z,{{seq}},1,{RECEIVED_AT},C,,"
    older = [OLDER_HEADER, row.format(seq=1), "# end 1"]
    newer = [EXPORT_HEADER, row.format(seq=2) + ",bad", "# end 1"]
    replay = Replay(csv_file(tmp_path, *(older + newer if older_first else newer + older)))
    assert (await check_replay(replay)).readings == 2
    found = {row.reading.seq: fields_of(row.reading).get("quality") for row in replay_rows(replay, "unused")}
    assert found == {1: None, 2: "bad"}


async def test_an_export_without_its_devices_is_for_simulated_ones(tmp_path: Path) -> None:
    path = export(tmp_path, f"3,1,{RECEIVED_AT},C,,,")
    replay = Replay(path, device_column="")
    assert not (await check_replay(replay)).names_devices
    (row,) = replay_rows(replay, "unused")
    assert (row.device, row.reading.seq, row.reading.unit) == ("", 3, "C")
    assert row.reading.received_at is msgspec.UNSET
    drawn = export(tmp_path, f"{2**52},1,{RECEIVED_AT},C,,,")
    error_text = await refusal(Replay(drawn, device_column=""))
    assert "column 'seq'" in error_text
    assert "accepted if an export names device and receivedAt" in error_text


async def test_the_last_line_of_an_export_is_checked_and_is_no_reading(tmp_path: Path) -> None:
    row = f"d,t,2024-05-01T00:00:00.000Z,0,1,{RECEIVED_AT},,,,"
    complete = Replay(csv_file(tmp_path, EXPORT_HEADER, row, "# end 1", EXPORT_HEADER, "# end 0"))
    assert (await check_replay(complete)).readings == 1
    cut = Replay(csv_file(tmp_path, EXPORT_HEADER, row, "# end 2"))
    assert "line 3: the export ends with '# end 2', but 1 readings precede it" in await refusal(cut)


@pytest.mark.parametrize(
    ("line", "column"),
    [
        (f"0,idle,{RECEIVED_AT},,,,", "value"),
        (f"x,1,{RECEIVED_AT},,,,", "seq"),
        (f"{2**53},1,{RECEIVED_AT},,,,", "seq"),
        (f"0,1,{RECEIVED_AT},{'x' * 33},,,", "unit"),
        (f"0,1,{RECEIVED_AT},,{'x' * 257},,", "location"),
        (f"0,1,{RECEIVED_AT},,,[1],", "tags"),
        (f'0,1,{RECEIVED_AT},,,"{{""a b"":""1""}}",', "tags"),
        (f"0,1,{RECEIVED_AT},,,,great", "quality"),
        ("0,1,yesterday,,,,", "receivedAt"),
    ],
)
async def test_an_invalid_cell_of_an_export_is_named(tmp_path: Path, line: str, column: str) -> None:
    error_text = await refusal(Replay(export(tmp_path, f"0,1,{RECEIVED_AT},,,,", line)))
    assert f"line 3, column {column!r}: " in error_text


FOR_PEOPLE = '"d-1","temperature",2024-05-01T00:00:00.000Z,0,{value},2024-05-01T00:00:00.250Z,{unit},,,'


@pytest.mark.parametrize("text", ["=1+1", " -x", "a;@b", "\uff1dA1", "'=1"])
async def test_the_export_for_spreadsheets_is_refused_if_a_text_may_differ(tmp_path: Path, text: str) -> None:
    """The apostrophe may have been stored or added by the export."""
    value = csv_file(tmp_path, EXPORT_HEADER, FOR_PEOPLE.format(value=f'"{as_text(text)}"', unit=""))
    error_text = await refusal(Replay(value))
    assert (
        f"line 2, column 'value': {as_text(text)!r} may have its apostrophe from the export for spreadsheets"
        in error_text
    )
    assert "without for=spreadsheet" in error_text
    assert "may have its apostrophe" in await refusal(Replay(value, value_type="text"))
    unit = csv_file(tmp_path, EXPORT_HEADER, FOR_PEOPLE.format(value="1", unit=f'"{as_text(text)}"'))
    assert "column 'unit'" in await refusal(Replay(unit))


async def test_the_export_for_spreadsheets_is_accepted_if_it_equals_what_is_stored(tmp_path: Path) -> None:
    lines = [FOR_PEOPLE.format(value=value, unit='"C"') for value in ("-1.5", '"idle"', "true", '"it\'s on"')]
    replay = Replay(csv_file(tmp_path, EXPORT_HEADER, *lines))
    assert (await check_replay(replay)).readings == 4
    assert [row.reading.value for row in replay_rows(replay, "unused")] == [-1.5, "idle", True, "it's on"]
    stored = export(tmp_path, f"""0,"'=1",{RECEIVED_AT},,,,""")  # the export for programs is not escaped
    assert [row.reading.value for row in replay_rows(Replay(stored), "unused")] == ["'=1"]


async def test_an_export_whose_numbers_another_program_has_quoted_is_no_export_of_texts(tmp_path: Path) -> None:
    quoted = '"d-1","temperature","2024-05-01T00:00:00.000Z","0","20.5","2024-05-01T00:00:00.250Z","","","",""'
    path = csv_file(tmp_path, ",".join(f'"{name}"' for name in EXPORT_HEADER.split(",")), quoted)
    assert "line 2, column 'value': '20.5' may be a text or a number" in await refusal(Replay(path))
    (row,) = replay_rows(Replay(path, value_type="number", attribute_columns=dict.fromkeys(ATTRIBUTES, "")), "")
    assert row.reading.value == 20.5


@pytest.mark.parametrize(
    "options",
    [
        {"times": TimeOptions(year=2023)},
        {"times": TimeOptions(format="s")},
        {"times": TimeOptions(zone=Zone("+01:00"))},
        {"units": {"": "bar"}},
        {"text": TextOptions(decimal=",")},
    ],
)
async def test_options_for_what_an_export_says_itself_are_refused(tmp_path: Path, options: Any) -> None:
    path = export(tmp_path, f"0,1.5,{RECEIVED_AT},,,,")
    assert "an export has its own times, units and decimal sign" in await refusal(Replay(path, **options))


async def test_a_missing_column_is_reported_with_the_option_that_names_another(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "timestamp,value", "1714521600000,1")
    for field in (*ATTRIBUTES, "seq", "device", "sensor_type", "time", "value"):
        options: dict[str, Any] = {f"{field}_column": "nowhere"}
        if field in ATTRIBUTES:
            options = {"attribute_columns": {field: "nowhere"}}
        elif field in ("time", "value"):
            options = {f"{field}_columns": ("nowhere",)}
        error_text = await refusal(Replay(path, **options))
        assert "line 1, column 'nowhere': there is no such column; the file has timestamp, value" in error_text
        assert f"--{field.replace('_', '-')}-column names another" in error_text
    invalid = csv_file(tmp_path, "timestamp,value,d", "1714521600000,1,a/b")
    assert "column 'd': a device is 1 to 64 of" in await refusal(Replay(invalid, device_column="d", sensor_type="t"))
