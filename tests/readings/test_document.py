"""The documents that MongoDB stores: their bytes, and how they are split, decoded and identified."""

import struct
from contextlib import suppress
from typing import Any

import bson
import msgspec
import pytest
from bson import Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from readings.document import (
    DocumentError,
    IndexedDocuments,
    decode_document,
    document_ts_ms,
    encode_document,
    index_documents,
    received_ms,
    series_and_position,
    series_bytes,
    split_documents,
)
from readings.fields import fields_of
from readings.keys import reading_key
from readings.place import Place
from readings.reading import Reading
from tests.readings.cases import closed

PLAIN = Reading("temperature", 21.5, 1_750_000_000_123, 7, 1_750_000_000_456)
FULL = msgspec.structs.replace(PLAIN, unit="°C", location=Place(1.5, 2.5), tags={"room": "a"}, quality="bad")

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
readings = st.builds(
    Reading,
    names,
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text("aé", max_size=9)),
    st.integers(946_684_800_000, 4_000_000_000_000),
    st.integers(0, 2**53 - 1),
    st.integers(946_684_800_000, 4_000_000_000_000),
)


@given(names, names, readings)
def test_the_series_and_the_position_are_those_of_the_key(owner: str, device: str, reading: Reading) -> None:
    document = encode_document(owner, device, reading)
    assert series_and_position(document) == (series_bytes(document), (reading.ts_ms, reading.seq))


def elements(document: bytes) -> list[tuple[int, str]]:
    """Type and name of each element of the outer document, read by the BSON specification."""
    found, at = [], 4
    while document[at]:
        end = document.index(0, at + 1)
        kind, name = document[at], document[at + 1 : end].decode()
        found.append((kind, name))
        at = end + 1
        fixed = {0x01: 8, 0x08: 1, 0x09: 8, 0x10: 4, 0x12: 8}
        if kind in fixed:
            at += fixed[kind]
        else:
            (length,) = struct.unpack_from("<i", document, at)
            at += length + 4 if kind == 0x02 else length
    return found


def test_the_document_starts_with_its_id_whose_fields_have_the_order_and_types_of_the_contract() -> None:
    document = encode_document("owner-1", "device-1", FULL)
    assert elements(document) == [
        (0x03, "_id"),
        (0x01, "value"),
        (0x09, "receivedAt"),
        (0x02, "unit"),
        (0x03, "location"),
        (0x03, "tags"),
        (0x02, "quality"),
    ]
    (length,) = struct.unpack_from("<i", document, 9)
    assert elements(document[9 : 9 + length]) == [
        (0x02, "owner"),
        (0x02, "device"),
        (0x02, "sensorType"),
        (0x09, "ts"),
        (0x12, "seq"),
    ]


def test_optional_fields_that_were_not_given_are_not_in_the_document() -> None:
    assert [name for _, name in elements(encode_document("o", "d", PLAIN))] == ["_id", "value", "receivedAt"]


@pytest.mark.parametrize(
    ("value", "kind"), [(1.0, 0x01), ("a", 0x02), (True, 0x08), (1, 0x10), (2**31, 0x12), (-(2**63), 0x12)]
)
def test_a_value_keeps_its_kind(value: Any, kind: int) -> None:
    document = encode_document("o", "d", msgspec.structs.replace(PLAIN, value=value))
    assert elements(document)[1] == (kind, "value")


@pytest.mark.parametrize("seq", [0, 1, 2**31, 2**53 - 1])
def test_seq_is_a_64_bit_integer_even_where_32_bits_would_do(seq: int) -> None:
    key = bson.decode(encode_document("o", "d", msgspec.structs.replace(PLAIN, seq=seq)))["_id"]
    assert isinstance(key["seq"], Int64)
    assert key["seq"] == seq


def test_times_are_milliseconds_of_a_date() -> None:
    document = encode_document("o", "d", PLAIN)
    decoded = decode_document(document)
    assert decoded["_id"]["ts"] == DatetimeMS(PLAIN.ts_ms)
    assert decoded["receivedAt"] == DatetimeMS(PLAIN.received_ms)
    assert received_ms(document) == PLAIN.received_ms


@given(names, names, readings, st.none() | names)
def test_the_time_of_receipt_is_read_without_decoding_the_document(
    owner: str, device: str, reading: Reading, unit: str | None
) -> None:
    document = encode_document(owner, device, msgspec.structs.replace(reading, unit=unit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("readings.document.decode_document", None)
        assert received_ms(document) == reading.received_ms


def test_the_time_of_receipt_of_a_document_in_another_order_is_found_by_decoding() -> None:
    fields = {"_id": dict(reading_key("o", "d", "t", 1, 2)), "receivedAt": DatetimeMS(3), "value": 1}
    assert received_ms(bson.encode(fields)) == 3
    assert received_ms(bson.encode(fields | {"value": [{"receivedAt": DatetimeMS(4)}]})) == 3


@given(st.binary(max_size=120))
def test_any_bytes_have_no_time_of_receipt(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        received_ms(raw)


@given(readings, st.integers(0, 200), st.integers(1, 255))
def test_of_a_document_with_one_byte_changed_the_time_of_receipt_is_a_number_or_refused(
    reading: Reading, at: int, change: int
) -> None:
    document = bytearray(encode_document("o", "d", reading))
    document[at % len(document)] ^= change
    with suppress(DocumentError):
        assert isinstance(received_ms(bytes(document)), int)


@given(owner=names, device=names, reading=readings, unit=st.one_of(st.none(), st.text("°aé", max_size=9)))
def test_what_rules_see_of_a_reading_is_what_was_encoded(
    owner: str, device: str, reading: Reading, unit: str | None
) -> None:
    given = msgspec.structs.replace(reading, unit=unit)
    found = fields_of(encode_document(owner, device, given))
    assert found == (reading.ts_ms, reading.seq, reading.value, reading.received_ms, unit)
    assert type(found[2]) is type(reading.value)


@pytest.mark.parametrize("order", [("receivedAt", "value", "unit"), ("value", "receivedAt", "location", "unit")])
@pytest.mark.parametrize("value", [21.5, True, 7, Int64(7), "text"])
def test_what_rules_see_of_a_document_in_another_order_is_found_by_decoding(value: Any, order: tuple[str, ...]) -> None:
    rest = {"value": value, "receivedAt": DatetimeMS(8), "unit": "°C", "location": "roof"}
    key = reading_key("ada", "press", "temperature", 1_750_000_000_123, 7)
    found = fields_of(bson.encode({"_id": key} | {name: rest[name] for name in order}))
    assert found == (1_750_000_000_123, 7, value, 8, "°C")
    assert type(found[2]) in (bool, int, float, str)


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": None},
        {"value": [1]},
        {"unit": 7, "value": "text"},
        {"receivedAt": 7},
        {"receivedAt": None, "value": None},
    ],
)
def test_of_what_is_no_reading_rules_see_nothing(wrong: dict[str, Any]) -> None:
    key = reading_key("ada", "press", "temperature", 1_750_000_000_123, 7)
    with pytest.raises(DocumentError):
        fields_of(bson.encode({"_id": key, "value": 1, "receivedAt": DatetimeMS(8)} | wrong))


@given(reading=readings, at=st.integers(0, 300), change=st.integers(1, 255))
def test_of_a_document_with_one_byte_changed_rules_see_something_or_nothing(
    reading: Reading, at: int, change: int
) -> None:
    raw = bytearray(encode_document("owner", "device", reading))
    raw[at % len(raw)] ^= change
    with suppress(DocumentError):
        assert len(fields_of(bytes(raw))) == 5


def test_a_place_without_altitude_is_stored_without_it() -> None:
    document = decode_document(encode_document("o", "d", msgspec.structs.replace(PLAIN, location=Place(1, 2))))
    assert document["location"] == {"lat": 1.0, "lon": 2.0}


# Splitting


def test_documents_that_are_back_to_back_are_split() -> None:
    documents = [encode_document("o", "d", reading) for reading in (PLAIN, FULL, PLAIN)]
    assert split_documents(b"".join(documents)) == documents
    assert split_documents(b"") == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_torn_bytes_are_refused_wherever_they_tear(cut: int) -> None:
    document = encode_document("o", "d", PLAIN)
    for torn in (document[:-cut], document + document[:-cut], document[cut:], document + document[:cut]):
        with pytest.raises(DocumentError):
            split_documents(torn)


@pytest.mark.parametrize(
    "raw",
    [b"\0", bytes(5), b"\x04\0\0\0\0", b"\xff\xff\xff\xff\0", b"\xff\xff\xff\x7f\0", b"\x05\0\0\0\1", b"\x06\0\0\0\0"],
)
def test_a_length_that_cannot_be_is_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        split_documents(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_cut_whole_or_refused(raw: bytes) -> None:
    try:
        documents = split_documents(raw)
    except DocumentError:
        return
    assert b"".join(documents) == raw


def indexed_one_by_one(body: bytes) -> IndexedDocuments:
    """Return the result expected of `index_documents`, by the functions for one document."""
    cut = IndexedDocuments(split_documents(body), [], [])
    for document in cut.documents:
        try:
            name, ts_ms = series_bytes(document), document_ts_ms(document)
        except DocumentError:
            name, ts_ms = b"", 0
        cut.series.append(name)
        cut.times.append(ts_ms)
    return cut


def assert_indexed_alike(body: bytes) -> None:
    """Assert that both ways say the same, or refuse with the same words."""
    said: list[IndexedDocuments | str] = []
    for cut in (indexed_one_by_one, index_documents):
        try:
            said.append(cut(body))
        except DocumentError as error:
            said.append(str(error))
    assert said[0] == said[1]


@given(st.lists(readings, min_size=1, max_size=5))
def test_series_and_time_are_found_as_documents_are_cut(found: list[Reading]) -> None:
    documents = [encode_document("owner", "device", reading) for reading in found]
    cut = index_documents(b"".join(documents))
    assert cut == (documents, [series_bytes(one) for one in documents], [reading.ts_ms for reading in found])


@given(st.lists(st.one_of(st.binary(max_size=60), readings), max_size=4), st.integers(0, 900), st.integers(1, 255))
def test_cutting_in_one_loop_says_of_any_bytes_what_cutting_one_by_one_says(
    parts: list[bytes | Reading], at: int, change: int
) -> None:
    body = bytearray(
        b"".join(part if isinstance(part, bytes) else encode_document("o", "d", part) for part in parts)
        or b"\5\0\0\0\0"
    )
    assert_indexed_alike(bytes(body))
    body[at % len(body)] ^= change
    assert_indexed_alike(bytes(body))


@pytest.mark.parametrize("length", [-(2**31), -200, -1, 0, 25, 26, 30, 31, 80, 200, 2**31 - 1])
@pytest.mark.parametrize("where", [0, 9])
def test_lengths_that_lie_are_seen_when_cut_in_one_loop(length: int, where: int) -> None:
    good = encode_document("o", "d", FULL)
    bad = bytearray(good)
    struct.pack_into("<i", bad, where, length)
    for body in (bytes(bad), good + bytes(bad), bytes(bad) + good):
        assert_indexed_alike(body)


@pytest.mark.parametrize("reading", [FULL, PLAIN], ids=["full", "plain"])
def test_a_document_that_ends_too_early_anywhere_is_cut_alike_and_leaves_its_neighbours_their_names(
    reading: Reading,
) -> None:
    good = encode_document("o", "d", reading)
    named = (good, series_bytes(good), reading.ts_ms)
    for size in range(5, len(good)):
        short = closed(good[:size])
        for parts in ([short], [short, good], [good, short], [good, short, good]):
            body = b"".join(parts)
            assert_indexed_alike(body)
            cut = index_documents(body)
            assert cut.documents == parts
            assert all(one == named for one in zip(*cut, strict=True) if one[0] == good)


# Behind the head of `ts` its 8 bytes, the 13 of `seq` and the closing zero of `_id` are missing, or some of them.
@pytest.mark.parametrize("left", range(8 + 13 + 1 + 1))
def test_a_document_that_ends_behind_the_head_of_ts_has_no_name_and_its_neighbours_have_theirs(left: int) -> None:
    good = encode_document("o", "d", FULL)
    short = closed(good[: good.index(b"\x09ts\0") + 4] + bytes(left))
    with pytest.raises(DocumentError):
        series_bytes(short)
    named, nameless = (good, series_bytes(good), FULL.ts_ms), (short, b"", 0)
    for parts in ([nameless], [nameless, named], [named, nameless], [named, nameless, named]):
        cut = index_documents(b"".join(document for document, _, _ in parts))
        assert list(zip(*cut, strict=True)) == parts


def test_a_document_of_another_form_between_readings_is_cut_without_a_name() -> None:
    good, other = encode_document("o", "d", PLAIN), bson.encode({"value": 1, "_id": {"owner": "o"}})
    assert index_documents(good + other + good) == (
        [good, other, good],
        [series_bytes(good), b"", series_bytes(good)],
        [PLAIN.ts_ms, 0, PLAIN.ts_ms],
    )


# Decoding


def document_with(**changes: Any) -> bytes:
    key = dict(reading_key("o", "d", "t", 1, 2))
    fields = {"_id": key, "value": 1, "receivedAt": DatetimeMS(3)} | changes
    return bson.encode({name: value for name, value in fields.items() if value is not ...})


def key_with(**changes: Any) -> dict[str, Any]:
    return dict(reading_key("o", "d", "t", 1, 2)) | changes


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"\x05\0\0\0\0",
        b"no BSON at all",
        document_with()[:-1] + b"\1",
        document_with(_id=...),
        document_with(_id="text"),
        document_with(_id=key_with(extra=1)),
        document_with(_id=dict(reversed(key_with().items()))),
        document_with(_id=key_with(owner=1)),
        document_with(_id=key_with(owner="")),
        document_with(_id=key_with(device=None)),
        document_with(_id=key_with(sensorType="")),
        document_with(_id=key_with(ts=Int64(1))),
        document_with(_id=key_with(seq=1)),
        document_with(_id=key_with(seq=1.0)),
        document_with(value=...),
        document_with(receivedAt=...),
        document_with(receivedAt=Int64(3)),
        document_with(value="abc").replace(b"abc", b"\xff\xfe\xfd"),
    ],
)
def test_what_is_not_a_readings_document_is_refused(document: bytes) -> None:
    with pytest.raises(DocumentError):
        decode_document(document)


def test_the_document_that_the_refused_ones_differ_from_is_taken() -> None:
    assert decode_document(document_with())["value"] == 1


@given(st.binary(max_size=120))
def test_any_bytes_decode_or_are_refused(raw: bytes) -> None:
    with pytest.raises(DocumentError):
        decode_document(raw)
    try:
        series_bytes(raw)
    except DocumentError:
        return


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_document_with_one_byte_changed_is_decoded_or_refused(at: int, change: int) -> None:
    document = bytearray(encode_document("o", "d", FULL))
    document[at % len(document)] ^= change
    for call in (decode_document, series_bytes, split_documents):
        try:
            call(bytes(document))
        except DocumentError:
            continue


# Series


@given(names, names, readings, readings)
def test_all_documents_of_a_series_begin_with_the_same_bytes(
    owner: str, device: str, one: Reading, other: Reading
) -> None:
    other = msgspec.structs.replace(other, sensor_type=one.sensor_type, unit="V", tags={"a": "b"})
    assert series_bytes(encode_document(owner, device, one)) == series_bytes(encode_document(owner, device, other))


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_documents_of_different_series_begin_with_different_bytes(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    def bytes_of(series: tuple[str, str, str]) -> bytes:
        owner, device, sensor_type = series
        return series_bytes(encode_document(owner, device, msgspec.structs.replace(PLAIN, sensor_type=sensor_type)))

    assert (bytes_of(one) == bytes_of(other)) == (one == other)


def test_names_that_run_into_each_other_are_different_series() -> None:
    one = series_bytes(encode_document("ab", "c", PLAIN))
    assert one != series_bytes(encode_document("a", "bc", PLAIN))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        bytes(13),
        bson.encode({"value": "a document that has no _id at all"}),
        bson.encode({"_id": "text of some length that is long enough"}),
        bson.encode({"_id": {"owner": "o"}}),
        bson.encode({"_id": {}}),
        document_with(_id=key_with(ts=Int64(1))),
        document_with(_id=key_with(seq=1)),
        document_with(_id=key_with(extra=1)),
        document_with()[:20],
    ],
)
def test_series_bytes_refuses_a_key_of_another_form(document: bytes) -> None:
    with pytest.raises(DocumentError):
        series_bytes(document)
