"""Heads: sums compared with plain arithmetic, by block and by hour, and their way through BSON."""

import math
from fractions import Fraction
from typing import Any

import bson
import pytest
from bson import Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from readings.document import AS_MILLISECONDS, decode_document
from storage.codec.decode import decode
from storage.codec.encode import encode
from storage.codec.head import HOUR_MS, HOUR_READINGS, Head, head_from, head_of
from storage.codec.packed import BlockError
from storage.codec.sums import Sums, merge
from tests.storage.codec.cases import (
    SERIES,
    START_MS,
    columns,
    document,
    documents,
    floats,
    in_order,
    positions,
    value_of,
)

EVER = (-(2**63), 0), (2**63 - 1, 0)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def assert_sums(sums: Sums, values: list[Any]) -> None:
    """Compare sums with those of the values, in their order."""
    numbers = [value for value in values if is_number(value)]
    booleans = [value for value in values if isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    assert sums.count == len(values)
    assert (sums.numbers is None, sums.booleans is None, sums.texts is None) == (not numbers, not booleans, not texts)
    if sums.numbers is not None:
        found = sums.numbers
        assert found.count == len(numbers)
        expected = (min(numbers), max(numbers), numbers[0], numbers[-1])
        for value, right in zip((found.min, found.max, found.first, found.last), expected, strict=True):
            assert (value, type(value)) == (right, type(right))
        assert_sum(found.sum, found.rest, sum(map(Fraction, numbers), Fraction()))
    if sums.booleans is not None:
        found_booleans = (sums.booleans.count, sums.booleans.true, sums.booleans.first, sums.booleans.last)
        assert found_booleans == (len(booleans), sum(booleans), booleans[0], booleans[-1])
    if sums.texts is not None:
        assert (sums.texts.count, sums.texts.first, sums.texts.last) == (len(texts), texts[0], texts[-1])


def assert_sum(nearest: float, rest: float, exact: Fraction) -> None:
    if abs(exact) > 2**1023:
        assert math.isinf(nearest) or math.isclose(nearest, exact, rel_tol=1e-12)
    else:
        # Two doubles have 106 bits, and parts of a block are added up once more.
        assert abs(Fraction(nearest) + Fraction(rest) - exact) <= max(abs(exact) / 2**100, Fraction(1, 2**1074))


def head(made: list[bytes]) -> Head:
    return head_of(columns(made), *EVER)


@given(documents())
@settings(deadline=None)
def test_sums_are_those_of_the_values(made: list[bytes]) -> None:
    made = in_order(made)
    assert_sums(head(made).sums, [value_of(each) for each in made])


@given(
    st.lists(st.one_of(floats, st.integers(-9, 9), st.booleans(), st.just("on")), min_size=1, max_size=40), st.data()
)
@settings(deadline=None)
def test_hours_with_enough_readings_have_sums_of_their_own(values: list[Any], data: st.DataObject) -> None:
    hours = data.draw(st.lists(st.tuples(st.integers(-3, 9), st.sampled_from([1, 63, 64, 65])), min_size=1, max_size=5))
    made: dict[int, list[Any]] = {}
    for hour, count in hours:
        made[hour] = [values[(hour + at) % len(values)] for at in range(count)]
    times = [(hour * HOUR_MS + at, value) for hour in sorted(made) for at, value in enumerate(made[hour])]
    found = head([document(value, ts) for ts, value in times])
    assert list(found.hours) == [hour * HOUR_MS for hour in sorted(made) if len(made[hour]) >= 64]
    for hour_ms, sums in found.hours.items():
        assert_sums(sums, made[hour_ms // HOUR_MS])
    assert_sums(found.sums, [value for _, value in times])


@given(documents(), st.integers(1, 59))
@settings(deadline=None)
def test_sums_of_parts_are_merged(made: list[bytes], at: int) -> None:
    made = in_order(made)
    parts = [head(part).sums for part in (made[:at], made[at:]) if part]
    assert_sums(merge(parts), [value_of(each) for each in made])


@given(documents())
@settings(deadline=None)
def test_a_head_comes_back_from_bson(made: list[bytes]) -> None:
    found = head(in_order(made))
    again = head_from(bson.decode(bson.encode(found.document()), AS_MILLISECONDS))
    # NaN is not equal to itself, and the types of numbers matter: their text has both.
    assert repr(again) == repr(found)
    assert again.series == SERIES


@given(documents())
@settings(deadline=None)
def test_a_head_has_the_newest_reading(made: list[bytes]) -> None:
    made = in_order(made)
    found = head(made)
    newest = decode_document(made[-1])
    key = newest.pop("_id")
    assert repr(found.last) == repr({"ts": key["ts"], "seq": key["seq"]} | newest)
    assert (int(found.first["ts"]), found.first["seq"]) == positions(made)[0]
    assert repr(found.first["value"]) == repr(value_of(made[0]))


def test_a_sum_is_as_exact_as_two_doubles() -> None:
    values = [1e16, 1.0, -1e16, 0.1] * 50
    found = head([document(value, START_MS + at) for at, value in enumerate(values)]).sums.numbers
    assert found is not None
    assert Fraction(found.sum) + Fraction(found.rest) == sum(map(Fraction, values))


def test_an_hour_of_a_second_each_takes_little() -> None:
    made = [document(at % 100 / 4, START_MS + at * 1000) for at in range(7200)]
    size = len(bson.encode(head(made).document()))
    assert size < 900, size


@pytest.mark.parametrize("bounds", [((START_MS, 1), (START_MS + 9, 0)), ((START_MS, 0), (START_MS + 5, 0))])
def test_readings_outside_of_the_bounds_are_refused(bounds: tuple[tuple[int, int], tuple[int, int]]) -> None:
    made = columns([document(1, START_MS), document(2, START_MS + 5)])
    with pytest.raises(ValueError, match="outside of the block's bounds"):
        head_of(made, *bounds)
    head_of(made, (START_MS, 0), (START_MS + 5, 1))


def test_a_head_without_readings_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reading"):
        head_of(columns([document(1, 1)]).take(slice(0, 0)), *EVER)


GOOD = head([document(value, START_MS + at) for at, value in enumerate((1.5, True, "on"))]).document()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "version None"),
        ({"count": True}, "a count is True"),
        ({"count": 0}, "a count is 0"),
        ({"until": None}, "not the head"),
        ({"until": {"ts": DatetimeMS(START_MS + 2), "seq": Int64(0)}}, "not in order"),
        ({"first": {"ts": DatetimeMS(START_MS + 5), "seq": Int64(0)}}, "not in order"),
        ({"hours": None}, "not the head"),
        ({"hours": [{"ts": DatetimeMS(0)}]}, "a count is None"),
        ({"numbers": {"count": 1}}, "other fields than count, min"),
        ({"numbers": GOOD["numbers"] | {"min": "a"}}, "min of numbers is 'a'"),
        ({"numbers": GOOD["numbers"] | {"max": True}}, "max of numbers is True"),
        ({"texts": GOOD["texts"] | {"first": 1}}, "first of texts is 1"),
        ({"booleans": GOOD["booleans"] | {"last": 1}}, "last of booleans is 1"),
        ({"booleans": []}, "other fields"),
    ],
)
def test_what_is_not_a_head_is_refused(change: dict[str, Any], error: str) -> None:
    assert head_from(GOOD).sums.count == 3
    with pytest.raises(BlockError, match=error):
        head_from(GOOD | change)


def test_a_head_leads_to_its_columns() -> None:
    made = columns([document(1.5, START_MS)])
    assert len(decode(encode(made), head_of(made, *EVER).series)) == 1


def test_hours_may_add_up_to_both_infinities_behind_a_sum_that_overflows() -> None:
    hours = [[1.7e308], [1.7e308], [1.7e308, 1.7e308], [-1.7e308, -1.7e308]]
    made = [
        document(value, START_MS + hour * HOUR_MS + number)
        for hour, values in enumerate(hours)
        for number, value in enumerate([*values, *[0.0] * HOUR_READINGS])
    ]
    found = head(made)
    assert [part.numbers and part.numbers.sum for part in found.hours.values()] == [
        1.7e308,
        1.7e308,
        math.inf,
        -math.inf,
    ]
    assert found.sums.numbers is not None
    assert math.isnan(found.sums.numbers.sum)
