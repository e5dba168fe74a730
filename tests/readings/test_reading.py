"""DESIGN's section "A reading", line by line: from JSON to the value that is stored, or to the code of the refusal."""

import json
import string
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from readings.document import decode_document, encode_document
from readings.place import Place
from readings.reading import (
    EARLIEST_MS,
    GENERATED_SEQ_START,
    MAX_AHEAD_MS,
    Checked,
    Defaults,
    Reading,
    ReadingError,
    check_many,
    check_one,
    count,
    parse_time,
)

NOW = 1_750_000_000_000  # 2025-06-15T15:06:40Z
TYPED = Defaults("temperature")
FACE = "\U0001f600"  # one code point, two UTF-16 units, four bytes
ID_ALPHABET = string.ascii_letters + string.digits + "_.:-"
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]


def check(raw: str | bytes, defaults: Defaults = TYPED, now_ms: int = NOW) -> Reading:
    return check_one(raw.encode() if isinstance(raw, str) else raw, defaults, now_ms)


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


TAKEN: list[tuple[str, str, Any]] = [
    ("sensorType", '"a"', "a"),
    ("sensorType", json.dumps("a" * 64), "a" * 64),
    ("sensorType", json.dumps(ID_ALPHABET[:64]), ID_ALPHABET[:64]),
    ("sensorType", '"_.:-"', "_.:-"),
    ("value", "0", 0),
    ("value", "-0.5", -0.5),
    ("value", "1.0", 1.0),
    ("value", "1e308", 1e308),
    ("value", "1e30", 1e30),
    ("value", "true", True),
    ("value", "false", False),
    ("value", str(2**63 - 1), 2**63 - 1),
    ("value", str(-(2**63)), -(2**63)),
    ("value", '""', ""),
    ("value", json.dumps("a" * 256), "a" * 256),
    ("value", json.dumps(FACE * 256), FACE * 256),
    ("value", json.dumps("é~\u00a0"), "é~\u00a0"),
    ("value", '"\\u00e9"', "é"),
    ("ts", str(EARLIEST_MS), EARLIEST_MS),
    ("ts", str(NOW + MAX_AHEAD_MS), NOW + MAX_AHEAD_MS),
    ("ts", '"2000-01-01T00:00:00Z"', EARLIEST_MS),
    ("ts", '"2025-06-16T15:06:40Z"', NOW + MAX_AHEAD_MS),
    ("ts", '"2025-06-15T15:06:40Z"', NOW),
    ("ts", '"2025-06-15t15:06:40z"', NOW),
    ("ts", '"2025-06-15T15:06:40.1Z"', NOW + 100),
    ("ts", '"2025-06-15T15:06:40.12Z"', NOW + 120),
    ("ts", '"2025-06-15T15:06:40.123Z"', NOW + 123),
    ("ts", '"2025-06-15T17:06:40+02:00"', NOW),
    ("ts", '"2025-06-15T09:36:40-05:30"', NOW),
    ("ts", '"2025-06-15T15:06:40-00:00"', NOW),
    ("ts", '"2024-02-29T00:00:00Z"', 1_709_164_800_000),
    # A leap second is the beginning of the next, wherever its clock hangs (RFC 3339, 5.7).
    ("ts", '"2016-12-31T23:59:60Z"', 1_483_228_800_000),
    ("ts", '"2016-12-31t23:59:60.999z"', 1_483_228_800_000),
    ("ts", '"2017-01-01T00:59:60+01:00"', 1_483_228_800_000),
    ("ts", '"2017-01-01T05:29:60.5+05:30"', 1_483_228_800_000),
    ("ts", '"2016-12-31T15:59:60.5-08:00"', 1_483_228_800_000),
    ("ts", '"2015-06-30T23:59:60Z"', 1_435_708_800_000),
    ("ts", '"2024-02-29T23:59:60Z"', 1_709_251_200_000),
    ("seq", "0", 0),
    ("seq", str(2**52 - 1), 2**52 - 1),
    ("location", '""', ""),
    ("location", json.dumps(FACE * 256), FACE * 256),
    ("location", '{"lat":1.5,"lon":-2}', Place(1.5, -2.0)),
    ("location", '{"lat":90,"lon":180,"alt":-3}', Place(90.0, 180.0, -3.0)),
    ("location", '{"lat":-90,"lon":-180}', Place(-90.0, -180.0)),
    ("unit", '""', ""),
    ("unit", json.dumps(FACE * 32), FACE * 32),
    ("tags", "{}", {}),
    ("tags", '{"a":""}', {"a": ""}),
    ("tags", json.dumps({"k" * 64: FACE * 256}), {"k" * 64: FACE * 256}),
    ("tags", json.dumps({f"k{n}": "v" for n in range(16)}), {f"k{n}": "v" for n in range(16)}),
]

REFUSED: list[tuple[str, str, str]] = [
    *(("sensorType", text, "invalid_field") for text in ('""', json.dumps("a" * 65), '"a b"', '"é"', '"a\\n"', "1")),
    *(("sensorType", text, "invalid_field") for text in ("null", "[]", '"a/b"', '"$a"', '"a\\u0000"')),
    *(("value", text, "invalid_value") for text in ("null", "[]", "{}", "[1]", "1e999", "-1e999")),
    *(("value", str(number), "invalid_value") for number in (2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**400)),
    *(("value", sign + "9" * 5000, "invalid_value") for sign in ("", "-")),
    ("value", json.dumps("a" * 257), "invalid_value"),
    ("value", json.dumps(FACE * 257), "invalid_value"),
    *(("value", json.dumps("a" + control), "invalid_value") for control in CONTROLS),
    *(("ts", str(number), "invalid_ts") for number in (EARLIEST_MS - 1, NOW + MAX_AHEAD_MS + 1, -1, 0, 2**63, 2**64)),
    *(("ts", text, "invalid_ts") for text in ("9" * 5000, "1e999", "1.75e12", f"{NOW}.0", f"{NOW}.5", "true", "null")),
    *(("ts", text, "invalid_ts") for text in (f'"{NOW}"', '""', "[]", "{}", '"now"', '"2025-06-15"')),
    *(
        ("ts", json.dumps(text), "invalid_ts")
        for text in (
            "1999-12-31T23:59:59.999Z",
            "2025-06-16T15:06:40.001Z",
            "2025-06-15T15:06:40",  # without a zone
            "2025-06-15T15:06:40.1234Z",  # a fourth decimal
            "2025-06-15T15:06:40.Z",
            "2025-06-15T15:06:40,1Z",
            "2025-06-15 15:06:40Z",
            "2025-06-15T15:06Z",
            "20250615T150640Z",
            "2025-06-15T15:06:40+0200",
            "2025-06-15T15:06:40+02",
            "2025-06-15T15:06:40+24:00",
            "2025-06-15T15:06:40+01:60",
            "2025-06-15T24:00:00Z",
            "2025-06-15T15:06:60Z",
            "2025-05-31T23:58:60Z",
            "2025-05-31T22:59:60Z",
            "2025-05-30T23:59:60Z",
            "2024-02-28T23:59:60Z",
            "2025-05-31T23:59:61Z",
            "2016-12-31T23:59:60+01:00",
            "2017-01-01T00:59:60Z",
            "2017-01-01T00:29:60+01:00",
            "2017-01-01T01:00:60+01:00",
            "2025-02-29T23:59:60Z",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:60-01:00",
            "0001-01-01T00:59:60+01:00",
            "2025-06-15T15:60:00Z",
            "2025-06-31T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2025-00-10T00:00:00Z",
            "2025-W24-7T00:00:00Z",
            " 2025-06-15T15:06:40Z",
            "2025-06-15T15:06:40Z\n",
            "٢٠٢٥-06-15T15:06:40Z",  # digits, but not ASCII
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-23:59",
        )
    ),
    *(("seq", text, "invalid_field") for text in ("-1", str(2**52), str(2**64), "9" * 5000, "1.0", "1.5", "1e999")),
    *(("seq", text, "invalid_field") for text in ("true", '"1"', "null", "[]")),
    *(("location", text, "invalid_field") for text in (json.dumps("a" * 257), "1", "null", "[]", "true", "{}")),
    *(
        ("location", text, "invalid_field")
        for text in (
            '{"lat":1}',
            '{"lon":1}',
            '{"lat":90.1,"lon":0}',
            '{"lat":-90.1,"lon":0}',
            '{"lat":0,"lon":180.1}',
            '{"lat":0,"lon":-180.1}',
            '{"lat":"1","lon":1}',
            '{"lat":1,"lon":1,"alt":"1"}',
            '{"lat":1,"lon":1,"alt":1e999}',
            '{"lat":1,"lon":1,"name":"roof"}',
            '{"lat":1,"lon":%s}' % ("9" * 5000),
        )
    ),
    *(("unit", text, "invalid_field") for text in (json.dumps("a" * 33), json.dumps(FACE * 33), "1", "null", "[]")),
    *(("tags", text, "invalid_field") for text in ("null", "[]", '"a"', '{"a":1}', '{"a":null}', '{"a":{}}')),
    *(("tags", json.dumps(tags), "invalid_field") for tags in ({"": "v"}, {"a b": "v"}, {"$a": "v"}, {"k" * 65: "v"})),
    ("tags", json.dumps({"a\0": "v"}), "invalid_field"),
    ("tags", json.dumps({"k": "v" * 257}), "invalid_field"),
    ("tags", json.dumps({f"k{n}": "v" for n in range(17)}), "invalid_field"),
    *(("unit", json.dumps("a" + control), "invalid_field") for control in CONTROLS),
    *(("location", json.dumps("a" + control), "invalid_field") for control in CONTROLS),
    *(("tags", json.dumps({"k": control + "a"}), "invalid_field") for control in CONTROLS),
    *((name, "1", "invalid_field") for name in ("unknown", "owner", "device", "receivedAt", "sensor_type", "_id", "")),
]

NOT_A_READING = [
    "",
    "null",
    "1",
    '"text"',
    "[]",
    '[{"value":1}]',
    '{"value":1',
    '{"value":1}x',
    '{"value":01}',
    "{'value':1}",
    '{"value":NaN}',
    '{"value":Infinity}',
    '{"value":-Infinity}',
    '{"value":"\\ud800"}',
    '{"value":1,"tags":{"\\udfff":"v"}}',
    '{"value":1,"tags":{"a":"\\ud800"}}',
    '{"value":1,"unit":"\n"}',
    b'{"\xff":1}',
    b"\xff",
    '{"value":' + "[" * 100_000,
    '{"value":' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"x":' * 100_000,
    "[" * 100_000,
]


# A name twice in one object. As few quotation marks as can be more, and hidden among those of texts.
TWICE = [
    '{"value":1,"value":2}',
    '{"value":1,"value":1}',
    '{ "value" : 1 , "value" : 2 }',
    '{"value":1,"v\\u0061lue":2}',
    '{"value":"a","value":1}',
    '{"value":1,"value":"a"}',
    '{"value":"\\"","value":"\\u0022"}',
    '{"value":"\\\\","value":1}',
    '{"value":null,"value":1}',
    '{"value":1,"value":null}',
    f'{{"value":1.5,"ts":1,"ts":{NOW}}}',
    f'{{"value":1.5,"ts":{NOW},"ts":{NOW}}}',
    f'{{"value":1.5,"ts":"{NOW}","ts":{NOW}}}',
    f'{{"value":1.5,"ts":{NOW},"seq":1,"seq":2}}',
    f'{{"value":1.5,"ts":{NOW},"seq":"1","seq":2}}',
    '{"value":1,"unit":"C","unit":"C"}',
    '{"value":1,"sensorType":"a","sensorType":"b"}',
    '{"value":1,"location":"a","location":{"lat":1,"lon":2}}',
    '{"value":1,"location":{"lat":1,"lon":2,"lat":1}}',
    '{"value":1,"location":{"lat":1,"lon":2,"alt":null,"alt":3}}',
    '{"value":1,"tags":{"a":"b","a":"b"}}',
    '{"value":1,"tags":{"a":"b"},"tags":{}}',
]

# As many quotation marks, or names that only look alike, and nothing twice.
NOT_TWICE = [
    '{"value":"\\"value\\":1"}',
    '{"value":"\\\\","unit":"\\""}',
    '{"value":1,"unit":"\\u00b0C"}',
    '{"value":1,"tags":{"value":"value","a":"\\"","A":"\\""}}',
    '{"value":1,"location":{"lat":1,"lon":2,"alt":null}}',
    '{ "value" :\n1 , "tags" : { "unit" : "unit" } , "unit" : "unit" }',
]


def shortened(value: Any) -> str:
    return repr(value)[:60]


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
def test_a_name_that_stands_twice_is_an_invalid_reading_and_its_neighbours_are_taken(raw: str) -> None:
    assert code_of(raw) == "invalid_reading"
    with pytest.raises(ReadingError, match="twice"):
        check(raw)
    checked = check_many(f'[{{"value":1}},{raw},{{"value":2}}]'.encode(), TYPED, NOW)
    assert [reading.value for reading in checked.readings] == [1, 2]
    assert [(found.index, found.code) for found in checked.rejected] == [(1, "invalid_reading")]


@pytest.mark.parametrize("raw", NOT_TWICE)
def test_quotation_marks_within_texts_are_no_names(raw: str) -> None:
    assert check(raw).value == json.loads(raw)["value"]


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3"'])
def test_bytes_that_are_not_utf_8_are_refused(text: bytes) -> None:
    assert code_of(b'{"value":' + text + b"}") == "invalid_value"
    checked = check_many(b'[{"value":1},{"value":' + text + b"}]", TYPED, NOW)
    assert [(found.index, found.code) for found in checked.rejected] == [(1, "invalid_value")]


def test_value_is_required() -> None:
    assert code_of("{}") == "invalid_value"
    assert code_of('{"sensorType":"a","ts":1750000000000}') == "invalid_value"


def test_a_reading_without_optional_fields_has_none_of_them() -> None:
    reading = check('{"value":1}')
    assert (reading.location, reading.unit, reading.tags) == (None, None, None)
    assert reading.received_ms == NOW


def test_a_reading_without_ts_gets_the_time_of_receipt_and_a_drawn_seq() -> None:
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


def test_a_bad_reading_is_refused_with_its_index_and_the_good_ones_beside_it_are_taken() -> None:
    raw = (
        b'[{"value":1},{"value":null},{"value":2,"x":1},{"value":3},7,{"value":4,"ts":"now"},'
        b'{"value":"a\\u0007"},{"value":5,"unit":1},{"value":6}]'
    )
    checked = check_many(raw, TYPED, NOW)
    assert [reading.value for reading in checked.readings] == [1, 3, 6]
    assert [(found.index, found.code) for found in checked.rejected] == [
        (1, "invalid_value"),
        (2, "invalid_field"),
        (4, "invalid_reading"),
        (5, "invalid_ts"),
        (6, "invalid_value"),
        (7, "invalid_field"),
    ]


def test_a_bad_reading_that_decodes_is_refused_beside_good_ones() -> None:
    checked = check_many(b'[{"value":1},{"value":2,"ts":1},{"value":3}]', TYPED, NOW)
    assert [reading.value for reading in checked.readings] == [1, 3]
    assert [(found.index, found.code) for found in checked.rejected] == [(1, "invalid_ts")]


@pytest.mark.parametrize("size", [0, 1, 1000, 1001])
def test_every_reading_of_a_batch_is_checked_and_counted(size: int) -> None:
    raw = b"[" + b",".join(b'{"value":%d}' % number for number in range(size)) + b"]"
    checked = check_many(raw, TYPED, NOW)
    assert [reading.value for reading in checked.readings] == list(range(size))
    assert not checked.rejected
    assert count(raw) == size


NOT_AN_ARRAY = [
    *(b"", b"{}", b'{"value":1}', b"null", b"1", b'"[]"', b"[", b"[1,]"),
    *(b'[{"value":NaN}]', b'[{"value":"\\ud800"}]', b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000),
]


@pytest.mark.parametrize("raw", NOT_AN_ARRAY, ids=shortened)
def test_what_is_no_array_is_refused_whole(raw: bytes) -> None:
    for call in (count, lambda raw: check_many(raw, TYPED, NOW)):
        with pytest.raises(ReadingError) as refused:
            call(raw)
        assert refused.value.code == "invalid_reading"


# Properties

json_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_numbers = st.one_of(st.integers(), st.integers(-(2**65), 2**65), st.floats())
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), json_numbers, json_texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_texts, inner, max_size=4),
    max_leaves=8,
)
field_names = st.sampled_from(["sensorType", "value", "ts", "seq", "location", "unit", "tags", "x"])
near_readings = st.dictionaries(field_names, json_values, max_size=8)

ids = st.text(ID_ALPHABET, min_size=1, max_size=64)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=256)
places = st.builds(
    lambda lat, lon, alt: {"lat": lat, "lon": lon} | ({} if alt is None else {"alt": alt}),
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=256),
)
good_readings = st.fixed_dictionaries(
    {"value": values, "ts": st.integers(EARLIEST_MS, NOW + MAX_AHEAD_MS)},
    optional={
        "sensorType": ids,
        "seq": st.integers(0, 2**52 - 1),
        "location": texts | places,
        "unit": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=32),
        "tags": st.dictionaries(ids, texts, max_size=16),
    },
)


# Objects as text, whose names may stand twice: few names, values that fit and values that do not.
_said = st.one_of(
    st.sampled_from(["1", "1.5", str(NOW), '"C"', '"\\""', '"\\\\"', '"\\u0022"', '"a\u00b0"', '""', "null", "true"]),
    st.sampled_from(['{"lat":1,"lon":2}', '{"lat":1,"lon":2,"alt":null}', '{"lat":1,"lat":1,"lon":2}']),
    st.sampled_from(['{"a":"b"}', '{"a":"b","a":"\\""}', "{}"]),
)
_name_texts = st.sampled_from(
    ['"value"', '"value"', '"ts"', '"seq"', '"unit"', '"location"', '"tags"', '"v\\u0061lue"']
)
object_texts = st.lists(st.tuples(_name_texts, st.sampled_from([":", " : "]), _said), max_size=6).map(
    lambda pairs: "{" + ",".join(map("".join, pairs)) + "}"
)


def says_twice(raw: str) -> bool:
    """Whether a name stands twice in an object of this JSON."""
    found = []
    json.loads(raw, object_pairs_hook=lambda pairs: found.append(len(pairs) > len(dict(pairs))))
    return any(found)


CODES = ("invalid_reading", "invalid_field", "invalid_value", "invalid_ts")


def outcome(raw: bytes) -> tuple[str | None, str | None]:
    """The codes with which one reading is refused, alone and in an array; None where it is taken."""

    def code(check: Any, raw: bytes) -> Any:
        try:
            found = check(raw, TYPED, NOW)
        except ReadingError as error:
            return error.code
        return found.rejected[0].code if isinstance(found, Checked) and found.rejected else None

    return code(check_one, raw), code(check_many, b"[" + raw + b"]")


@given(json_values | near_readings)
def test_any_json_value_is_a_reading_or_a_reading_error(value: Any) -> None:
    alone, among_others = outcome(json.dumps(value).encode())  # NaN and Infinity included
    assert alone in (None, *CODES)
    assert alone == among_others


@given(object_texts)
def test_of_whatever_object_no_name_is_taken_twice(raw: str) -> None:
    alone, among_others = outcome(raw.encode())
    assert alone == among_others
    if says_twice(raw):
        assert alone is not None


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reading_error(raw: bytes) -> None:
    alone, _ = outcome(raw)
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
    assert document == {name: sent[name] for name in ("unit", "location", "tags") if name in sent}


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_is_read_to_the_millisecond(time: Any) -> None:
    text = time.isoformat(timespec="milliseconds")
    if time.utcoffset().seconds % 60 or ("+" not in text[19:] and "-" not in text[19:]):
        return  # an offset of seconds (before 1900), which RFC 3339 has no form for
    epoch = type(time).fromisoformat("1970-01-01T00:00:00+00:00")
    since = time.replace(microsecond=time.microsecond // 1000 * 1000) - epoch
    assert parse_time(text) == (since.days * 86400 + since.seconds) * 1000 + since.microseconds // 1000
