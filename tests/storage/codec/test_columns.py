"""Documents as columns: read, joined, and merged so that the first copy of a reading wins."""

from typing import Any

import bson
import pytest
from bson import Int64
from bson.datetime_ms import DatetimeMS
from hypothesis import given, settings
from hypothesis import strategies as st

from readings.document import AS_MILLISECONDS, DocumentError
from storage.codec.columns import Kind, concatenate, first_wins
from storage.codec.decode import decode
from storage.codec.encode import encode
from storage.codec.from_documents import columns_of
from storage.codec.to_documents import documents_of
from tests.storage.codec.cases import (
    DEVICE,
    OWNER,
    SENSOR_TYPE,
    SERIES,
    START_MS,
    columns,
    columns_by_seal,
    document,
    documents,
    in_order,
    positions,
)


@given(documents())
@settings(deadline=None)
def test_documents_in_any_order_come_back_from_columns(made: list[bytes]) -> None:
    assert documents_of(columns(made)) == made


@given(documents(), documents())
@settings(deadline=None)
def test_columns_are_joined_in_order(one: list[bytes], two: list[bytes]) -> None:
    joined = columns_by_seal([(1, one), (2, two), (3, one)])
    assert documents_of(joined) == one + two + one
    assert joined.seals.tolist() == [1] * len(one) + [2] * len(two) + [3] * len(one)


def test_columns_of_two_series_are_not_joined() -> None:
    key = {"owner": OWNER, "device": "another", "sensorType": SENSOR_TYPE, "ts": DatetimeMS(1), "seq": Int64(0)}
    other = bson.encode({"_id": key, "value": 1, "receivedAt": DatetimeMS(1)})
    with pytest.raises(ValueError, match="several series"):
        concatenate([columns([document(1, 1)]), columns([other])])
    with pytest.raises(DocumentError, match="several series"):
        columns([document(1, 1), other])


@given(st.lists(st.tuples(st.integers(1, 4), documents()), min_size=1, max_size=4))
@settings(deadline=None)
def test_of_two_copies_the_one_with_the_lower_seal_wins(parts: list[tuple[int, list[bytes]]]) -> None:
    made = columns_by_seal(parts)
    merged = first_wins(made)
    copies = [(seal, each) for seal, part in parts for each in part]
    kept = in_order(each for _, each in sorted(copies, key=lambda copy: copy[0]))
    assert documents_of(merged.columns) == kept
    lowest: dict[Any, int] = {}
    for seal, each in copies:
        (position,) = positions([each])
        lowest[position] = min(seal, lowest.get(position, seal))
    assert merged.columns.seals.tolist() == [lowest[position] for position in positions(kept)]
    own_seal = sum(seal == lowest[positions([each])[0]] for seal, each in copies)
    assert merged.redone == own_seal - len(kept)
    assert merged.repeated == len(copies) - own_seal


@given(documents(), documents())
@settings(deadline=None)
def test_blocks_merge_with_documents_as_documents_do(old: list[bytes], new: list[bytes]) -> None:
    block = decode(encode(first_wins(columns(old, 1)).columns), SERIES)
    again = first_wins(concatenate([block, columns(new, 2)])).columns
    assert documents_of(decode(encode(again), SERIES)) == in_order(old + new)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, Kind.FLOAT),
        (1, Kind.INT32),
        (2**31, Kind.INT64),
        (True, Kind.BOOLEAN),
        ("", Kind.TEXT),
        (None, Kind.OTHER),
    ],
)
def test_a_value_is_in_the_column_of_its_type(value: Any, kind: Kind) -> None:
    assert columns([document(value, START_MS)]).kinds.tolist() == [kind]


BROKEN = document(1.5, START_MS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x04\x00\x00\x00",
        BROKEN[:-1],
        BROKEN + b"\x00",
        BROKEN + bson.encode({"a": 1}),
        bson.encode({"a": 1}),
        BROKEN + b"\x01\x00\x00\x00\x00",
        bson.encode({"_id": {"owner": OWNER, "device": DEVICE, "ts": DatetimeMS(1), "seq": Int64(1)}}),
        document(1.5, START_MS).replace(b"\x12seq", b"\x09seq"),
    ],
)
def test_what_is_not_a_series_of_readings_is_refused(body: bytes) -> None:
    with pytest.raises(DocumentError):
        columns_of(body, 1)


@pytest.mark.parametrize("fields", [{}, {"value": None}, {"value": [1], "receivedAt": 1}, {"other": 1, "value": 1}])
def test_what_has_the_key_of_a_reading_is_kept_whole(fields: dict[str, Any]) -> None:
    odd = bson.encode({"_id": bson.decode(document(1, START_MS), AS_MILLISECONDS)["_id"], **fields})
    found = columns_of(odd + document(1, START_MS + 1), 1)
    assert documents_of(found) == [odd, document(1, START_MS + 1)]
    assert found.ts.tolist() == [START_MS, START_MS + 1]


@given(documents(), st.data())
@settings(deadline=None)
def test_damaged_documents_are_refused_or_come_back_as_they_are(made: list[bytes], data: st.DataObject) -> None:
    body = bytearray(b"".join(made))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = columns_of(bytes(body), 1)
    except DocumentError:
        return
    assert b"".join(documents_of(found)) == body
