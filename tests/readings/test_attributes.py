"""Every optional field of a reading is in every place that has to know it; a failure names the place."""

import csv
import json
from typing import Any

import bson
import pytest

from reader.history.csv_lines import csv_lines
from reader.responses import AS_STORED, reading_answer
from readings.csv_row import CSV_COLUMNS, attribute_cell
from readings.encoder import ReadingEncoder
from readings.exported import ExportedReadingEncoder
from readings.http_schema import ReadingSent
from readings.reading import ATTRIBUTES, QUOTE, Reading, check_payload, decode_one, expected_quotes
from simulator.point import SentPoint
from tests.readings.cases import NOW, TYPED
from tests.readings.reference import DEVICE, OWNER, encode_one

# Two valid values of each attribute.
SAMPLES: dict[str, tuple[Any, Any]] = {
    "unit": ("celsius", "kelvin"),
    "location": ("roof", {"lat": 1.5, "lon": 2.5}),
    "tags": ({"room": "a12"}, {"room": "b", "floor": "1"}),
}


def raw(name: str = "", attribute: Any = None) -> bytes:
    return json.dumps({"value": 1.5, "ts": NOW, "seq": 1} | ({name: attribute} if name else {})).encode()


def test_every_attribute_has_samples_here() -> None:
    assert set(SAMPLES) == set(ATTRIBUTES), "add two valid values to SAMPLES"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_declared_checked_and_described(name: str) -> None:
    assert name in Reading.__struct_fields__, f"declare {name} in Reading"
    assert name in ReadingSent.__struct_encode_fields__, f"describe {name} in readings/http_schema.py"
    assert name in SentPoint.__struct_encode_fields__, f"{name} is missing in the simulator's SentPoint"
    for attribute in SAMPLES[name]:
        payload = decode_one(raw(name, attribute))
        marks = raw(name, attribute).count(QUOTE)
        assert expected_quotes(payload) == marks, f"count the quotation marks of {name} in expected_quotes"
        checked = check_payload(payload, TYPED, NOW)
        assert getattr(checked, name) == getattr(payload, name), f"check_payload drops {name}"


@pytest.mark.parametrize("encoder_type", [ReadingEncoder, ExportedReadingEncoder])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_encoder_tells_readings_apart_by_an_attribute(name: str, encoder_type: type[ReadingEncoder]) -> None:
    encoder = encoder_type(OWNER, DEVICE, TYPED)
    first, second = SAMPLES[name]
    items = [raw(), raw(name, first), raw(name, second), raw(), raw(name, first)]
    expected = [encode_one(item) for item in items]
    for _ in range(2):
        assert [encoder.encode_one(item, NOW) for item in items] == expected, f"compare {name} in encode_one"
        assert encoder.encode_many(b"[" + b",".join(items) + b"]", NOW).documents == expected, (
            f"compare {name} in _encode_batch"
        )


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_stored_returned_and_exported(name: str) -> None:
    for attribute in SAMPLES[name]:
        document = bson.decode(encode_one(raw(name, attribute)), AS_STORED)
        assert document[name] == attribute, f"{name} is missing in the document"
        assert reading_answer(document)[name] == attribute, f"{name} is missing in the reader's answer"
        line = csv_lines(DEVICE, "temperature")([document]).decode()
        (row,) = csv.reader([line])
        assert len(row) == len(CSV_COLUMNS)
        assert row[CSV_COLUMNS.index(name)] == attribute_cell(name, attribute), f"{name} is missing in CSV"


def test_attributes_are_the_last_columns_of_an_export() -> None:
    assert CSV_COLUMNS[-len(ATTRIBUTES) :] == ATTRIBUTES
    assert CSV_COLUMNS[:9] == ("device", "sensorType", "ts", "seq", "value", "receivedAt", "unit", "location", "tags")
