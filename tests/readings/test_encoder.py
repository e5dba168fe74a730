"""The encoder, compared with the plain way in `reference.py`: no difference but time."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings import encoder
from readings.document import decode_document, encode_document
from readings.encoder import EncodedEvent, ReadingEncoder
from readings.place import Place
from readings.reading import Defaults, Reading, ReadingError, check_one
from readings.template import Template
from tests.readings.cases import (
    NOT_TWICE,
    NOW,
    REFUSED,
    TAKEN,
    TWICE,
    TYPED,
    defaults,
    few_series,
    good_readings,
    json_values,
    near_readings,
    object_texts,
    shortened,
    texts,
    values,
)
from tests.readings.reference import DEVICE, OWNER, outcome, without_generated
from tests.readings.reference import encode_many as plain
from tests.readings.reference import encode_one as plain_one

TEMPLATED = {"value": 1.5, "ts": NOW}


@given(defaults, st.lists(st.lists(few_series | good_readings, min_size=1, max_size=6), min_size=2, max_size=4))
def test_a_sessions_events_give_the_bytes_and_the_refusals_of_the_plain_way(
    given_: Defaults, events: list[list[dict[str, Any]]]
) -> None:
    session = ReadingEncoder(OWNER, DEVICE, given_)
    for number, event in enumerate([*events, *events]):
        raw = json.dumps(event).encode()
        assert without_generated(session.encode_many(raw, NOW + number)) == without_generated(
            plain(raw, given_, NOW + number)
        )


@given(defaults, st.lists(st.one_of(json_values, near_readings, few_series), max_size=6) | json_values)
def test_whatever_json_is_sent_has_the_outcome_of_the_plain_way(given_: Defaults, event: Any) -> None:
    session = ReadingEncoder(OWNER, DEVICE, given_)
    session.encode_one(json.dumps({"sensorType": "temperature", **TEMPLATED}).encode(), NOW)
    raw = json.dumps(event).encode()  # NaN and Infinity included
    quick, expected = outcome(session.encode_many, raw, NOW), outcome(plain, raw, given_)
    if isinstance(expected, EncodedEvent):
        quick, expected = without_generated(quick), without_generated(expected)
    assert quick == expected


@given(defaults, st.one_of(few_series, good_readings, near_readings, json_values))
def test_one_reading_has_the_outcome_of_the_plain_way_the_first_and_the_second_time(
    given_: Defaults, sent: Any
) -> None:
    session = ReadingEncoder(OWNER, DEVICE, given_)
    raw = json.dumps(sent).encode()
    expected = outcome(check_one, raw, given_, NOW)
    for _ in range(2):
        quick = outcome(session.encode_one, raw, NOW)
        if isinstance(expected, Reading):
            document = encode_document(OWNER, DEVICE, expected)
            assert without_generated(EncodedEvent([quick], [])) == without_generated(EncodedEvent([document], []))
        else:
            assert quick == expected


@pytest.mark.parametrize(("field", "text"), [case[:2] for case in TAKEN + REFUSED], ids=shortened)
def test_a_template_in_use_lets_through_what_the_plain_way_does_and_no_more(field: str, text: str) -> None:
    usual = {"value": b"1.5", "ts": b"%d" % NOW}
    other = usual | {field: text.encode()}
    items = [
        b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), said) for name, said in item.items())
        for item in (usual, other, usual)
    ]
    raw = b"[" + b",".join(items) + b"]"
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    for _ in range(2):
        assert session.encode_many(raw, NOW) == plain(raw, TYPED)
        assert outcome(session.encode_one, items[1], NOW) == outcome(plain_one, items[1])


@given(defaults, st.lists(st.lists(object_texts, max_size=4), min_size=1, max_size=3))
def test_names_that_occur_twice_have_the_outcome_of_the_plain_way(given_: Defaults, events: list[list[str]]) -> None:
    session = ReadingEncoder(OWNER, DEVICE, given_)
    usual = f'{{"value":1.5,"ts":{NOW},"unit":"C"}}'
    for event in [*events, *events]:
        raw = f"[{','.join([usual, *event, usual])}]".encode()
        assert without_generated(session.encode_many(raw, NOW)) == without_generated(plain(raw, given_))


@pytest.mark.parametrize("raw", TWICE + NOT_TWICE)
def test_a_name_that_occurs_twice_is_refused_and_no_other_reading_with_it(raw: str) -> None:
    usual = f'{{"value":1.5,"ts":{NOW},"seq":1}}'
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    for _ in range(2):  # the second time there are templates
        taken = session.encode_many(f"[{usual},{raw},{usual}]".encode(), NOW)
        refused = [(1, "invalid_reading")] if raw in TWICE else []
        assert [(found.index, found.code) for found in taken.rejected] == refused
        assert len(taken.documents) == 3 - len(refused)
        if raw in TWICE:
            with pytest.raises(ReadingError, match="twice"):
                session.encode_one(raw.encode(), NOW)
        else:
            session.encode_one(raw.encode(), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"seq": 1},
        {"unit": "C", "seq": 1},
        {"sensorType": "a", "unit": "°C"},
        {"quality": "bad"},
        {"tags": {"a": "b"}, "location": "x", "quality": "good"},
        {"location": {"lat": 1.5, "lon": 2.5, "alt": 3.5}, "seq": 3},
    ],
    ids=str,
)
def test_an_event_with_each_name_once_is_looked_at_once(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    one = json.dumps(TEMPLATED | fields).encode()
    monkeypatch.setattr(encoder, "require_unique_names", None)  # whoever needs the second look fails
    monkeypatch.setattr(encoder, "split_array", None)
    for _ in range(2):
        session.encode_one(one, NOW)
        assert len(session.encode_many(b"[" + one + b"," + one + b"]", NOW).documents) == 2


@pytest.mark.parametrize("first", [{"unit": "%"}, {"sensorType": "humidity"}, {"quality": "good"}, {}])
@pytest.mark.parametrize("then", [{"unit": "°C"}, {"sensorType": "pressure"}, {"quality": "uncertain"}, {}])
def test_neighbours_of_different_series_do_not_share_a_template(first: dict[str, str], then: dict[str, str]) -> None:
    raw = json.dumps([TEMPLATED | first, TEMPLATED | then, TEMPLATED | first]).encode()
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    for _ in range(2):
        assert session.encode_many(raw, NOW) == plain(raw, TYPED)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reading_error(raw: bytes) -> None:
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    assert outcome(session.encode_one, raw, NOW) == outcome(check_one, raw, TYPED, NOW)
    assert outcome(session.encode_many, raw, NOW) == outcome(plain, raw, TYPED)


readings = st.builds(
    Reading,
    st.text("ab", min_size=1, max_size=64),
    values,
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**53 - 1),
    st.integers(-(2**63), 2**63 - 1),
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=36)
units = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=32)
qualities = st.sampled_from([None, "good", "uncertain", "bad"])
spots = st.none() | texts | st.builds(Place, st.floats(-90, 90), st.floats(-180, 180), st.none() | st.floats(-9, 9))


tag_sets = st.none() | st.dictionaries(st.text("ab", min_size=1), texts, max_size=3)
attribute_sets = st.fixed_dictionaries({"unit": units, "location": spots, "tags": tag_sets, "quality": qualities})


@given(names, names, readings, attribute_sets)
def test_a_template_fills_in_exactly_the_bytes_that_bson_encodes(
    owner: str, device: str, reading: Reading, attributes: dict[str, Any]
) -> None:
    whole = msgspec.structs.replace(reading, **attributes)
    template = Template(owner, device, msgspec.structs.replace(whole, value="another", seq=7))
    filled = template.document(reading.value, reading.ts_ms, reading.seq, reading.received_ms)
    assert filled == encode_document(owner, device, whole)


@pytest.mark.parametrize("value", [0, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63), 0.0, -0.0, True])
def test_numbers_at_the_edges_of_their_form_are_the_plain_bytes(value: float) -> None:
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    raw = json.dumps([{"value": value, "ts": NOW}] * 3).encode()
    assert session.encode_many(raw, NOW) == plain(raw, TYPED)
    one = json.dumps({"value": value, "ts": NOW}).encode()
    assert session.encode_one(one, NOW) == plain_one(one)


@pytest.mark.parametrize("text", [b"1e999", b"-1e999", b"1e308", b"NaN", b"Infinity", b"9223372036854775808"])
def test_no_number_that_cannot_be_stored_gets_past_a_template(text: bytes) -> None:
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    raw = b'[{"value":1.5,"ts":%d},{"value":%b,"ts":%d}]' % (NOW, text, NOW)
    session.encode_one(json.dumps(TEMPLATED).encode(), NOW)
    assert outcome(session.encode_many, raw, NOW) == outcome(plain, raw, TYPED)


def test_a_session_keeps_a_bounded_number_of_templates_and_takes_what_is_beyond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[Any, ...]] = []

    def counted(*series: Any) -> Template:
        made.append(series)
        return Template(*series)

    monkeypatch.setattr(encoder, "MAX_TEMPLATES", 3)
    monkeypatch.setattr(encoder, "Template", counted)
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    raw = json.dumps([{"sensorType": f"s{number}", "value": 1.5, "ts": NOW} for number in range(9)]).encode()
    for _ in range(2):
        assert session.encode_many(raw, NOW) == plain(raw, TYPED)
    assert [reading.sensor_type for _, _, reading, _ in made] == ["s0", "s1", "s2"]


def test_the_places_of_a_device_on_the_move_leave_room_for_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    def counted(*series: Any) -> Template:
        made.append(series)
        return Template(*series)

    monkeypatch.setattr(encoder, "MAX_LOCATION_TEMPLATES", 2)
    monkeypatch.setattr(encoder, "Template", counted)
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    raw = json.dumps([TEMPLATED | {"location": {"lat": 1.0, "lon": 1.0 + step}} for step in range(5)]).encode()
    assert session.encode_many(raw, NOW) == plain(raw, TYPED)
    session.encode_one(json.dumps(TEMPLATED).encode(), NOW)
    assert [reading.location and reading.location.lon for _, _, reading, _ in made] == [1.0, 2.0, None]


SHAPES: list[dict[str, Any]] = [
    {},
    {"tags": {"a": "1", "b": "2"}},
    {"tags": {"b": "2", "a": "1"}},
    {"tags": {}},
    {"location": ""},
    {"location": {"lat": 0.0, "lon": 1.0}},
    {"location": {"lat": -0.0, "lon": 1.0}},
    {"location": {"lat": 2.0, "lon": 1.0, "alt": 0.0}},
    {"location": {"lat": 2.0, "lon": 1.0, "alt": -0.0}},
    {"location": {"lat": 2.0, "lon": 1.0}},
    {"location": {"lat": 2.0, "lon": 1.0}, "tags": {"a": "1"}},
    {"location": {"lat": 2.0, "lon": 91.0}, "tags": {"a": "2"}},
    {"quality": "good"},
    {"quality": "bad"},
    {"quality": "bad", "location": {"lat": 2.0, "lon": 1.0}},
    {"quality": "bad", "tags": {"a": "1", "b": "2"}},
    {"sensorType": "", "quality": "good"},
    {"sensorType": "", "tags": {"a": "1"}},
    {"sensorType": ""},
]


@pytest.mark.parametrize("one", SHAPES, ids=shortened)
@pytest.mark.parametrize("other", SHAPES, ids=shortened)
def test_readings_of_different_shapes_do_not_share_a_template(one: dict[str, Any], other: dict[str, Any]) -> None:
    raw = json.dumps([TEMPLATED | shape for shape in (one, other, one, {}, other)]).encode()
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    for _ in range(3):
        assert session.encode_many(raw, NOW) == plain(raw, TYPED)


def test_a_template_is_made_once_for_a_series(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, ...]] = []

    def counted(*series: Any) -> Template:
        made.append(series)
        return Template(*series)

    monkeypatch.setattr(encoder, "Template", counted)
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    for number in range(5):
        session.encode_one(json.dumps({**TEMPLATED, "seq": number}).encode(), NOW)
    assert len(made) == 1


def test_what_was_refused_leaves_no_template() -> None:
    session = ReadingEncoder(OWNER, DEVICE, TYPED)
    raw = b'[{"sensorType":"no good","value":1.5,"ts":%d}]' % NOW
    for _ in range(2):
        taken = session.encode_many(raw, NOW)
        assert [found.code for found in taken.rejected] == ["invalid_field"]
        assert not taken.documents


def test_a_refused_reading_keeps_its_index_among_taken_ones() -> None:
    raw = b'[{"value":1.5,"ts":%d},{"value":1,"ts":1},{"value":2.5,"ts":%d},{"value":"\\u0007"}]' % (NOW, NOW)
    taken = ReadingEncoder(OWNER, DEVICE, TYPED).encode_many(raw, NOW)
    assert [(found.index, found.code) for found in taken.rejected] == [(1, "invalid_ts"), (3, "invalid_value")]
    assert [decode_document(document)["value"] for document in taken.documents] == [1.5, 2.5]


def test_an_empty_array_has_nothing_taken_and_nothing_refused() -> None:
    assert ReadingEncoder(OWNER, DEVICE, TYPED).encode_many(b"[]", NOW) == EncodedEvent([], [])
