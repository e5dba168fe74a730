"""SenML packs by the rules of RFC 8428, the same in JSON and in CBOR."""

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readings.encodings.senml import decode_cbor, decode_json
from readings.encodings.sent import BodyRefused
from readings.reading import EARLIEST_MS, GENERATED_SEQ_START, MAX_AHEAD_MS, ReadingError
from tests.readings.cases import FACE, NOW
from tests.readings.encodings.packs import cbor, packed, stored, taken

Pack = list[dict[str, Any]]
NOW_S = NOW // 1000
BOTH = pytest.mark.parametrize(
    "in_form",
    [lambda pack: (decode_json, json.dumps(pack).encode()), lambda pack: (decode_cbor, packed(pack))],
    ids=["JSON", "CBOR"],
)
InForm = Callable[[Pack], tuple[Any, bytes]]


# Names, units, values


@BOTH
def test_base_fields_last_until_they_are_replaced(in_form: InForm) -> None:
    pack = [
        {"bn": "boiler:", "bu": "Cel", "bt": NOW_S, "n": "flow", "v": 61},
        {"n": "return", "v": 48, "t": 1},
        {"n": "valve", "u": "%", "v": 70},
        {"bn": "tank:", "n": "top", "v": 55},
        {"bu": "K", "bt": NOW_S - 60, "n": "top", "v": 328},
        {"n": "low", "v": 300, "t": 5},
    ]
    documents, rejected = taken(*in_form(pack))
    assert rejected == []
    assert [
        (one["_id"]["sensorType"], one["value"], one["unit"], (int(one["_id"]["ts"]) - NOW) // 1000)
        for one in documents
    ] == [
        ("boiler:flow", 61, "Cel", 0),
        ("boiler:return", 48, "Cel", 1),
        ("boiler:valve", 70, "%", 0),
        ("tank:top", 55, "Cel", 0),
        ("tank:top", 328, "K", -60),
        ("tank:low", 300, "K", -55),
    ]


@BOTH
def test_a_base_value_is_added_exactly_and_stands_in_for_a_missing_value(in_form: InForm) -> None:
    pack: Pack = [
        {"bn": "a", "bt": NOW_S, "bv": 20.1, "v": 0.2},
        {"t": 1},
        {"t": 2, "v": -1},
        {"bv": 5, "t": 3, "v": 2},
    ]
    assert [row[1] for row in stored(*in_form(pack))] == [20.3, 20.1, 19.1, 7]
    # A record of base fields alone measures nothing.
    documents, rejected = taken(*in_form([{"bn": "a", "bt": NOW_S, "bv": 1}, {"v": 1}]))
    assert ([one["value"] for one in documents], rejected) == ([2], [(0, "invalid_value")])
    # It is a number, and says nothing of values of other kinds.
    pack = [{"bn": "a", "bt": NOW_S, "bv": 1, "n": "x", "vb": True}, {"n": "y", "vs": "on"}]
    assert [row[1] for row in stored(*in_form(pack))] == [True, "on"]


@BOTH
def test_values_keep_their_kind(in_form: InForm) -> None:
    values: Pack = [{"v": 7}, {"v": 7.0}, {"v": -0.5}, {"v": 2**63 - 1}, {"vb": False}, {"vs": FACE * 256}, {"vs": ""}]
    found = [row[1] for row in stored(*in_form([{"bn": f"s{n}", **value} for n, value in enumerate(values)]))]
    assert found == [7, 7.0, -0.5, 2**63 - 1, False, FACE * 256, ""]
    kinds: list[type] = [int, float, float, int, bool, str, str]
    assert [isinstance(value, kind) for value, kind in zip(found, kinds, strict=True)] == [True] * 7


def test_data_is_stored_as_its_text_in_base64url() -> None:
    assert [row[1] for row in stored(decode_cbor, packed([{"n": "a", "vd": b"\xfb\xff\xfe\x00"}]))] == ["-__-AA"]
    assert [row[1] for row in stored(decode_json, b'[{"n":"a","vd":"-__-AA"},{"n":"b","vd":""}]')] == ["-__-AA", ""]
    for text in ("-__-AA==", "+//+", "a", "a b"):
        assert taken(decode_json, json.dumps([{"n": "a", "vd": text}]).encode()) == ([], [(0, "invalid_value")])


def test_data_is_bytes_in_cbor_and_text_in_json() -> None:
    """Its text in base64url would be stored as other data than the bytes that it stands for (RFC 8428, 6)."""
    assert taken(decode_cbor, cbor([{0: "a", 8: "AAAA"}, {0: "a", 8: b"\0\0\0"}]))[1] == [(0, "invalid_value")]


def test_a_decimal_fraction_of_cbor_is_its_decimal() -> None:
    pack = [{"n": "a", "t": Decimal("1750000000.000000250"), "v": Decimal("21.30")}]
    assert stored(decode_cbor, packed(pack)) == [("a", 21.3, NOW, 250)]


@pytest.mark.parametrize(
    ("base", "name", "sensor_type"),
    [
        ("", "a", "a"),
        ("a", None, "a"),
        ("urn:dev:mac:0024befffe804ff1:", "temp", "urn:dev:mac:0024befffe804ff1:temp"),
        ("", "3303/0/5700", "3303_0_5700"),
        ("0", "/-:._", "0_-:._"),
        ("a" * 40, "b" * 24, "a" * 40 + "b" * 24),
    ],
)
@BOTH
def test_base_name_and_name_are_one_name(in_form: InForm, base: str, name: str | None, sensor_type: str) -> None:
    record = {"bn": base, "v": 1} if name is None else {"bn": base, "n": name, "v": 1}
    assert stored(*in_form([record]))[0][0] == sensor_type


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("", ""),
        ("", "/a"),
        ("_", "a"),
        ("-", "a"),
        ("a", " b"),
        ("a", "é"),
        ("a", "b\n"),
        ("a\x00", ""),
        ("a" * 40, "b" * 25),
    ],
)
@BOTH
def test_a_name_that_the_rfc_or_the_alphabet_refuses_rejects_its_record(in_form: InForm, base: str, name: str) -> None:
    pack = [{"bn": base, "n": name, "v": 1}, {"bn": "", "n": "good", "v": 2}]
    documents, rejected = taken(*in_form(pack))
    assert ([one["value"] for one in documents], rejected) == ([2], [(0, "invalid_field")])


# Times


def text_of(ns: int, places: int = 9) -> str:
    """Return nanoseconds as seconds, in decimals."""
    return f"{ns // 10**9}.{ns % 10**9:09d}"[: 11 + places]


@pytest.mark.parametrize(
    ("base", "time", "ns"),
    [
        ("1750000000", "0.125", NOW * 10**6 + 125_000_000),
        ("1750000000.000000001", "0", NOW * 10**6 + 1),
        ("0", "1750000000.123456789", NOW * 10**6 + 123_456_789),
        ("1750000000.5", "-0.499999999", NOW * 10**6 + 1),
        ("1.75e9", "1E-9", NOW * 10**6 + 1),
        ("1750000000.1", "0.2", NOW * 10**6 + 300_000_000),
        ("0", "1750000000.0000000005", NOW * 10**6),  # half of a nanosecond, to the even one
        ("0", "1750000000.0000000015", NOW * 10**6 + 2),
        ("0", "1750000000." + "0" * 380 + "1", NOW * 10**6),
        ("268435456", "1481564544", NOW * 10**6),
    ],
)
def test_a_time_keeps_its_nanoseconds_as_millisecond_and_seq(base: str, time: str, ns: int) -> None:
    body = f'[{{"bn":"a","bt":{base},"t":{time},"v":1}}]'.encode()
    assert stored(decode_json, body) == [("a", 1, ns // 10**6, ns % 10**6)]


def test_a_float_of_cbor_is_the_decimal_that_its_sender_means() -> None:
    """The nearest 64-bit float lies 95 ns below; in JSON and in CBOR it is the same reading."""
    pack = [{"n": "a", "t": 1750000000.1, "v": 1}]
    assert stored(decode_cbor, packed(pack)) == stored(decode_json, json.dumps(pack).encode())
    assert stored(decode_cbor, packed(pack)) == [("a", 1, NOW + 100, 0)]


@pytest.mark.parametrize(
    ("fields", "offset_ms"),
    [
        ({}, 0),
        ({"t": 0}, 0),
        ({"bt": 5, "t": -5}, 0),
        ({"t": -5}, -5000),
        ({"bt": -3600, "t": 0.0625}, -3_599_938),
        ({"t": 86_400}, MAX_AHEAD_MS),
        ({"t": -0.001}, -1),
        ({"t": (EARLIEST_MS - NOW) // 1000}, EARLIEST_MS - NOW),
    ],
)
@BOTH
def test_a_small_time_is_relative_to_now_and_its_reading_is_never_a_repeat(
    in_form: InForm, fields: dict[str, Any], offset_ms: int
) -> None:
    pack = [{"bn": "a", **fields, "v": 1}, {"v": 2, **{name: fields[name] for name in fields if name == "t"}}]
    rows = stored(*in_form(pack))
    assert [row[2] - NOW for row in rows] == [offset_ms] * 2
    assert all(GENERATED_SEQ_START <= row[3] < 2 * GENERATED_SEQ_START for row in rows)
    assert rows[0][3] != rows[1][3]


@pytest.mark.parametrize(
    "time", [86_401, 2**28 - 1, 2**28, EARLIEST_MS // 1000 - 1, NOW_S + 86_401, -(2**28) * 10, 1e300, -1e300, 10**18]
)
@BOTH
def test_a_time_too_far_away_is_rejected_and_2_to_the_28_is_in_1978(in_form: InForm, time: float) -> None:
    documents, rejected = taken(*in_form([{"n": "a", "t": time, "v": 1}, {"n": "a", "v": 2}]))
    assert ([one["value"] for one in documents], rejected) == ([2], [(0, "invalid_ts")])


numbers = st.decimals(-1000, 1000, places=9, allow_nan=False).map(Decimal.normalize)
records = st.lists(
    st.fixed_dictionaries(
        {"v": st.integers(-10, 10)},
        optional={
            "bn": st.sampled_from(["a", "b:"]),
            "n": st.sampled_from(["x", "y/z"]),
            "bt": st.sampled_from([NOW_S, NOW_S - 10**6, 2**28, 0]),
            "t": numbers,
            "bu": st.sampled_from(["Cel", "m"]),
            "u": st.just("K"),
            "bv": numbers,
        },
    ),
    max_size=8,
)


def resolved(pack: Pack) -> list[tuple[str, Fraction, Fraction | None, str | None]]:
    """Return name, value, time and unit of each record, by the rules of RFC 8428, 4.6; no time: relative to now."""
    base: dict[str, Any] = {"bn": "", "bt": 0, "bv": 0, "bu": None}
    found = []
    for record in pack:
        base |= {label: record[label] for label in record if label.startswith("b")}
        time = Fraction(base["bt"]) + Fraction(record.get("t", 0))
        value = Fraction(base["bv"]) + Fraction(record["v"])
        name = base["bn"] + record.get("n", "")
        found.append((name, value, time if time >= 2**28 else None, record.get("u", base["bu"])))
    return found


@given(records)
@example(
    [{"bn": "a", "v": 1, "bv": Decimal("0.1"), "t": Decimal("1750000000.000000001")}, {"v": 2, "bv": Decimal("1E+2")}]
)
def test_a_pack_is_resolved_as_a_plain_reading_of_the_rfc_resolves_it(pack: Pack) -> None:
    text = json.dumps(pack, default=lambda number: f"<{number:f}>").replace('"<', "").replace('>"', "")
    for sent in (list(decode_json(text.encode())), list(decode_cbor(packed(pack)))):
        assert len(sent) == len(pack)
        for found, (name, value, time, unit) in zip(sent, resolved(pack), strict=True):
            if isinstance(found, ReadingError):
                assert name == ""
                continue
            assert (found.name, found.value) == (name, float(value))
            assert found.ts_ns == (None if time is None else time * 10**9)
            assert (found.unit or None) == unit


# What is rejected, and what is refused


RECORDS: dict[str, tuple[dict[str, Any], str]] = {
    "no value": ({"n": "a"}, "invalid_value"),
    "two values": ({"n": "a", "v": 1, "vs": "x"}, "invalid_value"),
    "two values, one of them false": ({"n": "a", "vb": False, "v": 0}, "invalid_value"),
    "a sum": ({"n": "a", "s": 1}, "invalid_value"),
    "a value and a sum": ({"n": "a", "v": 1, "s": 1}, "invalid_value"),
    "v is a text": ({"n": "a", "v": "1"}, "invalid_value"),
    "v is a boolean": ({"n": "a", "v": True}, "invalid_value"),
    "v is null": ({"n": "a", "v": None}, "invalid_value"),
    "v has more than 64 bits": ({"n": "a", "v": 2**63}, "invalid_value"),
    "vs is a number": ({"n": "a", "vs": 1}, "invalid_value"),
    "vs is too long": ({"n": "a", "vs": "x" * 257}, "invalid_value"),
    "vs has a control character": ({"n": "a", "vs": "a\tb"}, "invalid_value"),
    "vb is a number": ({"n": "a", "vb": 1}, "invalid_value"),
    "vd is a number": ({"n": "a", "vd": 1}, "invalid_value"),
    "n is a number": ({"n": 1, "v": 1}, "invalid_field"),
    "u is a number": ({"n": "a", "v": 1, "u": 1}, "invalid_field"),
    "u is too long": ({"n": "a", "v": 1, "u": "x" * 33}, "invalid_field"),
    "t is a text": ({"n": "a", "v": 1, "t": "1750000000"}, "invalid_ts"),
    "t is a boolean": ({"n": "a", "v": 1, "t": True}, "invalid_ts"),
    "ut is a text": ({"n": "a", "v": 1, "ut": "5"}, "invalid_field"),
}


@pytest.mark.parametrize(("record", "code"), RECORDS.values(), ids=RECORDS)
@BOTH
def test_a_wrong_record_is_rejected_alone(in_form: InForm, record: dict[str, Any], code: str) -> None:
    good = {"bn": "", "bu": "m", "bt": NOW_S, "n": "good", "v": 1}
    documents, rejected = taken(*in_form([good, record, {**good, "v": 2, "ut": 10}]))
    assert ([one["value"] for one in documents], rejected) == ([1, 2], [(1, code)])


@BOTH
def test_a_base_sum_rejects_every_record_that_it_applies_to(in_form: InForm) -> None:
    pack = [{"bn": "a", "n": "x", "v": 1}, {"n": "y", "bs": 5, "v": 2}, {"n": "z", "v": 3}]
    documents, rejected = taken(*in_form(pack))
    assert [one["value"] for one in documents] == [1]
    assert rejected == [(1, "invalid_value"), (2, "invalid_value")]


SPOILED: dict[str, dict[str, Any]] = {
    "bn is a number": {"bn": 1},
    "bn is null": {"bn": None},
    "bt is a text": {"bt": "0"},
    "bt is a boolean": {"bt": False},
    "bu is a number": {"bu": 1},
    "bv is a text": {"bv": "1"},
    "a label that must be understood": {"colour_": 1},
    "an empty label that must be understood": {"_": 1},
    "bver of the future": {"bver": 11},
    "bver is not positive": {"bver": 0},
    "bver is negative": {"bver": -10},
    "bver is a float": {"bver": 9.5},
    "bver is a text": {"bver": "10"},
    "bver is a boolean": {"bver": True},
    "bver that differs from the first record's": {"bver": 9},
}


@pytest.mark.parametrize("fields", SPOILED.values(), ids=SPOILED)
@BOTH
def test_what_spoils_later_records_refuses_the_whole_pack(in_form: InForm, fields: dict[str, Any]) -> None:
    decode, body = in_form([{"n": "a", "v": 1}, {"n": "b", "v": 2, **fields}, {"n": "c", "v": 3}])
    with pytest.raises(BodyRefused, match="record 1: ") as raised:
        taken(decode, body)
    assert raised.value.reason == "invalid_reading"


@pytest.mark.parametrize("versions", [(10, None), (None, 10), (10, 10), (5, 5), (5, None)])
@BOTH
def test_versions_up_to_10_are_understood(in_form: InForm, versions: tuple[int | None, ...]) -> None:
    pack = [{"n": "a", "v": n} | ({} if bver is None else {"bver": bver}) for n, bver in enumerate(versions)]
    assert len(stored(*in_form(pack))) == 2


@BOTH
def test_later_versions_are_refused_from_the_first_record_on(in_form: InForm) -> None:
    with pytest.raises(BodyRefused, match="record 0: bver is 11"):
        taken(*in_form([{"bver": 11, "n": "a", "v": 1}]))


@BOTH
def test_a_label_that_is_not_known_is_ignored(in_form: InForm) -> None:
    fields: dict[str, Any] = {"colour": [1, {"a": [None, 2.5]}], "_x": "y", "": 0, "label__x": 1}
    assert stored(*in_form([{"n": "a", "t": NOW_S, "v": 1, **fields}])) == [("a", 1, NOW, 0)]


def test_in_cbor_unknown_integers_are_ignored_and_a_label_is_not_given_twice() -> None:
    assert stored(decode_cbor, cbor([{0: "a", 2: 1, 6: NOW_S, 99: 1, -99: 2}])) == [("a", 1, NOW, 0)]
    with pytest.raises(BodyRefused, match="'v' occurs twice"):
        taken(decode_cbor, cbor([{0: "a", 2: 1, "v": 2}]))


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "malformed"),
    "broken": (b'[{"n":"a","v":1}', "malformed"),
    "more behind it": (b"[] []", "malformed"),
    "NaN": (b'[{"n":"a","v":NaN}]', "malformed"),
    "no UTF-8": (b'[{"n":"\xff","v":1}]', "malformed"),
    "half a surrogate pair": (b'[{"n":"a","vs":"\\ud800"}]', "malformed"),
    "deep": (b"[" * 100_000, "malformed"),
    "a deep value": (b'[{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "malformed"),
    "an object": (b'{"n":"a","v":1}', "invalid_reading"),
    "a broken object": (b"{", "malformed"),
    "a number": (b" 7 ", "invalid_reading"),
    "a label twice": (b'[{"n":"a","v":1,"v":2}]', "invalid_reading"),
    "a label twice, escaped": (b'[{"n":"a","v":1,"\\u0076":2}]', "invalid_reading"),
    "1,001 records": (b"[" + b",".join([b'{"n":"a","v":1}'] * 1001) + b"]", "batch_size"),
    "1,001 things": (b"[" + b",".join([b"{}"] * 1001) + b"]", "batch_size"),
}


@pytest.mark.parametrize(("body", "reason"), BODIES.values(), ids=BODIES)
def test_json_that_is_no_pack_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(BodyRefused) as raised:
        taken(decode_json, body)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "malformed"), (b"\x82\xa0", "malformed"), (b"\xa0", "invalid_reading"), (cbor([{}] * 1001), "batch_size")],
    ids=["empty", "cut off", "a map", "1,001 records"],
)
def test_cbor_that_is_no_pack_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(BodyRefused) as raised:
        taken(decode_cbor, body)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    "record", [b"null", b"7", b'"a"', b"[]", b'{"n":"a","v":1e999}', b'{"n":"a","v":1e99999999999999999999}',
               b'{"n":"a","v":' + b"9" * 5000 + b"}", b'{"n":"a","t":1e401,"v":1}']
)  # fmt: skip
def test_a_record_of_json_that_cannot_be_read_is_rejected_alone(record: bytes) -> None:
    documents, rejected = taken(decode_json, b'[{"n":"a","v":1},' + record + b',{"n":"b","v":2}]')
    assert [one["value"] for one in documents] == [1, 2]
    assert [index for index, _ in rejected] == [1]


def test_a_record_of_cbor_that_is_no_map_is_rejected_alone() -> None:
    body = cbor([{0: "a", 2: 1}, 7, None, "x", [], float("nan"), {0: "b", 2: 2}])
    documents, rejected = taken(decode_cbor, body)
    assert [one["value"] for one in documents] == [1, 2]
    assert rejected == [(index, "invalid_reading") for index in range(1, 6)]
    for number in (float("nan"), float("inf")):
        assert taken(decode_cbor, cbor([{0: "a", 2: number}])) == ([], [(0, "invalid_value")])


words = st.sampled_from(["n", "bn", "v", "vs", "vb", "vd", "t", "bt", "u", "bver", "s", "x", "x_"])
anything = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5)
)


@given(st.lists(st.dictionaries(words, anything | st.lists(anything, max_size=2), max_size=6) | anything, max_size=6))
def test_of_any_pack_every_record_is_stored_or_rejected_or_all_is_refused(pack: list[Any]) -> None:
    records = [{key: one[key] for key in one} if isinstance(one, dict) else one for one in pack]
    try:
        documents, rejected = taken(decode_cbor, cbor(records))
    except BodyRefused:
        return
    assert len(documents) + len(rejected) == len(pack)
    assert [index for index, _ in rejected] == sorted({index for index, _ in rejected})
