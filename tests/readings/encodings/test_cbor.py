"""The bounded CBOR decoder: what it returns, and that no bytes get more out of it than an error."""

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readings.encodings.cbor import MAX_DEPTH, MAX_ITEMS, OTHER, CborError, NotAnArrayError, Other, decode_maps
from tests.readings.encodings.packs import cbor, head

scalars = st.one_of(
    st.integers(-(2**64), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=30),
    st.binary(max_size=300),
    st.booleans(),
    st.none(),
    st.builds(lambda m, e: Decimal(f"{m}E{e}"), st.integers(-(2**63), 2**63), st.integers(-400, 400)),
)
keys = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8)
nested = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(st.lists(st.dictionaries(keys, scalars | st.lists(nested, max_size=2), max_size=5), max_size=4))
def test_records_come_out_as_they_went_in(records: list[dict[int | str, Any]]) -> None:
    expected = [{key: OTHER if isinstance(value, list) else value for key, value in one.items()} for one in records]
    assert list(decode_maps(cbor(records))) == expected


def test_floats_of_each_size_are_their_value() -> None:
    body = b"\x81\xa4\x00\xf9\x3e\x00\x01\xfa\x3f\xc0\x00\x00\x02\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00\x03\xf9\x7c\x00"
    assert list(decode_maps(body)) == [{0: 1.5, 1: 1.5, 2: 1.5, 3: math.inf}]


def test_arrays_and_maps_of_unknown_length_are_read_to_their_end() -> None:
    assert list(decode_maps(b"\x9f\xbf\x00\x01\xff\xbf\xff\xff")) == [{0: 1}, {}]
    assert list(decode_maps(b"\x81\xa1\x61x\xbf\x00\x9f\x01\xff\xff")) == [{"x": OTHER}]


@pytest.mark.parametrize(
    "item",
    [
        b"\x81\x00",  # arrays and maps
        b"\xa1\x00\x00",
        b"\xc2\x41\x01",  # a bignum
        b"\xc1\x00",  # a time
        b"\xd8\x23\x61a",  # a pattern
        b"\xc4\x82\x19\x01\x91\x01",  # 1e401
        b"\xc4\x82\x00\xc2\x41\x01",  # a decimal fraction of a bignum
        b"\xf7",  # undefined
        b"\xf8\xff",  # simple values
        b"\xe0",
    ],
    ids=bytes.hex,
)
def test_items_that_senml_has_not_are_passed_over(item: bytes) -> None:
    assert list(decode_maps(b"\x81\xa2\x61x" + item + b"\x00\x07")) == [{"x": OTHER, 0: 7}]


BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "an array cut off": b"\x82\xa0",
    "a map cut off": b"\x81\xa1\x00",
    "an integer cut off": b"\x81\xa1\x00\x1a\x00",
    "a float cut off": b"\x81\xa1\x00\xfb\x00",
    "a text cut off": b"\x81\xa1\x00\x63ab",
    "unknown length without an end": b"\x9f\xa0",
    "a map that ends after a key": b"\x81\xbf\x00\xff",
    "an end without a beginning": b"\x81\xff",
    "more behind it": b"\x80\x00",
    "an array of 2^64 items": b"\x9b" + b"\xff" * 8,
    "a map of 2^63 pairs": b"\x81\xbb\x80" + b"\x00" * 7,
    "a map that is longer than the bytes": b"\x81\xa3\x00\x00\x01\x01",
    "a text of 2^64 bytes": b"\x81\xa1\x00\x7b" + b"\xff" * 8,
    "bytes of 2^32 bytes": b"\x81\xa1\x00\x5a" + b"\xff" * 4,
    "a text of unknown length": b"\x81\xa1\x00\x7f\x61a\xff",
    "bytes of unknown length": b"\x81\xa1\x00\x5f\x41a\xff",
    "an integer of unknown length": b"\x81\xa1\x00\x1f",
    "a reserved length": b"\x81\xa1\x00\x1c",
    "a reserved simple value": b"\x81\xa1\x00\xfc",
    "a simple value that is too long": b"\x81\xa1\x00\xf8\x14",
    "a text that is not UTF-8": b"\x81\xa1\x00\x61\xff",
    "a key twice": b"\x81\xa2\x00\x01\x00\x02",
    "a key twice, in two lengths": b"\x81\xa2\x00\x01\x18\x00\x02",
    "a key that is bytes": b"\x81\xa1\x41a\x01",
    "a key that is a float": b"\x81\xa1\xf9\x3c\x00\x01",
    "a key that is a boolean": b"\x81\xa1\xf5\x01",
    "a key that is an array": b"\x81\xa1\x80\x01",
    "a decimal fraction of three": b"\x81\xa1\x00\xc4\x83\x00\x00\x00",
    "a decimal fraction that is a number": b"\x81\xa1\x00\xc4\x00",
    "deep arrays": b"\x81" * 100_000,
    "deep maps": b"\x81" + b"\xa1\x00" * 100_000,
    "deep tags": b"\x81\xa1\x00" + b"\xc1" * 100_000,
    "deep decimal fractions": b"\x81\xa1\x00" + b"\xc4\x82" * 100_000,
    "too many items": b"\x81\xa1\x00\x98\x64" + b"\x00" * 100,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_not_cbor_or_too_much_is_an_error(body: bytes) -> None:
    with pytest.raises(CborError) as raised:
        list(decode_maps(body))
    assert str(raised.value)


@pytest.mark.parametrize("body", [b"\xa0", b"\x00", b"\x63abc", b"\xf6", b"\xd9\xd9\xf7\x80"], ids=bytes.hex)
def test_what_begins_with_no_array_is_told_apart(body: bytes) -> None:
    with pytest.raises(NotAnArrayError):
        list(decode_maps(body))


def test_depth_and_number_of_items_are_bounded_for_each_record() -> None:
    deepest = b"\x81" * (MAX_DEPTH - 3) + b"\x00"
    assert list(decode_maps(b"\x81\xa1\x00" + deepest)) == [{0: OTHER}]
    with pytest.raises(CborError, match="nested too deeply"):
        list(decode_maps(b"\x81\xa1\x00\x81\x81\x81" + deepest))
    record = {"x": [0] * (MAX_ITEMS - 3)}  # the map, its key and the array are items as well
    assert list(decode_maps(cbor([record] * 20))) == [{"x": OTHER}] * 20
    with pytest.raises(CborError, match="at most 100 data items"):
        list(decode_maps(cbor([{"x": [0] * (MAX_ITEMS - 2)}])))


def test_an_array_is_read_no_further_than_is_asked_for() -> None:
    items = decode_maps(head(4, 2) + b"\xa0\xff")
    assert next(items) == {}
    with pytest.raises(CborError):
        next(items)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x81", b"\x9f", b"\x81\xa1", b"\x81\xbf", b"\x82\xa1\x00"]))
def test_any_bytes_are_records_or_an_error(body: bytes, start: bytes) -> None:
    try:
        records = list(decode_maps(start + body))
    except CborError:
        return
    for record in records:
        fields = record.values() if isinstance(record, dict) else [record]
        assert all(isinstance(one, int | float | Decimal | str | bytes | Other | None) for one in fields)
