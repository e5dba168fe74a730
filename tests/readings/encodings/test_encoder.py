"""What is done with names that a sensorType cannot be, and with what would be merged without a word."""

import pytest

from readings.document import decode_document
from readings.encodings.encoder import DecodingEncoder, Renamed
from readings.encodings.line_protocol import LineProtocol
from readings.encodings.senml import decode_json
from readings.encodings.sent import BodyRefused, Decode
from readings.place import Place
from readings.reading import Defaults
from tests.readings.cases import NOW

NS = NOW * 10**6


def encoder(decode: Decode, sensor_types: set[str] | None = None, defaults: Defaults | None = None) -> DecodingEncoder:
    def may_use(sensor_type: str) -> bool:
        return sensor_types is None or sensor_type in sensor_types

    return DecodingEncoder("o", "d", Defaults() if defaults is None else defaults, may_use, decode)


def test_other_characters_become_underscores_and_the_sender_is_told() -> None:
    lines = encoder(LineProtocol())
    body = "wind\\ speed m/s=3,ok=1\nluft bad=x,température=20\ngood v=1"
    event = lines.encode_many(body.encode(), NOW)
    names = [decode_document(document)["_id"]["sensorType"] for document in event.documents]
    assert names == ["wind_speed.m_s", "wind_speed.ok", "luft.temp_rature", "good.v"]
    assert [rejection.index for rejection in event.rejected] == [2]
    assert lines.renamed == [
        Renamed(0, "wind speed.m/s", "wind_speed.m_s"),
        Renamed(1, "wind speed.ok", "wind_speed.ok"),
        Renamed(3, "luft.température", "luft.temp_rature"),
    ]


@pytest.mark.parametrize(
    ("decode", "body", "kept", "detail"),
    [
        (decode_json, b'[{"n":"a/b","v":1},{"n":"a_b","v":2},{"n":"a/b","v":3}]', [1, 3], "'a_b' would be stored as"),
        (decode_json, b'[{"n":"a_b","v":1},{"n":"a/b","v":2},{"n":"a_b","v":3}]', [1, 3], "'a/b' would be stored as"),
        (LineProtocol(), b"a.b c=1\na b.c=2\na.b c=3", [1, 3], "'a' · 'b.c' would be stored as 'a.b.c', as 'a.b' · "),
        (LineProtocol(), b"m x\\ y=1,x_y=2,x\\ z=3", [1, 3], "'m' · 'x_y' would be stored as 'm.x_y'"),
        (LineProtocol("ns", ("k",)), b"m.x v=1\nm,k=x v=2\nm.x v=3", [1, 3], "'m' · 'k=x' · 'v' would be stored"),
    ],
)  # fmt: skip
def test_the_second_of_two_names_that_would_be_one_is_rejected(
    decode: Decode, body: bytes, kept: list[int], detail: str
) -> None:
    event = encoder(decode).encode_many(body, NOW)
    assert [decode_document(document)["value"] for document in event.documents] == kept
    assert [(rejection.index, rejection.code) for rejection in event.rejected] == [(1, "invalid_field")]
    assert detail in event.rejected[0].detail


def test_a_name_whose_reading_was_rejected_keeps_no_other_from_being_stored() -> None:
    event = encoder(decode_json).encode_many(b'[{"n":"a/b","v":"x"},{"n":"a/b","vs":"\\u0000"},{"n":"a_b","v":2}]', NOW)
    assert [decode_document(document)["value"] for document in event.documents] == [2]


def test_readings_of_one_time_that_only_tags_tell_apart_are_rejected_unless_the_tags_are_named() -> None:
    body = f"cpu,cpu=cpu0 idle=1 {NS}\ncpu,cpu=cpu1 idle=2 {NS}\ncpu idle=3 {NS}\ncpu,cpu=cpu1 idle=4 {NS + 1}".encode()
    event = encoder(LineProtocol()).encode_many(body, NOW)
    assert [decode_document(document)["value"] for document in event.documents] == [1, 4]
    assert [(one.index, one.code) for one in event.rejected] == [(1, "invalid_field"), (2, "invalid_field")]
    assert all("seriesTags" in one.detail for one in event.rejected)
    event = encoder(LineProtocol("ns", ("cpu",))).encode_many(body, NOW)
    assert [decode_document(document)["value"] for document in event.documents] == [1, 2, 3, 4]


def test_a_repeat_within_a_body_is_accepted_as_it_is_in_json() -> None:
    body = f"m,k=v,l=w x=1 {NS}\nm,l=w,k=v x=1 {NS}\nm,k=v,l=w x=1 {NS}".encode()
    event = encoder(LineProtocol()).encode_many(body, NOW)
    assert (len({document[: document.index(b"value")] for document in event.documents}), event.rejected) == (1, [])
    assert len(event.documents) == 3


def test_the_location_of_a_device_and_the_limit_of_sensor_types_are_those_of_json() -> None:
    place = Place(1.5, -2.0)
    limited = encoder(decode_json, {"a"}, Defaults("unused", place))
    event = limited.encode_many(b'[{"n":"a","v":1},{"n":"b","v":2},{"n":"a","t":-1,"v":3},{"n":"c","t":-1,"v":4}]', NOW)
    documents = [decode_document(document) for document in event.documents]
    assert [(one["_id"]["sensorType"], one["value"], one["location"]) for one in documents] == [
        ("a", 1, {"lat": 1.5, "lon": -2.0}),
        ("a", 3, {"lat": 1.5, "lon": -2.0}),
    ]
    assert [(one.index, one.code) for one in event.rejected] == [(1, "forbidden"), (3, "forbidden")]


def test_of_a_body_that_is_refused_no_sensor_type_counts_as_used() -> None:
    used: list[str] = []

    def may_use(sensor_type: str) -> bool:
        used.append(sensor_type)
        return True

    refusing = DecodingEncoder("o", "d", Defaults(), may_use, decode_json)
    with pytest.raises(BodyRefused):
        refusing.encode_many(b'[{"n":"a","v":1},{"bver":11,"n":"b","v":2}]', NOW)
    assert (used, refusing.refused is not None) == ([], True)


def test_late_readings_are_noticed() -> None:
    early, late = f"m v=1 {NS}".encode(), f"m v=1 {NS - 10**9}".encode()
    for body, is_late in ((early, False), (late, True), (early + b"\n" + late, True)):
        assert encoder(LineProtocol()).encode_many(body, NOW, NOW - 500).late is is_late
