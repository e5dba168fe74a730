"""Every optional field of a reading is in every place that has to know it; a failure names the place."""

import argparse
import ast
import csv
import json
from pathlib import Path
from typing import Any

import bson
import msgspec
import pytest

from reader.history.arrow_arrays import PARQUET_COLUMNS
from reader.history.csv_lines import CSV_HEADER, csv_form
from reader.responses import AS_STORED, reading_object
from readings.csv_row import CSV_COLUMNS, attribute_cell
from readings.encoder import ReadingEncoder
from readings.exported import ExportedReadingEncoder
from readings.http_schema import ReadingSent
from readings.reading import ATTRIBUTES, QUOTE, Reading, check_payload, decode_one, expected_quotes
from simulator.reading import DeviceReading
from simulator.replay.file import Replay
from simulator.replay.options import add_replay_options, replay_of
from simulator.replay.readings import replay_readings
from storage.codec.from_documents import columns_of
from tests.readings.cases import NOW, TYPED
from tests.readings.reference import DEVICE, OWNER, encode_one

# Two valid values of each attribute.
SAMPLES: dict[str, tuple[Any, Any]] = {
    "unit": ("celsius", "kelvin"),
    "location": ("roof", {"lat": 1.5, "lon": 2.5}),
    "tags": ({"room": "a12"}, {"room": "b", "floor": "1"}),
    "quality": ("good", "bad"),
}
ROOT = Path(__file__).parent.parent.parent
DOCUMENTED = ["README.md", "docs/protocol.md", "docs/reading-mongodb.md", "docs/protocol/openapi.json"]
PRODUCTION = [
    "access",
    "auth",
    "broker",
    "gateway",
    "onebox",
    "persister",
    "reader",
    "readings",
    "runtime",
    "simulator",
]
# Help texts: without a line here an option's help has the field's name.
HELP = "simulator/replay/options.py"


def raw(**attributes: Any) -> bytes:
    return json.dumps({"value": 1.5, "ts": NOW, "seq": 1} | attributes).encode()


def test_every_attribute_has_samples_here() -> None:
    assert set(SAMPLES) == set(ATTRIBUTES), "add two valid values to SAMPLES"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_declared_checked_and_described(name: str) -> None:
    assert name in Reading.__struct_fields__, f"declare {name} in Reading"
    assert name in ReadingSent.__struct_encode_fields__, f"describe {name} in readings/http_schema.py"
    assert name in DeviceReading.__struct_encode_fields__, f"{name} is missing in the simulator's DeviceReading"
    for attribute in SAMPLES[name]:
        payload = decode_one(raw(**{name: attribute}))
        marks = raw(**{name: attribute}).count(QUOTE)
        assert expected_quotes(payload) == marks, f"count the quotation marks of {name} in expected_quotes"
        checked = check_payload(payload, TYPED, NOW)
        assert getattr(checked, name) == getattr(payload, name), f"check_payload drops {name}"


@pytest.mark.parametrize("encoder_type", [ReadingEncoder, ExportedReadingEncoder])
@pytest.mark.parametrize("other", ["", *ATTRIBUTES])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_encoder_tells_readings_apart_by_an_attribute(
    name: str, other: str, encoder_type: type[ReadingEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, and where a reading has another attribute, too: the encoder compares some in two places."""
    encoder = encoder_type(OWNER, DEVICE, TYPED)
    first, second = SAMPLES[name]
    more = {} if other in ("", name) else {other: SAMPLES[other][0]}
    without, one, two = raw(**more), raw(**more | {name: first}), raw(**more | {name: second})
    # Also without the reading that has fewer quotation marks, which alone would give the others away.
    events = ([without, one, two, without, one], [one, two, one])
    for items in events:
        expected = [encode_one(item) for item in items]
        for _ in range(2):
            assert [encoder.encode_one(item, NOW) for item in items] == expected, f"compare {name} in encode_one"
            assert encoder.encode_many(b"[" + b",".join(items) + b"]", NOW).documents == expected, (
                f"compare {name} in _encode_batch"
            )

    def slow(*_: Any) -> None:
        pytest.fail(f"compare {name} in each key of _encode_batch: a reading found no template, or that of another")

    monkeypatch.setattr(ReadingEncoder, "_encode_slow", slow)
    monkeypatch.setattr(ReadingEncoder, "_encode_each", slow)
    for items in events:
        encoder.encode_many(b"[" + b",".join(items) + b"]", NOW)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_stored_returned_and_exported(name: str) -> None:
    for attribute in SAMPLES[name]:
        stored = encode_one(raw(**{name: attribute}))
        document = bson.decode(stored, AS_STORED)
        assert document[name] == attribute, f"{name} is missing in the document"
        assert reading_object(document)[name] == attribute, f"{name} is missing in the reader's answer"
        (line,) = csv_form(DEVICE, "temperature").lines(columns_of(stored, 1))
        (row,) = csv.reader([line.decode()])
        assert len(row) == len(CSV_COLUMNS)
        assert row[CSV_COLUMNS.index(name)] == attribute_cell(name, attribute), f"{name} is missing in CSV"


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_is_replayed_from_an_export_and_from_a_column_of_any_name(name: str, tmp_path: Path) -> None:
    exported, plain = tmp_path / "export.csv", tmp_path / "plain.csv"
    parser = argparse.ArgumentParser()
    add_replay_options(parser)
    plain.touch()
    options = replay_of(parser, parser.parse_args(["--replay", str(plain), f"--{name}-column", "x"]))
    assert options is not None
    for attribute in SAMPLES[name]:
        columns = columns_of(encode_one(raw(**{name: attribute})), 1)
        exported.write_bytes(CSV_HEADER + b"".join(csv_form(DEVICE, "temperature").lines(columns)))
        with plain.open("w", newline="") as file:
            csv.writer(file).writerows([["timestamp", "value", "x"], [NOW, 1.5, attribute_cell(name, attribute)]])
        for replay in (Replay(exported), options):
            (reading,) = replay_readings(replay, "temperature")
            assert msgspec.to_builtins(reading).get(name) == attribute, f"the simulator does not replay {name}"


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize("file", DOCUMENTED)
def test_an_attribute_is_documented(name: str, file: str) -> None:
    text = (ROOT / file).read_text()
    is_named = (f'"{name}": {{' if file.endswith(".json") else f"`{name}`") in text
    assert is_named, f"{file} does not name {name} (`make openapi` writes openapi.json)"


def test_the_newest_attribute_is_named_in_at_most_three_files() -> None:
    """What needs more is to be derived from `Attributes` first."""
    naming = {
        str(file.relative_to(ROOT))
        for package in PRODUCTION
        for file in (ROOT / package).rglob("*.py")
        if ATTRIBUTES[-1] in _names_in(file)
    }
    naming.discard(HELP)
    assert len(naming) <= 3, f"derive {ATTRIBUTES[-1]} from Attributes: it is named in {sorted(naming)}"


def _names_in(file: Path) -> set[str]:
    """Return the names, attributes and texts in a file's code."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                found.add(name)
            case ast.Constant(value=str(name)):
                found.add(name)
    return found


def test_attributes_are_the_last_columns_of_an_export() -> None:
    assert CSV_COLUMNS[-len(ATTRIBUTES) :] == PARQUET_COLUMNS[-len(ATTRIBUTES) :] == ATTRIBUTES
    assert CSV_COLUMNS[:9] == ("device", "sensorType", "ts", "seq", "value", "receivedAt", "unit", "location", "tags")
