"""The schema of a reading, rule by rule: from JSON to the value that is stored, or to the code of the rejection.

Each case also goes through the encoder, which must have the same outcome.
"""

import json
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from readings.document import decode_document, encode_document
from readings.encoder import EncodedEvent, ReadingEncoder
from readings.place import Place
from readings.reading import (
    GENERATED_SEQ_START,
    MAX_AHEAD_MS,
    Defaults,
    Reading,
    ReadingError,
    check_one,
    parse_time,
    split_array,
)
from tests.readings.cases import (
    NOT_A_READING,
    NOT_TWICE,
    NOW,
    REFUSED,
    TAKEN,
    TWICE,
    TYPED,
    good_readings,
    json_values,
    near_readings,
    object_texts,
    shortened,
)
from tests.readings.reference import DEVICE, OWNER, outcome, without_generated


def check(raw: str | bytes, defaults: Defaults = TYPED, now_ms: int = NOW) -> Reading:
    """Check one reading; the encoder must give the same document, or the same error."""
    raw = raw.encode() if isinstance(raw, str) else raw
    encoded, checked = (
        outcome(call, raw, *arguments)
        for call, arguments in (
            (ReadingEncoder(OWNER, DEVICE, defaults).encode_one, (now_ms,)),
            (check_one, (defaults, now_ms)),
        )
    )
    if not isinstance(checked, Reading):
        assert encoded == checked
        raise ReadingError(*checked)
    expected = EncodedEvent([encode_document(OWNER, DEVICE, checked)], [])
    assert without_generated(EncodedEvent([encoded], [])) == without_generated(expected)
    return checked


def encode_many(raw: bytes) -> EncodedEvent:
    return ReadingEncoder(OWNER, DEVICE, TYPED).encode_many(raw, NOW)


def values_of(event: EncodedEvent) -> list[Any]:
    return [decode_document(document)["value"] for document in event.documents]


def with_field(field: str, text: str) -> str:
    if field == "value":
        return f'{{"value":{text}}}'
    base = f'{{"value":1,"ts":{NOW}' if field == "seq" else '{"value":1'
    return f'{base},"{field}":{text}}}'


def code_of(raw: str | bytes, defaults: Defaults = TYPED) -> str:
    with pytest.raises(ReadingError) as refused:
        check(raw, defaults)
    assert refused.value.detail
    return refused.value.code


@pytest.mark.parametrize(("field", "text", "expected"), TAKEN, ids=shortened)
def test_a_field_within_its_rule_is_taken_unchanged(field: str, text: str, expected: Any) -> None:
    reading = check(with_field(field, text))
    names = {"sensorType": "sensor_type", "ts": "ts_ms"}
    found = getattr(reading, names.get(field, field))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("field", "text", "code"), REFUSED, ids=shortened)
def test_a_field_beyond_its_rule_is_refused_with_its_code(field: str, text: str, code: str) -> None:
    assert code_of(with_field(field, text)) == code


@pytest.mark.parametrize("raw", NOT_A_READING, ids=shortened)
def test_what_is_no_json_object_is_an_invalid_reading(raw: str | bytes) -> None:
    assert code_of(raw) == "invalid_reading"


@pytest.mark.parametrize("raw", TWICE)
def test_a_name_that_occurs_twice_is_an_invalid_reading_and_its_neighbours_are_taken(raw: str) -> None:
    assert code_of(raw) == "invalid_reading"
    with pytest.raises(ReadingError, match="twice"):
        check(raw)
    event = encode_many(f'[{{"value":1}},{raw},{{"value":2}}]'.encode())
    assert values_of(event) == [1, 2]
    assert [(found.index, found.code) for found in event.rejected] == [(1, "invalid_reading")]


@pytest.mark.parametrize("raw", NOT_TWICE)
def test_quotation_marks_within_texts_are_no_names(raw: str) -> None:
    assert check(raw).value == json.loads(raw)["value"]


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"'])
def test_bytes_that_are_not_utf_8_are_refused(text: bytes) -> None:
    assert code_of(b'{"value":' + text + b"}") == "invalid_value"
    event = encode_many(b'[{"value":1},{"value":' + text + b"}]")
    assert [(found.index, found.code) for found in event.rejected] == [(1, "invalid_value")]


def test_value_is_required() -> None:
    assert code_of("{}") == "invalid_value"
    assert code_of('{"sensorType":"a","ts":1750000000000}') == "invalid_value"


def test_a_reading_without_optional_fields_has_none_of_them() -> None:
    reading = check('{"value":1}')
    assert (reading.location, reading.unit, reading.tags) == (None, None, None)
    assert reading.received_ms == NOW


def test_a_reading_without_ts_gets_the_time_of_receipt_and_a_generated_seq() -> None:
    readings = [check('{"value":1}') for _ in range(500)]
    assert {reading.ts_ms for reading in readings} == {NOW}
    assert all(GENERATED_SEQ_START <= reading.seq < 2**53 for reading in readings)
    assert len({reading.seq for reading in readings}) == 500


def test_a_reading_with_ts_and_no_seq_has_seq_zero() -> None:
    assert check(f'{{"value":1,"ts":{NOW}}}').seq == 0


@pytest.mark.parametrize("seq", ["0", "1", "-1", str(2**60)])
def test_seq_without_ts_is_an_invalid_ts(seq: str) -> None:
    assert code_of(f'{{"value":1,"seq":{seq}}}') == "invalid_ts"


def test_the_token_gives_sensor_type_and_location_to_a_reading_that_has_none() -> None:
    place = Place(1.0, 2.0)
    reading = check('{"value":1}', Defaults("humidity", place))
    assert (reading.sensor_type, reading.location) == ("humidity", place)


def test_a_reading_overrides_what_the_token_gives() -> None:
    reading = check('{"value":1,"sensorType":"a","location":""}', Defaults("humidity", "roof"))
    assert (reading.sensor_type, reading.location) == ("a", "")


def test_sensor_type_is_required_where_the_token_names_none() -> None:
    assert code_of('{"value":1}', Defaults()) == "invalid_field"
    assert check('{"value":1,"sensorType":"a"}', Defaults()).sensor_type == "a"


def test_the_bound_ahead_moves_with_the_clock() -> None:
    raw = f'{{"value":1,"ts":{NOW + MAX_AHEAD_MS + 5}}}'
    assert code_of(raw) == "invalid_ts"
    assert check(raw, now_ms=NOW + 5).ts_ms == NOW + MAX_AHEAD_MS + 5


# Many


def test_a_bad_reading_is_refused_with_its_index_and_the_good_ones_are_taken() -> None:
    raw = (
        b'[{"value":1},{"value":null},{"value":2,"x":1},{"value":3},7,{"value":4,"ts":"now"},'
        b'{"value":"a\\u0007"},{"value":5,"unit":1},{"value":6}]'
    )
    event = encode_many(raw)
    assert values_of(event) == [1, 3, 6]
    assert [(found.index, found.code) for found in event.rejected] == [
        (1, "invalid_value"),
        (2, "invalid_field"),
        (4, "invalid_reading"),
        (5, "invalid_ts"),
        (6, "invalid_value"),
        (7, "invalid_field"),
    ]


def test_a_bad_reading_that_decodes_is_refused_and_good_ones_are_taken() -> None:
    event = encode_many(b'[{"value":1},{"value":2,"ts":1},{"value":3}]')
    assert values_of(event) == [1, 3]
    assert [(found.index, found.code) for found in event.rejected] == [(1, "invalid_ts")]


@pytest.mark.parametrize("size", [0, 1, 1000, 1001])
def test_every_reading_of_a_batch_is_checked_and_counted(size: int) -> None:
    raw = b"[" + b",".join(b'{"value":%d}' % number for number in range(size)) + b"]"
    event = encode_many(raw)
    assert values_of(event) == list(range(size))
    assert not event.rejected
    assert len(split_array(raw)) == size


NOT_AN_ARRAY = [
    *(b"", b"{}", b'{"value":1}', b"null", b"1", b'"[]"', b"[", b"[1,]"),
    *(b'[{"value":NaN}]', b'[{"value":"\\ud800"}]', b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000),
]


@pytest.mark.parametrize("raw", NOT_AN_ARRAY, ids=shortened)
def test_what_is_no_array_is_refused_whole(raw: bytes) -> None:
    for call in (split_array, encode_many):
        with pytest.raises(ReadingError) as refused:
            call(raw)
        assert refused.value.code == "invalid_reading"


# Properties


def repeats_a_name(raw: str) -> bool:
    """Return whether a name occurs twice in an object of this JSON."""
    found = []
    json.loads(raw, object_pairs_hook=lambda pairs: found.append(len(pairs) > len(dict(pairs))))
    return any(found)


CODES = ("invalid_reading", "invalid_field", "invalid_value", "invalid_ts")


def codes_of(raw: bytes) -> tuple[str | None, str | None]:
    """The codes with which one reading is rejected, alone and in an array; None where it is accepted."""

    def code(call: Any, *arguments: Any) -> Any:
        try:
            found = call(*arguments)
        except ReadingError as error:
            return error.code
        return found.rejected[0].code if isinstance(found, EncodedEvent) and found.rejected else None

    return code(check, raw), code(encode_many, b"[" + raw + b"]")


@given(json_values | near_readings)
def test_any_json_value_is_a_reading_or_a_reading_error(value: Any) -> None:
    alone, among_others = codes_of(json.dumps(value).encode())  # NaN and Infinity included
    assert alone in (None, *CODES)
    assert alone == among_others


@given(object_texts)
def test_an_object_with_a_repeated_name_is_never_accepted(raw: str) -> None:
    alone, among_others = codes_of(raw.encode())
    assert alone == among_others
    if repeats_a_name(raw):
        assert alone is not None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reading_error(raw: bytes) -> None:
    alone, _ = codes_of(raw)
    assert alone in CODES


@given(good_readings)
def test_what_is_accepted_is_stored_as_it_was_sent(sent: dict[str, Any]) -> None:
    reading = check(json.dumps(sent))
    document = decode_document(encode_document("owner-1", "device-1", reading))
    assert next(iter(document)) == "_id"
    assert document.pop("_id") == {
        "owner": "owner-1",
        "device": "device-1",
        "sensorType": sent.get("sensorType", "temperature"),
        "ts": DatetimeMS(sent["ts"]),
        "seq": sent.get("seq", 0),
    }
    assert document.pop("receivedAt") == DatetimeMS(NOW)
    stored = document.pop("value")
    assert stored == sent["value"]
    # BSON's 64-bit integer is a class of its own, and an int.
    assert isinstance(stored, type(sent["value"]))
    assert isinstance(stored, bool) == isinstance(sent["value"], bool)
    assert document == {name: sent[name] for name in ("unit", "location", "tags", "quality") if name in sent}


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_is_read_to_the_millisecond(time: Any) -> None:
    text = time.isoformat(timespec="milliseconds")
    if time.utcoffset().seconds % 60 or ("+" not in text[19:] and "-" not in text[19:]):
        return  # an offset of seconds (before 1900), which RFC 3339 has no form for
    epoch = type(time).fromisoformat("1970-01-01T00:00:00+00:00")
    since = time.replace(microsecond=time.microsecond // 1000 * 1000) - epoch
    assert parse_time(text) == (since.days * 86400 + since.seconds) * 1000 + since.microseconds // 1000
