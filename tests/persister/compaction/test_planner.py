"""What the planner decides, and what its decisions cost over many seals."""

import random

import pytest
from bson import ObjectId

from persister.compaction.planner import BLOCK_MIN, MAX_RUNS, Incoming, Plan, needs_end, plan, runs_of
from readings.keys import Position
from storage.places.documents import Piece


def piece(count: int, first: int, last: int, *, level: int = 0, run: ObjectId | None = None, seal: int = 1) -> Piece:
    key = {"owner": "o", "device": "d", "sensorType": "t", "level": level, "id": ObjectId()}
    return Piece(key, run or ObjectId(), count, (first, 0), (last, 0), {}, seal)


def incoming(count: int, first: int, last: int, seal: int = 9) -> Incoming:
    return Incoming(count, (first, 0), (last, 0), seal)


def test_few_readings_wait_in_a_piece_and_ask_nothing_of_the_blocks() -> None:
    pieces = [piece(50, at, at + 49) for at in range(0, 300, 50)]
    assert not needs_end(incoming(50, 300, 349), pieces)
    assert plan(incoming(50, 300, 349), pieces, end=None, behind=50) == Plan()


def test_many_readings_in_order_become_a_block_together_with_the_pieces_behind_the_last_one() -> None:
    old, new = piece(60, 0, 900), piece(3000, 1001, 4000)
    asked = incoming(BLOCK_MIN - 3000, 4001, 9000)
    assert needs_end(asked, [old, new])
    found = plan(asked, [old, new], end=(1000, 0), behind=asked.count)
    assert found == Plan((new,), takes_incoming=True)
    one_less = incoming(BLOCK_MIN - 3001, 4001, 9000)
    assert plan(one_less, [old, new], end=(1000, 0), behind=one_less.count) == Plan()


def test_a_piece_that_begins_before_the_end_counts_if_it_is_new() -> None:
    asked = incoming(2000, 5000, 9000)
    new, merged = piece(3000, 10, 4999), piece(3000, 10, 4999, level=2)
    assert plan(asked, [new], end=(1000, 0), behind=2000).merged == (new,)
    assert plan(asked, [merged], end=(1000, 0), behind=2000) == Plan()


def test_many_late_readings_are_compared_with_the_blocks() -> None:
    asked = incoming(BLOCK_MIN, 0, 900)
    assert plan(asked, [], end=(1000, 0), behind=0) == Plan(takes_incoming=True)
    assert plan(incoming(BLOCK_MIN - 1, 0, 900), [], end=(1000, 0), behind=0) == Plan()


def test_what_is_stored_already_is_not_stored_again() -> None:
    stored = piece(50, 10, 99, seal=9)
    assert plan(incoming(50, 10, 99), [stored], end=None, behind=50).stored
    assert plan(incoming(49, 10, 99), [stored], end=None, behind=49).stored, "erased since"
    for other in (incoming(51, 10, 99), incoming(50, 10, 98), incoming(50, 11, 99), incoming(50, 10, 99, seal=8)):
        assert not plan(other, [stored], end=None, behind=50).stored
    merged = piece(50, 10, 99, seal=9, level=1)
    assert not plan(incoming(50, 10, 99), [merged], end=None, behind=50).stored, "it may have others in between"


def test_one_run_more_and_the_smallest_are_merged() -> None:
    small = [piece(50, 0, 9) for _ in range(MAX_RUNS - 1)]
    large = [piece(3000, 0, 9, level=3, run=ObjectId())]
    found = plan(incoming(40, 0, 9), [*small, *large], end=(1000, 0), behind=0)
    assert (set(map(id, found.merged)), found.takes_incoming, found.level) == (set(map(id, small)), True, 1)


def test_a_large_one_is_not_merged_with_small_ones() -> None:
    small = [piece(50, 0, 9) for _ in range(MAX_RUNS)]
    found = plan(incoming(3000, 0, 9), small, end=(1000, 0), behind=0)
    assert (len(found.merged), found.takes_incoming, found.level) == (MAX_RUNS, False, 1)


def test_the_pieces_of_one_run_are_merged_together() -> None:
    run = ObjectId()
    parts = [piece(20, at, at + 9, level=1, run=run) for at in (0, 10)]
    others = [piece(50, 0, 9) for _ in range(MAX_RUNS - 1)]
    found = plan(incoming(50, 0, 9), [*parts, *others], end=(1000, 0), behind=0)
    assert runs_of([*parts, *others]) == MAX_RUNS
    assert {one.key["id"] for one in parts} <= {one.key["id"] for one in found.merged}
    assert found.level == 2


@pytest.mark.parametrize(
    ("size", "seals", "late", "most"),
    [(50, 82, 0.0, 5.0), (50, 400, 0.01, 6.5), (5000, 40, 0.01, 1.5), (500, 200, 0.01, 5.0), (50, 400, 1.0, 7.0)],
)
def test_readings_are_written_few_times_and_lie_in_few_runs(
    rng: random.Random, size: int, seals: int, late: float, most: float
) -> None:
    """Counts readings written, by pieces and blocks; what is late is never merged into blocks here."""
    pieces: list[Piece] = []
    end: Position | None = None
    written = now = 0
    for number in range(seals):
        first, now = now, now + size
        old = sum(rng.random() < late for _ in range(size))
        low = rng.randrange(max(first, 1)) if old else first
        asked = Incoming(size, (low, 0), (now - 1 if old < size else first, 0), number)
        behind = size if end is None else size - old
        found = plan(asked, pieces, end=end, behind=behind)
        taken = {one.key["id"] for one in found.merged}
        pieces = [one for one in pieces if one.key["id"] not in taken]
        count = sum(one.count for one in found.merged) + (size if found.takes_incoming else 0)
        tail = sum(one.count for one in found.merged if one.last > (end or (-1, 0))) + (
            behind if found.takes_incoming else 0
        )
        if tail >= BLOCK_MIN:
            end, count = (now - 1, 0), count - tail
            written += tail
        if count:
            run = list(found.merged)
            low_key = min([low, *(one.first[0] for one in run)])
            high = max([asked.last[0] if found.takes_incoming else 0, *(one.last[0] for one in run)])
            pieces.append(piece(count, low_key, min(high, end[0]) if end else high, level=found.level))
            written += count
        if not found.takes_incoming:
            pieces.append(piece(size, low, asked.last[0]))
            written += size
        assert runs_of(pieces) <= MAX_RUNS + 1
    assert written / (size * seals) <= most
