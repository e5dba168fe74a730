"""Many heads at once, compared with each of them."""

import random
from itertools import pairwise
from typing import Any

import bson
import numpy as np
import pytest
from bson import Int64, ObjectId

from readings.keys import Position
from storage.codec.head import head_of
from storage.codec.head_sums import head_sums_from
from storage.codec.head_table import head_table, live_heads
from storage.codec.packed import BlockError
from storage.codec.sums import merge
from tests.storage.codec.cases import START_MS, columns, document

STEP_MS = 60_000
EACH = 90
VALUES: dict[str, list[Any]] = {
    "floats": [21.5, -0.0, 0.0, -3.25, 1e-9],
    "large floats": [1e300, -1e300, 1e16, 1.0, -1e16],
    "mixed": [21.5, 7, Int64(2**60), True, "on", "off"],
    "infinite": [1.5, float("inf"), float("nan")],
    "overflow": [1.7e308, 1.5],
}
Heads = list[dict[str, Any]]


def heads(dice: random.Random, count: int, kinds: list[str]) -> Heads:
    """Return heads of blocks that follow each other, some of one length and some of another."""
    starts = [(START_MS + number * EACH * STEP_MS, dice.randint(0, 5)) for number in range(count + 1)]
    made = []
    for start, until in pairwise(starts):
        values = VALUES[dice.choice(kinds)]
        readings = [
            document(dice.choice(values) if dice.random() < 0.3 else values[0], start[0] + at * STEP_MS, seq=9)
            for at in range(dice.choice([1, 70, EACH]))
        ]
        head = head_of(columns(readings), start, until).document()
        made.append(head | {"columns": ObjectId(), "edit": ObjectId(), "lastSeal": Int64(dice.randint(1, 9))})
    return made


def encoded(made: Heads) -> bytes:
    return b"".join(map(bson.encode, made))


def start_of(head: dict[str, Any]) -> Position:
    one = head_sums_from(bson.encode(head))
    return one.start


@pytest.mark.parametrize("kinds", [[kind] for kind in VALUES] + [[*VALUES]])
def test_bounds_and_merged_sums_are_those_of_each_head(rng: random.Random, kinds: list[str]) -> None:
    made = heads(rng, rng.choice([1, 7, 60]), kinds)
    table = head_table(encoded(made))
    each = [head_sums_from(bson.encode(one)) for one in made]
    for name in ("start", "until", "first", "last"):
        assert [tuple(row) for row in getattr(table, name).tolist()] == [getattr(one, name) for one in each]
    assert [table.head(at) for at in range(len(made))] == each
    ends = np.flatnonzero(np.diff(np.append(table.is_plain, False).astype(int)) == -1) + 1
    begins = np.flatnonzero(np.diff(np.insert(table.is_plain, 0, False).astype(int)) == 1)
    for sums, begin, end in zip(table.merged(begins, ends), begins.tolist(), ends.tolist(), strict=True):
        # The types, and the sign of zero.
        assert repr(sums) == repr(merge([one.sums for one in each[begin:end]]))


def test_heads_of_floats_are_plain(rng: random.Random) -> None:
    assert head_table(encoded(heads(rng, 100, ["floats"]))).is_plain.mean() > 0.9
    assert not head_table(encoded(heads(rng, 100, ["mixed"]))).is_plain.all()


def test_no_heads() -> None:
    table = head_table(b"")
    assert len(table) == 0
    assert table.merged(np.zeros(0, np.int64), np.zeros(0, np.int64)) == []
    assert live_heads(table, (0, 0)) is None


def test_live_heads_follow_each_other(rng: random.Random) -> None:
    made = heads(rng, 30, ["floats"])
    start = start_of(made[0])
    live = live_heads(head_table(encoded(made)), start)
    assert live is not None
    assert len(live) == 30
    # One that nobody has made live yet lies within another.
    inside = [dict(one) for one in made]
    dead = inside[10] | {"_id": inside[10]["_id"] | {"seq": Int64(8)}}
    live = live_heads(head_table(encoded([*inside[:11], dead, *inside[11:]])), start)
    assert live is not None
    assert [tuple(row) for row in live.start.tolist()] == [start_of(one) for one in made]
    assert live_heads(head_table(encoded(made[:10] + made[11:])), start) is None
    assert live_heads(head_table(encoded(made[1:])), start) is None


@pytest.mark.parametrize("at", [0, 5, 29])
def test_a_damaged_head_among_others_is_an_error(rng: random.Random, at: int) -> None:
    made = heads(rng, 30, ["floats"])
    changes: list[dict[str, Any]] = [{"version": 2}, {"count": 0}, {"until": made[at]["first"]}, {"first": {}}]
    for change in changes:
        with pytest.raises(BlockError):
            head_table(encoded([*made[:at], made[at] | change, *made[at + 1 :]]))
