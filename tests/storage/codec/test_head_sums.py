"""What buckets read of a head, compared with the head."""

import struct
from typing import Any

import bson
import pytest
from bson import Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings

from storage.codec.head import HOUR_MS, head_of
from storage.codec.head_sums import head_sums_from
from storage.codec.packed import BlockError
from storage.codec.sums import Booleans, Texts, sums_of
from tests.storage.codec.cases import START_MS, columns, document, documents, in_order, positions

EVER = (-(2**63), 0), (2**63 - 1, 0)


@given(documents())
@settings(deadline=None)
def test_sums_and_positions_are_those_of_the_head(made: list[bytes]) -> None:
    made = in_order(made)
    head = head_of(columns(made), *EVER)
    found = head_sums_from(bson.encode(head.document()))
    assert (found.start, found.until) == EVER
    assert (found.first, found.last) == (positions(made)[0], positions(made)[-1])
    # The types of numbers matter, and are in their text.
    assert repr(found.sums) == repr(head.sums)
    assert repr(found.hours()) == repr(head.hours)


def test_hours_are_those_of_the_head() -> None:
    values = [21.5, 21, Int64(2**60), True, "on"]
    made = [document(values[at // 100 % 5], START_MS + at * 20_000) for at in range(1000)]
    head = head_of(columns(made), *EVER)
    assert len(head.hours) == 6
    found = head_sums_from(bson.encode(head.document())).hours()
    assert repr(found) == repr(head.hours)
    assert list(found) == [START_MS + hour * HOUR_MS for hour in range(6)]


def test_whole_documents_with_plain_values_are_in_the_sums() -> None:
    def whole(value: Any, at: int) -> bytes:
        plain = bson.decode(document(value, START_MS + at))
        return bson.encode({"_id": plain.pop("_id"), "note": 1, **plain})

    values = [2.5, 7, Int64(7), 2**40, True, "on", "off", None]
    made = [whole(value, at) for at, value in enumerate(values)] + [document("on", START_MS + 100)]
    (sums,) = sums_of(columns(made), columns(made).ts[:1] * 0)
    assert sums.count == 9
    assert sums.numbers is not None
    assert repr(sums.numbers) == (
        f"Numbers(count=4, min=2.5, max=1099511627776, sum={2.5 + 14 + 2**40}, rest=0.0, first=2.5, last=1099511627776)"
    )
    assert (type(sums.numbers.max), type(sums.numbers.last)) == (Int64, Int64)
    assert sums.booleans == Booleans(1, 1, True, True)
    assert sums.texts == Texts(3, "on", "on")


GOOD = head_of(columns([document(each, START_MS + at) for at, each in enumerate((1.5, True, "on"))]), *EVER).document()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, "version 2"),
        ({"version": None}, "has another type"),
        ({"count": 0}, "a count is 0"),
        ({"until": {"seq": Int64(0)}}, "not the head"),
        ({"until": {"seq": Int64(0), "ts": DatetimeMS(0)}}, "no ts and seq"),
        ({"until": {"ts": DatetimeMS(START_MS + 2), "seq": Int64(0)}}, "not in order"),
        ({"first": {"ts": DatetimeMS(START_MS + 5), "seq": Int64(0)}}, "not in order"),
        ({"numbers": {"count": 1}}, "other fields than count, min"),
        ({"texts": GOOD["texts"] | {"first": 1}}, "first of texts is 1"),
        ({"hours": {}}, "not the head"),
    ],
)
def test_what_is_not_a_head_is_refused(change: dict[str, Any], error: str) -> None:
    assert head_sums_from(bson.encode(GOOD)).sums.count == 3
    with pytest.raises(BlockError, match=error):
        head_sums_from(bson.encode(GOOD | change))


@pytest.mark.parametrize("hours", [[1], [{"ts": "1", "count": 1}], [{"ts": DatetimeMS(0)}]])
def test_what_are_not_hours_is_refused(hours: list[Any]) -> None:
    found = head_sums_from(bson.encode(GOOD | {"hours": hours}))
    with pytest.raises(BlockError):
        found.hours()


def test_bytes_that_are_not_whole_are_refused() -> None:
    good = bson.encode(GOOD)
    for size in range(len(good)):
        with pytest.raises(BlockError):
            head_sums_from(good[:size])
    # The length of `_id`, at byte 9, as anything else.
    for length in (0, -1, -(2**31), 3, 2**31 - 1):
        with pytest.raises(BlockError):
            head_sums_from(good[:9] + struct.pack("<i", length) + good[13:])
