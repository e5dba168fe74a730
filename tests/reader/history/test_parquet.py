"""Readings as Parquet: each value in the column of its type, exactly, read back by another implementation's reader."""

import json
import math
import random
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import Decimal128, Int64
from bson.datetime_ms import DatetimeMS

from reader.history import parquet as parquet_rows
from reader.history.parquet import PARQUET_COLUMNS, ParquetRows
from reader.responses import AS_STORED, Document
from readings.document import encode_document
from readings.place import Place
from tests.reader.harness import DEVICE, OWNER, SENSOR, TS, VALUES, make_reading
from tests.reader.parquet_tables import row_groups_of, table_of

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
    """Return documents as MongoDB returns them."""
    readings = [make_reading(value, ts + number, **more) for number, value in enumerate(values)]
    return [bson.decode(encode_document(OWNER, DEVICE, reading), AS_STORED) for reading in readings]


def rows_of(*documents: Document, device: str = DEVICE, sensor: str = SENSOR) -> list[dict[str, Any]]:
    rows = ParquetRows()
    rows.append(device, sensor, documents)
    found: list[dict[str, Any]] = table_of(rows.end()).to_pylist()
    return found


def bits(value: Any) -> Any:
    return struct.pack(">d", value) if isinstance(value, float) else value


def test_the_columns_and_their_types() -> None:
    rows = ParquetRows()
    rows.append(DEVICE, SENSOR, stored(1.5))
    schema = table_of(rows.end()).schema
    assert {field.name: str(field.type) for field in schema} == COLUMNS
    assert tuple(schema.names) == tuple(COLUMNS) == PARQUET_COLUMNS


def test_no_readings_are_a_file_with_the_columns_and_no_rows() -> None:
    table = table_of(ParquetRows().end())
    assert (table.num_rows, tuple(table.schema.names)) == (0, PARQUET_COLUMNS)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_is_in_the_column_of_its_type_and_in_no_other(value: Any) -> None:
    (row,) = rows_of(*stored(value))
    found = {name: row[name] for name in VALUE_COLUMNS.values() if row[name] is not None}
    assert list(found) == [VALUE_COLUMNS[type(value)]]
    (kept,) = found.values()
    assert (type(kept), bits(kept)) == (type(value), bits(value))


def test_values_of_all_types_may_be_neighbours() -> None:
    rows = rows_of(*stored(*VALUES))
    for row, value in zip(rows, VALUES, strict=True):
        assert [bits(row[name]) for name in VALUE_COLUMNS.values() if row[name] is not None] == [bits(value)]


def test_times_are_those_stored_to_the_millisecond() -> None:
    documents = stored(1.0, ts=TS + 1, received_ms=TS + 12_345)
    (row,) = rows_of(*documents)
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
    (row,) = rows_of(*stored(1.0, **attributes))
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
    odd.append({"_id": key | {"ts": "text", "seq": Int64(3)}, "value": 1.5})
    rows = ParquetRows()
    rows.append(DEVICE, SENSOR, odd + stored(2.5))
    table = table_of(rows.end())
    milliseconds = table.set_column(2, "ts", table["ts"].cast("int64")).drop_columns("receivedAt").to_pylist()
    assert [row["ts"] for row in milliseconds] == [1_735_689_600_000] * 5 + [-(2**63), None, TS]
    received_ms = table["receivedAt"].cast("int64").to_pylist()
    assert received_ms == [None, None, 2**62, -62135596800000, None, None, None, TS + 250]
    numbers = table["valueNumber"].to_pylist()
    assert math.isnan(numbers[1])
    assert [numbers[0], *numbers[2:]] == [None, math.inf, None, None, None, 1.5, 2.5]
    assert table["valueText"].to_pylist() == [None, None, None, "1.50", "{'a': 1}", None, None, None]
    assert table["unit"].to_pylist()[1] == "7"
    assert table["location"].to_pylist()[2] == "[1,null]"
    assert table["tags"].to_pylist()[3] == '"text"'
    assert table["quality"].to_pylist()[4] == '{"a":1}'


def test_random_readings_of_many_series_are_read_back_as_they_were(rng: random.Random) -> None:
    choices = [*VALUES, *(rng.uniform(-1e9, 1e9) for _ in range(20))]
    more: list[dict[str, Any]] = [{}, {}, {"unit": "u"}, {"location": "x"}, {"tags": {"a": "b"}}, {"quality": "bad"}]
    rows, expected, parts = ParquetRows(), [], []
    for number in range(rng.randint(2, 400)):
        device, sensor = f"d-{rng.randint(0, 3)}", f"s-{number}"
        documents = stored(*rng.choices(choices, k=rng.randint(0, 60)), ts=TS + number, **rng.choice(more))
        expected += [(device, sensor, document) for document in documents]
        if rows.append(device, sensor, documents) or rng.random() < 0.02:
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
        if rows.append(DEVICE, f"s-{number}", stored(*values, **more)):
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
    assert not rows.append(DEVICE, SENSOR, stored(1.0))
    now = parquet_rows.ROW_GROUP_SECONDS
    assert rows.append(DEVICE, SENSOR, stored(2.0, ts=TS + 1))
    assert len(rows.take_row_group()) > 50
    assert not rows.append(DEVICE, SENSOR, stored(3.0, ts=TS + 2))


def test_a_file_without_its_end_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "ROW_GROUP_ROWS", 1000)
    file = encoded(ParquetRows(), 5, *range(1000))
    assert table_of(file).num_rows == 5000
    for cut in (0, 4, len(file) // 2, len(file) - 8, len(file) - 1):
        with pytest.raises(Exception, match=r"(?i)parquet"):
            table_of(file[:cut])
