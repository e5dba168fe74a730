"""Decides what becomes of the readings that a series has in a sealed collection. Knows no database.

The rules, and what they are for (docs/decisions/0024 has the figures):

- Readings after the series' last block become a block as soon as there are BLOCK_MIN of them, together with those of
  pieces that come after it too: in the usual case, readings in order, they are written once.
- Until then they wait in pieces. A series has at most MAX_RUNS runs of them, each sorted and without overlaps, so that
  at most that many lie over any time.
- One run more, and the smallest ones are merged: sorted by size, each next one while it is at most RATIO times what
  those before it have together. The sizes of the runs that are left grow by that ratio, so a reading is merged
  about as often as its series doubles: 3 times in 82 seals of 50 readings, 5 times in 400.
- Readings inside of blocks are merged into those blocks of which they are DENSE of the readings or more. Fewer would
  cause more to be written again than they are themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from readings.keys import Position
from storage.places.documents import Piece
from storage.places.names import BEGINNING

# A block has at least this many readings when it is written, unless retention cut it.
BLOCK_MIN = 4096
# New blocks have at most BLOCK_USUAL readings, and blocks into which others were merged at most BLOCK_MAX.
BLOCK_USUAL, BLOCK_MAX = 8192, 16_384
PIECE_MAX = 8192
MAX_RUNS = 7
RATIO = 2.0
DENSE = 1 / 8
# One in this many late readings is looked up, to find the blocks in which they are dense: these have BLOCK_MIN or more.
SAMPLE_EVERY = int(BLOCK_MIN * DENSE)


@dataclass(frozen=True, slots=True)
class Incoming:
    """The readings of one series in a sealed collection, or some that follow each other, by their bounds."""

    count: int
    first: Position
    last: Position
    seal: int


class Plan(NamedTuple):
    """What is done with incoming readings.

    `merged`: the pieces whose readings are taken. `takes_incoming`: whether the incoming ones are among those that
    become blocks, are merged into blocks, or become one run together; else they become a run of their own.
    `stored`: they are stored already, because a process ended before it saved its position.
    """

    merged: tuple[Piece, ...] = ()
    takes_incoming: bool = False
    stored: bool = False

    @property
    def level(self) -> int:
        """The level of the run that is written of what is merged."""
        return max((piece.level for piece in self.merged), default=-1) + 1


def needs_end(incoming: Incoming, pieces: Sequence[Piece]) -> bool:
    """Return whether a plan depends on where the last block ends: without it, `plan` takes the series to have none."""
    if _is_stored(incoming, pieces):
        return False
    count = incoming.count + sum(piece.count for piece in pieces)
    return count >= BLOCK_MIN or (runs_of(pieces) >= MAX_RUNS and count >= SAMPLE_EVERY)


def plan(incoming: Incoming, pieces: Sequence[Piece], *, end: Position | None, behind: int) -> Plan:
    """Return what to do with incoming readings, given the pieces of their series.

    `end` is the position of the last reading of the last block, None without blocks; `behind` is how many of the
    incoming readings come after it.
    """
    if _is_stored(incoming, pieces):
        return Plan(stored=True)
    tail = [piece for piece in pieces if piece.last > (end or BEGINNING)]
    # A new piece has readings of one short time, mostly; an older one that begins before the end is of late ones.
    likely = sum(piece.count for piece in tail if piece.level == 0 or piece.first > (end or BEGINNING))
    if behind + likely >= BLOCK_MIN:
        others = [piece for piece in pieces if piece not in tail]
        late = incoming.count - behind
        if late and runs_of(others) >= MAX_RUNS:
            tail += _smallest(late, others)[0]
        return Plan(tuple(tail), takes_incoming=True)
    if runs_of(pieces) >= MAX_RUNS:
        merged, takes_incoming = _smallest(incoming.count, pieces)
        return Plan(tuple(merged), takes_incoming)
    return Plan(takes_incoming=incoming.count - behind >= BLOCK_MIN)


def runs_of(pieces: Sequence[Piece]) -> int:
    """Return the number of runs."""
    return len({piece.run for piece in pieces})


def _is_stored(incoming: Incoming, pieces: Sequence[Piece]) -> bool:
    # A sealed collection gains nothing: a piece that was made of it has all it had between the same two positions.
    return any(
        piece.level == 0
        and (piece.last_seal, piece.first, piece.last) == (incoming.seal, incoming.first, incoming.last)
        and piece.count >= incoming.count
        for piece in pieces
    )


def _smallest(count: int, pieces: Sequence[Piece]) -> tuple[list[Piece], bool]:
    """Return the pieces of the smallest runs, and whether `count` incoming readings are merged with them."""
    runs: dict[object, list[Piece]] = {}
    for piece in pieces:
        runs.setdefault(piece.run, []).append(piece)
    sizes = [(count, list[Piece]())]
    sizes += [(sum(piece.count for piece in run), run) for run in runs.values()]
    sizes.sort(key=lambda one: one[0])
    merged: list[Piece] = []
    so_far, takes_incoming = 0, False
    for number, (size, run) in enumerate(sizes):
        if number > 1 and size > RATIO * so_far:
            break
        so_far += size
        merged += run
        takes_incoming |= not run
    return merged, takes_incoming
