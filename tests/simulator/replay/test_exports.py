"""Exports of every form are read as what is stored: exported, imported and exported again they are the same."""

import gzip
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from reader.history.csv_lines import CSV_HEADER, csv_form
from reader.history.ndjson_lines import ndjson_form
from reader.history.parquet import ParquetRows
from readings.document import encode_document
from readings.exported import ExportedReadingEncoder
from readings.place import Place
from readings.reading import EARLIEST_MS, MAX_AHEAD_MS, MAX_TAGS, Defaults, Reading
from simulator.errors import ReplayError
from simulator.replay.file import Replay
from simulator.replay.readings import check_replay, replay_rows
from storage.codec.from_documents import columns_of
from tests.simulator.replay.checked import refusal

OWNER = "o"
RECEIVED_MS = 1_770_000_000_123
FORMATS = ("csv", "ndjson", "parquet")
Stored = dict[tuple[str, str], list[bytes]]
"""Documents in the order of their keys, by device and sensor type."""


def exported(stored: Stored, form: str) -> bytes:
    """Return what `GET /readings` gives for these documents."""
    columns = {key: columns_of(b"".join(documents), len(documents)) for key, documents in stored.items()}
    if form == "parquet":
        rows = ParquetRows()
        for (device, sensor_type), several in columns.items():
            rows.append(device, sensor_type, several)
        return rows.end()
    form_of = csv_form if form == "csv" else ndjson_form
    lines = b"".join(b"".join(form_of(*key).lines(several)) for key, several in columns.items())
    count = sum(map(len, stored.values()))
    if form == "csv":
        return CSV_HEADER + lines + b"# end %d\r\n" % count
    return lines + b'{"end":true,"count":%d}\n' % count


def imported(path: Path) -> Stored:
    """Return what a gateway makes of a file's readings, received at the same time as the first time."""
    found: Stored = {}
    for row in replay_rows(Replay(path), ""):
        encoder = ExportedReadingEncoder(OWNER, row.device, Defaults())
        document = encoder.encode_one(msgspec.json.encode(row.reading), RECEIVED_MS)
        found.setdefault((row.device, row.reading.sensor_type), []).append(document)
    return found


ids = st.text("abcXYZ019_.:-", min_size=1, max_size=8)
# What may be stored has no control characters and no lone surrogates.
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12) | st.sampled_from(
    ["", " ", "1", "true", "NA", "NaN", "=1+1", "a,b", 'say "x"', "# end 3", "\u2028", "'", '{"lat":1}', '"x"', "null"]
)
places = st.builds(Place, st.floats(-90, 90), st.floats(-180, 180), st.none() | st.floats(-1000, 9000, allow_nan=False))
values = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | texts
several_readings = st.lists(
    st.tuples(
        st.integers(1_700_000_000_000, 1_700_000_000_100) | st.integers(EARLIEST_MS, RECEIVED_MS + MAX_AHEAD_MS),
        st.integers(0, 3) | st.integers(0, 2**53 - 1),
        values,
        st.none() | texts,
        st.none() | texts | places,
        st.none() | st.dictionaries(ids, texts, max_size=MAX_TAGS),
        st.sampled_from([None, "good", "uncertain", "bad"]),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda reading: reading[:2],
)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(series=st.dictionaries(st.tuples(ids, ids), several_readings, min_size=1, max_size=3))
def test_an_export_that_is_imported_is_exported_the_same(form: str, series: dict[Any, Any], tmp_path: Path) -> None:
    stored = {
        (device, kind): [
            encode_document(OWNER, device, Reading(kind, value, ts, seq, RECEIVED_MS, location, unit, tags, quality))
            for ts, seq, value, unit, location, tags, quality in sorted(readings, key=lambda reading: reading[:2])
        ]
        for (device, kind), readings in series.items()
    }
    first = exported(stored, form)
    path = tmp_path / f"export.{form}"
    path.write_bytes(first)
    again = imported(path)
    assert exported(again, form) == first
    assert again == stored


def test_a_file_says_what_it_is_by_its_content(tmp_path: Path) -> None:
    """The forms of one export are the same readings, also gzipped, and whatever the file's name is."""
    reading = Reading("t", 1.5, 1_700_000_000_000, 3, RECEIVED_MS, None, "C", None, None)
    stored = {("d:1", "t"): [encode_document(OWNER, "d:1", reading)]}
    found = []
    for form in FORMATS:
        path = tmp_path / "export"
        path.write_bytes(exported(stored, form))
        found.append(list(replay_rows(Replay(path), "")))
        if form != "parquet":
            path.write_bytes(gzip.compress(path.read_bytes()))
            found.append(list(replay_rows(Replay(path), "")))
    without_lines = [[msgspec.structs.replace(row, line=0) for row in rows] for rows in found]
    assert len(found) == 5
    assert all(one == other for one, other in pairwise(without_lines))


async def test_ndjson_of_devices_is_sent_as_the_device_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    lines: list[dict[str, Any]] = [
        {"sensorType": "t", "value": 1, "ts": "2026-01-31T12:00:00Z"},
        {"sensorType": "t", "value": True, "ts": 1_769_860_800_001, "seq": 4, "device": "other"},
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    checked = await check_replay(Replay(path, device="d:1"))
    assert {key: span.readings for key, span in checked.series.items()} == {("d:1", "t"): 2}
    assert [row.line for row in replay_rows(Replay(path, device="d:1"), "")] == [1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"sensorType":"t","value":1,"ts":1}\n', "line 1: 1970-01-01T00:00:00.001Z: ts must lie between 2000-01-01"),
        ('{"sensorType":"t","value":1}\n', "line 1: not a reading: ts and value are required"),
        ('{"sensorType":"t","value":1,"ts":"now"}\n', "line 1: not a reading: ts must be RFC 3339"),
        ('{"sensorType":"t","valeu":1,"ts":1}\n', "line 1: not a reading: Object contains unknown field `valeu`"),
        ('{"device":"d","sensorType":"t","value":1,"ts":1769860800001}\n{"end":true,"count":2}', "line 2: the export"),
        ('{"value":\n', "line 1: not a reading"),
        ('{"end":true,"count":0}\n', "the file has no rows"),
    ],
)  # fmt: skip
async def test_ndjson_that_is_none_of_readings_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "a.ndjson"
    path.write_text(content)
    assert reason in await refusal(Replay(path))


async def test_parquet_that_is_cut_off_or_of_another_origin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    reading = Reading("t", 1.5, 1_700_000_000_000, 3, RECEIVED_MS, None, None, None, None)
    whole = exported({("d:1", "t"): [encode_document(OWNER, "d:1", reading)]}, "parquet")
    path.write_bytes(whole[:-9])
    assert "the Parquet file is cut off or broken" in await refusal(Replay(path))
    path.write_bytes(whole.replace(b"valueText", b"valueTxet"))
    assert "not an export of Tidegate's: there is no column 'valueText'" in await refusal(Replay(path))
    path.write_bytes(gzip.compress(whole))
    assert "a Parquet file must not be gzipped" in await refusal(Replay(path))


def test_times_of_parquet_are_utc_also_without_their_zone_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that rewrite an export may leave the zone out."""
    reading = Reading("t", 1.5, 1_700_000_000_123, 3, RECEIVED_MS, None, None, None, None)
    path = tmp_path / "a.parquet"
    path.write_bytes(exported({("d:1", "t"): [encode_document(OWNER, "d:1", reading)]}, "parquet"))
    before = list(replay_rows(Replay(path), ""))
    table = parquet.read_table(path)
    for zone in (None, "Asia/Tokyo"):
        columns = {name: table[name].cast(pa.timestamp("ms", zone)) for name in ("ts", "receivedAt")}
        changed = pa.table({name: columns.get(name, table[name]) for name in table.column_names})
        parquet.write_table(changed, path)
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        try:
            assert list(replay_rows(Replay(path), "")) == before
        finally:
            monkeypatch.undo()
            time.tzset()


@pytest.mark.parametrize("form", ["ndjson", "parquet"])
def test_options_for_tables_are_refused_for_other_exports(tmp_path: Path, form: str) -> None:
    reading = Reading("t", 1.5, 1_700_000_000_000, 3, RECEIVED_MS, None, None, None, None)
    path = tmp_path / "export"
    path.write_bytes(exported({("d:1", "t"): [encode_document(OWNER, "d:1", reading)]}, form))
    with pytest.raises(ReplayError, match="options for columns, times and cells are for tables"):
        list(replay_rows(Replay(path, missing=("NA",)), ""))
    (row,) = replay_rows(Replay(path, device_column="", sensor_type="u"), "")
    assert (row.device, row.reading.sensor_type, row.reading.received_at) == ("", "u", msgspec.UNSET)
