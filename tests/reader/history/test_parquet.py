"""Readings as Parquet: each value in the column of its type, exactly, read back by another implementation's reader."""

import json
import math
import random
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import numpy as np
import pyarrow
import pytest
from bson import Decimal128, Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from reader.history import parquet as parquet_rows
from reader.history.arrow_arrays import PARQUET_COLUMNS
from reader.history.parquet import ParquetRows
from reader.responses import AS_STORED, Document
from readings.document import encode_document
from readings.keys import series_key
from readings.place import Place
from storage.codec.columns import Columns, Kind
from storage.places.names import UNSEALED
from storage.places.raw import Raw
from storage.places.window import Window
from tests.reader.harness import DEVICE, OWNER, SENSOR, TS, VALUES, make_reading
from tests.reader.parquet_tables import row_groups_of, table_of
from tests.storage.codec import cases

COLUMNS = {
    "device": "string",
    "sensorType": "string",
    "ts": "timestamp[ms, tz=UTC]",
    "seq": "int64",
    "valueNumber": "double",
    "valueInteger": "int64",
    "valueBoolean": "bool",
    "valueText": "string",
    "receivedAt": "timestamp[ms, tz=UTC]",
    "unit": "string",
    "location": "string",
    "tags": "string",
    "quality": "string",
}
VALUE_COLUMNS = {float: "valueNumber", int: "valueInteger", bool: "valueBoolean", str: "valueText"}


def stored(*values: Any, ts: int = TS, **more: Any) -> list[Document]:
    """Return documents as the driver decodes them."""
    return [bson.decode(document, AS_STORED) for document in documents_of(*values, ts=ts, **more)]


def documents_of(*values: Any, ts: int = TS, **more: Any) -> list[bytes]:
    readings = [make_reading(value, ts + number, **more) for number, value in enumerate(values)]
    return [encode_document(OWNER, DEVICE, reading) for reading in readings]


def columns_of(*values: Any, ts: int = TS, **more: Any) -> Columns:
    return columns_from(b"".join(documents_of(*values, ts=ts, **more)))


def columns_from(body: bytes) -> Columns:
    found = Raw(body).columns(UNSEALED, Window(series_key(OWNER, DEVICE, SENSOR)))
    assert found is not None
    return found


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    rows = ParquetRows()
    rows.append(DEVICE, SENSOR, columns)
    found: list[dict[str, Any]] = table_of(rows.end()).to_pylist()
    return found


def bits(value: Any) -> Any:
    return struct.pack(">d", value) if isinstance(value, float) else value


def test_the_columns_and_their_types() -> None:
    rows = ParquetRows()
    rows.append(DEVICE, SENSOR, columns_of(1.5))
    schema = table_of(rows.end()).schema
    assert {field.name: str(field.type) for field in schema} == COLUMNS
    assert tuple(schema.names) == tuple(COLUMNS) == PARQUET_COLUMNS


def test_no_readings_are_a_file_with_the_columns_and_no_rows() -> None:
    table = table_of(ParquetRows().end())
    assert (table.num_rows, tuple(table.schema.names)) == (0, PARQUET_COLUMNS)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_in_the_column_of_its_type_and_in_no_other(value: Any) -> None:
    (row,) = rows_of(columns_of(value))
    found = {name: row[name] for name in VALUE_COLUMNS.values() if row[name] is not None}
    assert list(found) == [VALUE_COLUMNS[type(value)]]
    (kept,) = found.values()
    assert (type(kept), bits(kept)) == (type(value), bits(value))


def test_values_of_all_types_may_be_neighbours() -> None:
    rows = rows_of(columns_of(*VALUES))
    for row, value in zip(rows, VALUES, strict=True):
        assert [bits(row[name]) for name in VALUE_COLUMNS.values() if row[name] is not None] == [bits(value)]


def test_times_are_those_stored_to_the_millisecond() -> None:
    (row,) = rows_of(columns_of(1.0, ts=TS + 1, received_ms=TS + 12_345))
    assert row["ts"] == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=TS + 1)
    assert row["receivedAt"] == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=TS + 12_345)
    assert row["seq"] == 0


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {}),
        ({"unit": "\u00b0C"}, {"unit": "\u00b0C"}),
        ({"unit": ""}, {"unit": ""}),
        ({"quality": "uncertain"}, {"quality": "uncertain"}),
        ({"location": "hall"}, {"location": '"hall"'}),
        ({"location": '{"lat":1.0,"lon":2.0}'}, {"location": '"{\\"lat\\":1.0,\\"lon\\":2.0}"'}),
        ({"location": Place(48.1, -0.0, 520.5)}, {"location": '{"lat":48.1,"lon":-0.0,"alt":520.5}'}),
        ({"tags": {}}, {"tags": "{}"}),
        ({"tags": {"b": 'x"\u00e4', "a": ""}}, {"tags": '{"b":"x\\"\u00e4","a":""}'}),
    ],
)
def test_attributes_are_texts_and_location_and_tags_json(attributes: dict[str, Any], expected: dict[str, str]) -> None:
    (row,) = rows_of(columns_of(1.0, **attributes))
    names = ("unit", "location", "tags", "quality")
    assert {name: row[name] for name in names} == dict.fromkeys(names) | expected
    for name in ("location", "tags"):
        if name in expected:
            assert json.loads(row[name]) == bson.decode(bson.encode({"x": stored(1.0, **attributes)[0][name]}))["x"]


def test_what_only_a_manual_write_stores_hides_no_neighbour() -> None:
    key = {"owner": OWNER, "device": DEVICE, "sensorType": SENSOR}
    start = datetime(2025, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    values: list[tuple[Any, Any, dict[str, Any]]] = [
        (None, None, {}),
        (math.nan, "today", {"unit": 7}),
        (math.inf, DatetimeMS(2**62), {"location": [1, None]}),
        (Decimal128("1.50"), start.replace(year=1), {"tags": "text"}),
        ({"a": 1}, Int64(5), {"quality": {"a": 1}}),
    ]
    odd: list[Document] = [
        {"_id": key | {"ts": start, "seq": Int64(1)}, "value": value, "receivedAt": received, **more}
        for value, received, more in values
    ]
    odd.append({"_id": key | {"ts": DatetimeMS(-(2**63)), "seq": 2.0}})
    plain = documents_of(2.5, "x", unit="V")
    body = b"".join([plain[0], *map(bson.encode, odd), bson.encode({"_id": key | {"ts": "text"}}), plain[1]])
    rows = ParquetRows()
    rows.append(DEVICE, SENSOR, columns_from(body))
    table = table_of(rows.end())
    milliseconds = table.set_column(2, "ts", table["ts"].cast("int64")).drop_columns("receivedAt").to_pylist()
    assert [row["ts"] for row in milliseconds] == [TS, *[1_735_689_600_000] * 5, -(2**63), TS + 1]
    received_ms = table["receivedAt"].cast("int64").to_pylist()
    assert received_ms == [TS + 250, None, None, 2**62, -62135596800000, None, None, TS + 251]
    numbers = table["valueNumber"].to_pylist()
    assert math.isnan(numbers[2])
    assert [*numbers[:2], *numbers[3:]] == [2.5, None, math.inf, None, None, None, None]
    assert table["valueText"].to_pylist() == [None, None, None, None, "1.50", "{'a': 1}", None, "x"]
    assert table["unit"].to_pylist() == ["V", None, "7", None, None, None, None, "V"]
    assert table["location"].to_pylist()[3] == "[1,null]"
    assert table["tags"].to_pylist()[4] == '"text"'
    assert table["quality"].to_pylist()[5] == '{"a":1}'


def test_random_readings_of_many_series_are_read_back_as_they_were(rng: random.Random) -> None:
    choices = [*VALUES, *(rng.uniform(-1e9, 1e9) for _ in range(20))]
    more: list[dict[str, Any]] = [{}, {}, {"unit": "u"}, {"location": "x"}, {"tags": {"a": "b"}}, {"quality": "bad"}]
    rows, expected, parts = ParquetRows(), [], []
    for number in range(rng.randint(2, 400)):
        device, sensor = f"d-{rng.randint(0, 3)}", f"s-{number}"
        values = rng.choices(choices, k=rng.randint(1, 60))
        said = rng.choice(more)
        expected += [(device, sensor, document) for document in stored(*values, ts=TS + number, **said)]
        if rows.append(device, sensor, columns_of(*values, ts=TS + number, **said)) or rng.random() < 0.02:
            parts.append(rows.take_row_group())
    table = table_of(b"".join(parts) + rows.end())
    found = table.to_pylist()
    assert len(found) == len(expected)
    for row, (device, sensor, document) in zip(found, expected, strict=True):
        values = [bits(row[name]) for name in VALUE_COLUMNS.values() if row[name] is not None]
        assert [row["device"], row["sensorType"], row["ts"].replace(tzinfo=None), *values] == [
            *(device, sensor, document["_id"]["ts"], bits(document["value"]))
        ]
        assert row["unit"] == document.get("unit")


def encoded(rows: ParquetRows, count: int, *values: Any, **more: Any) -> bytes:
    """Encode `values` as `count` series; return the file."""
    file = rows.take()
    for number in range(count):
        if rows.append(DEVICE, f"s-{number}", columns_of(*values, **more)):
            file += rows.take_row_group()
    return file + rows.end()


def test_a_row_group_ends_at_its_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "ROW_GROUP_ROWS", 2500)
    assert row_groups_of(encoded(ParquetRows(), 7, *range(900))) == [2700, 2700, 900]


def test_a_row_group_of_long_texts_ends_at_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "ROW_GROUP_BYTES", 100_000)
    tags = {f"tag-{number}": "x" * 200 for number in range(16)}
    groups = row_groups_of(encoded(ParquetRows(), 6, *range(1000), tags=tags))
    assert groups == [1000] * 6
    assert row_groups_of(encoded(ParquetRows(), 6, *range(100))) == [600]


def test_a_row_group_ends_after_a_time_so_that_something_is_sent() -> None:
    now = 0.0
    rows = ParquetRows(lambda: now)
    assert rows.take() == b"PAR1"
    assert not rows.append(DEVICE, SENSOR, columns_of(1.0))
    now = parquet_rows.ROW_GROUP_SECONDS
    assert rows.append(DEVICE, SENSOR, columns_of(2.0, ts=TS + 1))
    assert len(rows.take_row_group()) > 50
    assert not rows.append(DEVICE, SENSOR, columns_of(3.0, ts=TS + 2))


def test_a_file_without_its_end_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "ROW_GROUP_ROWS", 1000)
    file = encoded(ParquetRows(), 5, *range(1000))
    assert table_of(file).num_rows == 5000
    for cut in (0, 4, len(file) // 2, len(file) - 8, len(file) - 1):
        with pytest.raises(Exception, match=r"(?i)parquet"):
            table_of(file[:cut])


@given(parts=st.lists(cases.documents(), min_size=1, max_size=3))
def test_columns_are_the_rows_of_their_documents(parts: list[list[bytes]]) -> None:
    rows, whole = ParquetRows(), ParquetRows()
    for part in parts:
        rows.append(DEVICE, SENSOR, cases.columns(part))
        whole.append(DEVICE, SENSOR, kept_whole(part))
    found, expected = table_of(rows.end()), table_of(whole.end())
    assert found.schema == expected.schema
    for name in PARQUET_COLUMNS:
        assert repr(found[name].to_pylist()) == repr(expected[name].to_pylist()), name


def kept_whole(made: list[bytes]) -> Columns:
    """Return documents as if none of them fitted columns."""
    found = cases.columns(made)
    kinds, values = np.full(len(made), Kind.OTHER, np.uint8), np.arange(len(made))
    return replace(found, kinds=kinds, values=values, others=made)


def test_many_short_series_take_no_more_memory_than_their_rows() -> None:
    pool = pyarrow.default_memory_pool()
    rows, one = ParquetRows(), columns_of(1.5)
    before = pool.bytes_allocated()
    for number in range(2000):
        rows.append(DEVICE, f"s-{number}", one)
    held = pool.bytes_allocated() - before
    table = table_of(rows.end())
    assert table["sensorType"].to_pylist() == [f"s-{number}" for number in range(2000)]
    assert held < 2000 * 500, "a batch of each series takes 1 kB and more"
