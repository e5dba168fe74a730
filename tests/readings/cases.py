"""Readings that are accepted, rejected or malformed, and strategies that draw such readings."""

import json
import string
import struct
from typing import Any

from hypothesis import strategies as st

from readings.place import Place
from readings.reading import EARLIEST_MS, MAX_AHEAD_MS, Defaults

NOW = 1_750_000_000_000  # 2025-06-15T15:06:40Z
TYPED = Defaults("temperature")
FACE = "\U0001f600"  # one code point, two UTF-16 units, four bytes
ID_ALPHABET = string.ascii_letters + string.digits + "_.:-"
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]


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
    *(("quality", json.dumps(word), word) for word in ("good", "uncertain", "bad")),
    ("quality", '"\\u0067ood"', "good"),
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
    *(("quality", json.dumps(word), "invalid_field") for word in ("", "Good", "good ", "great", "good\0", "GOOD", "0")),
    *(("quality", text, "invalid_field") for text in ("null", "1", "0.5", "true", "[]", '["good"]', "{}")),
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


# A name twice in one object, with few additional quotation marks, or hidden among those of texts.
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
    '{"value":1,"quality":"good","quality":"good"}',
    '{"value":1,"quality":"good","quality":"bad"}',
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


# Strategies

json_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_numbers = st.one_of(st.integers(), st.integers(-(2**65), 2**65), st.floats())
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), json_numbers, json_texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_texts, inner, max_size=4),
    max_leaves=8,
)
field_names = st.sampled_from(["sensorType", "value", "ts", "seq", "location", "unit", "tags", "quality", "x"])
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
        "quality": st.sampled_from(["good", "uncertain", "bad"]),
    },
)


# Objects as text, whose names may occur twice: few names, values that fit and values that do not.
_said = st.one_of(
    st.sampled_from(["1", "1.5", str(NOW), '"C"', '"\\""', '"\\\\"', '"\\u0022"', '"a\u00b0"', '""', "null", "true"]),
    st.sampled_from(['{"lat":1,"lon":2}', '{"lat":1,"lon":2,"alt":null}', '{"lat":1,"lat":1,"lon":2}']),
    st.sampled_from(['{"a":"b"}', '{"a":"b","a":"\\""}', "{}", '"good"', '"b\\u0061d"']),
)
_name_texts = st.sampled_from(
    ['"value"', '"value"', '"ts"', '"seq"', '"unit"', '"location"', '"tags"', '"quality"', '"v\\u0061lue"']
)
object_texts = st.lists(st.tuples(_name_texts, st.sampled_from([":", " : "]), _said), max_size=6).map(
    lambda pairs: "{" + ",".join(map("".join, pairs)) + "}"
)


defaults = st.sampled_from(
    [TYPED, Defaults(), Defaults("temperature", "roof"), Defaults("temperature", Place(1.0, 2.0, 3.0))]
)
# A few series, so that a session meets each more than once and templates come into use.
few_series = st.fixed_dictionaries(
    {"value": values},
    optional={
        "sensorType": st.sampled_from(["temperature", "humidity", "", "ä"]),
        "ts": st.one_of(st.integers(NOW, NOW + 9), st.sampled_from([0, "2025-06-15T15:06:40.5Z", "now", 2**63])),
        "seq": st.sampled_from([0, 1, -1, 2**52 - 1, 2**52, 2**64]),
        "unit": st.sampled_from(["°C", "%", "", "a\0b", "x" * 33]),
        "location": st.sampled_from(["", "here"]) | places,
        "tags": st.sampled_from([{}, {"room": "a"}, {"": "a"}]),
        "quality": st.sampled_from(["good", "uncertain", "bad", "great", "", 1, None]),
    },
)


def closed(raw: bytes) -> bytes:
    """Return the bytes with the length and last byte of a document, so that it is split off, whatever it contains."""
    document = bytearray(raw)
    struct.pack_into("<i", document, 0, len(document))
    document[-1] = 0
    return bytes(document)
