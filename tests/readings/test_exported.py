"""Readings in the form in which the reader exports them."""

import json
from typing import Any

import bson
import pytest
from bson import Int64
from hypothesis import assume, given
from hypothesis import strategies as st

from reader.history.ndjson_lines import ndjson_form
from readings.document import decode_document, encode_document
from readings.encoder import EncodedEvent, ReadingEncoder
from readings.exported import ExportedReadingEncoder
from readings.reading import GENERATED_SEQ_START, Defaults, Reading, ReadingError
from storage.codec.from_documents import columns_of
from tests.readings.cases import NOW, TYPED, defaults, few_series, good_readings, json_values, near_readings
from tests.readings.reference import DEVICE, OWNER, outcome, without_generated

RECEIVED = "2025-06-15T15:06:40.250Z"
EXPORTED = {"device": DEVICE, "sensorType": "temperature", "ts": NOW, "seq": 3, "value": 1.5, "receivedAt": RECEIVED}


def take(sent: Any, given_: Defaults = TYPED) -> dict[str, Any]:
    return decode_document(ExportedReadingEncoder(OWNER, DEVICE, given_).encode_one(json.dumps(sent).encode(), NOW))


def refusal(sent: Any) -> tuple[str, str]:
    with pytest.raises(ReadingError) as error:
        take(sent)
    return error.value.code, error.value.detail


@given(defaults, st.lists(few_series | good_readings | near_readings | json_values, max_size=6))
def test_what_devices_send_has_the_outcome_that_it_has_on_a_socket(given_: Defaults, event: Any) -> None:
    raw = json.dumps(event).encode()
    plain, ours = ReadingEncoder(OWNER, DEVICE, given_), ExportedReadingEncoder(OWNER, DEVICE, given_)
    found, expected = outcome(ours.encode_many, raw, NOW), outcome(plain.encode_many, raw, NOW)
    if isinstance(expected, EncodedEvent):  # else it is no JSON: NaN and Infinity
        found, expected = without_generated(found), without_generated(expected)
    assert found == expected


@given(st.lists(few_series | near_readings, min_size=1, max_size=6))
def test_next_to_an_exported_reading_the_others_have_the_same_outcome_as_without_it(event: Any) -> None:
    plain, ours = ReadingEncoder(OWNER, DEVICE, TYPED), ExportedReadingEncoder(OWNER, DEVICE, TYPED)
    expected = outcome(plain.encode_many, json.dumps(event).encode(), NOW)
    assume(isinstance(expected, EncodedEvent))  # else it is no JSON: NaN and Infinity
    expected = without_generated(expected)
    found = without_generated(ours.encode_many(json.dumps([*event, EXPORTED]).encode(), NOW))
    assert found.documents.pop() == ours.encode_one(json.dumps(EXPORTED).encode(), NOW)
    assert found == expected


@given(good_readings, st.integers(0, 2 * GENERATED_SEQ_START - 1))
def test_a_reading_that_was_stored_goes_out_and_comes_back_as_the_same_document(sent: dict[str, Any], seq: int) -> None:
    intake = ReadingEncoder(OWNER, DEVICE, TYPED)
    first = intake.encode_one(json.dumps({**sent, "ts": NOW, "seq": min(seq, GENERATED_SEQ_START - 1)}).encode(), NOW)
    stored = decode_document(first)
    stored["_id"]["seq"] = seq
    document = bson.encode({**stored, "_id": stored["_id"] | {"seq": Int64(seq)}})
    (line,) = ndjson_form(DEVICE, stored["_id"]["sensorType"]).lines(columns_of(document, 1))
    again = decode_document(ExportedReadingEncoder(OWNER, DEVICE, Defaults()).encode_one(line, NOW))
    assert repr(again) == repr(stored)


@pytest.mark.parametrize("seq", [GENERATED_SEQ_START, 2 * GENERATED_SEQ_START - 1])
def test_a_seq_that_a_gateway_has_drawn_is_taken_with_the_time_of_receipt_and_only_then(seq: int) -> None:
    assert take(EXPORTED | {"seq": seq})["_id"]["seq"] == seq
    without = EXPORTED | {"seq": seq}
    del without["receivedAt"]
    assert refusal(without)[0] == "invalid_field"
    assert refusal(EXPORTED | {"seq": 2 * GENERATED_SEQ_START})[0] == "invalid_field"


def test_the_time_of_receipt_is_checked_and_not_stored() -> None:
    assert int(take(EXPORTED)["receivedAt"]) == NOW
    assert int(take(EXPORTED | {"receivedAt": 1})["receivedAt"]) == NOW
    for wrong in ("yesterday", "2025-06-15T15:06:40.250", None, True, 1.5, 2**63, [RECEIVED]):
        code, detail = refusal(EXPORTED | {"receivedAt": wrong})
        assert (code, detail.split(":")[0].split()[0]) == ("invalid_field", "receivedAt")
    without = dict(EXPORTED)
    del without["ts"], without["seq"]
    assert refusal(without) == ("invalid_ts", "ts is required with receivedAt")


def test_a_reading_of_another_device_is_forbidden() -> None:
    for sent in (EXPORTED, {"device": DEVICE, "value": 1}):
        assert take(sent)["_id"]["device"] == DEVICE
        code, detail = refusal(sent | {"device": "other"})
        assert code == "forbidden"
        assert "'other'" in detail


def test_an_exported_reading_has_the_location_that_it_had_or_none() -> None:
    placed = Defaults("temperature", "roof")
    assert "location" not in take(EXPORTED, placed)
    assert take(EXPORTED | {"location": "hall"}, placed)["location"] == "hall"
    assert take({"device": DEVICE, "value": 1}, placed)["location"] == "roof"


@pytest.mark.parametrize("name", ["device", "receivedAt", "value"])
def test_a_name_that_occurs_twice_is_refused_alone(name: str) -> None:
    text = json.dumps(EXPORTED)
    twice = text[:-1] + f', "{name}": {json.dumps(EXPORTED[name])}}}'
    taken = ExportedReadingEncoder(OWNER, DEVICE, TYPED).encode_many(f"[{text},{twice},{text}]".encode(), NOW)
    assert [(found.index, found.code) for found in taken.rejected] == [(1, "invalid_reading")]
    assert len(taken.documents) == 2


def test_a_sensor_type_that_the_owner_may_not_name_is_forbidden() -> None:
    intake = ExportedReadingEncoder(OWNER, DEVICE, TYPED, lambda _: False)
    assert outcome(intake.encode_one, json.dumps(EXPORTED).encode(), NOW)[0] == "forbidden"


def test_an_exported_reading_is_encoded_as_any_other() -> None:
    raw = json.dumps(EXPORTED).encode()
    expected = encode_document(OWNER, DEVICE, Reading("temperature", 1.5, NOW, 3, NOW))
    intake = ExportedReadingEncoder(OWNER, DEVICE, TYPED)
    assert intake.encode_one(raw, NOW) == intake.encode_many(b"[" + raw + b"]", NOW).documents[0] == expected
