"""Where a series' numbers, its `seq`, have gaps: readings that were measured and are not stored.

A device client counts `seq` up by one with each reading of a series. The readings of a series, in the order of
(ts, seq), are split into counts:

- A fall of `seq` starts a new count: the device lost its file, or was reset. So does a number that the count has
  already, at another time.
- A reading out of order belongs to its count: its number is at most MISORDERED below the highest one, is missing so
  far, and the count goes on above it. Within one count, gaps are those of the order of `seq`.
- Readings sent without `ts` have a random `seq` from 2^52 on: they are not counted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from readings.keys import Position
from storage.codec.columns import Booleans
from storage.codec.distinct import distinct
from storage.codec.packed import Integers

# Of RTP's receivers: a number this far below the highest one is late, one further below is of a restarted sender
# (MAX_MISORDER of RFC 3550, appendix A.1).
MISORDERED = 100
# Gateways take lower numbers only from devices; readings without `ts` get a random one from here on.
COUNTED_BELOW = 2**52
# What is missing is known where this share of neighbours differ by exactly one: of 10, 9.
KNOWN_SHARE = (9, 10)
_NONE: Integers = np.zeros(0, np.int64)


class Gap(NamedTuple):
    """Missing numbers, both included, and the times in ms since 1970 of the readings around them."""

    from_seq: int
    to_seq: int
    after_ms: int
    before_ms: int

    @property
    def position(self) -> Position:
        """The reading before the gap, which no other gap has."""
        return self.after_ms, self.from_seq - 1


class Completeness(NamedTuple):
    """How many readings were received, and how many were measured; None where that cannot be known."""

    received: int
    expected: int | None

    @property
    def share(self) -> float | None:
        """Received of expected."""
        return None if self.expected is None else self.received / self.expected


class SequenceGaps:
    """Finds gaps in readings of one series, which are added in the order of (ts, seq), each once.

    Keeps the first `limit` gaps after a position, in the order of their positions, and counts all of them.
    """

    def __init__(self, limit: int = 0, past: Position | None = None) -> None:
        self._limit = limit
        self._past = past
        # Rows of first missing number, last one, and the times around them.
        self._gaps: list[Integers] = []
        self._kept = 0
        self._received = self._missing = self._pairs_of_one = 0
        # The end of the current count: what later readings may still be compared with.
        self._ts, self._seq = _NONE, _NONE

    def add(self, ts: Integers, seq: Integers) -> None:
        """Add the next readings: times in ms since 1970, and numbers."""
        counted = (seq >= 0) & (seq < COUNTED_BELOW)
        if not counted.all():
            ts, seq = ts[counted], seq[counted]
        if len(seq):
            self._received += len(seq)
            self._add(np.concatenate((self._ts, ts)), np.concatenate((self._seq, seq)), is_last=False)

    def finish(self) -> Completeness:
        """Return what was counted; nothing is added afterwards."""
        self._add(self._ts, self._seq, is_last=True)
        self._ts, self._seq = _NONE, _NONE
        numerator, denominator = KNOWN_SHARE
        neighbours = self._received - 1
        known = neighbours > 0 and self._pairs_of_one * denominator >= neighbours * numerator
        return Completeness(self._received, self._received + self._missing if known else None)

    def gaps(self) -> list[Gap]:
        """Return the kept gaps, one more than `limit` if there are more."""
        self._trim()
        return [Gap(*row) for found in self._gaps for row in found.tolist()]

    def _add(self, ts: Integers, seq: Integers, *, is_last: bool) -> None:
        if not len(seq):
            return
        pending = 0
        starts = np.concatenate(([False], seq[1:] <= seq[:-1]))
        if starts.any():
            starts, pending = _count_starts(seq, is_last=is_last)
        whole = len(seq) - pending
        counts = np.cumsum(starts[:whole])
        order: Integers | slice = slice(whole)
        if (np.diff(seq[:whole])[~starts[1:whole]] < 0).any():
            order = np.lexsort((seq[:whole], counts))
        in_order_ts, in_order = ts[order], seq[order]
        kept = 0 if is_last else _open_end(in_order, counts)
        self._count_gaps(in_order_ts[: whole - max(kept - 1, 0)], in_order[: whole - max(kept - 1, 0)], counts)
        self._ts = np.concatenate((in_order_ts[whole - kept :], ts[whole:]))
        self._seq = np.concatenate((in_order[whole - kept :], seq[whole:]))

    def _count_gaps(self, ts: Integers, seq: Integers, counts: Integers) -> None:
        """Count the gaps between neighbours in the order of their counts."""
        steps = np.diff(seq)
        steps[np.diff(counts[: len(seq)]) != 0] = 0
        self._pairs_of_one += int(np.count_nonzero(steps == 1))
        at = np.flatnonzero(steps > 1)
        if not len(at):
            return
        # As Python's numbers: together they may have more than 64 bits.
        self._missing += sum(steps[at].tolist()) - len(at)
        found = np.stack((seq[at] + 1, seq[at + 1] - 1, ts[at], ts[at + 1]), 1)
        if self._past is not None:
            after_ms, after_seq = self._past
            found = found[(found[:, 2] > after_ms) | ((found[:, 2] == after_ms) & (found[:, 0] - 1 > after_seq))]
        self._gaps.append(found)
        self._kept += len(found)
        if self._kept > 4 * self._limit + len(seq):
            self._trim()

    def _trim(self) -> None:
        """Keep the first gaps alone, and one more."""
        if self._gaps:
            found = np.concatenate(self._gaps)
            self._gaps = [found[np.lexsort((found[:, 0], found[:, 2]))[: self._limit + 1]]]
            self._kept = len(self._gaps[0])


def _open_end(seq: Integers, counts: Integers) -> int:
    """Return how many of the last numbers in order belong to the last count, and may still get late neighbours.

    The first of them is the one before these.
    """
    begin = int(np.searchsorted(counts, counts[-1]))
    first = begin + int(np.searchsorted(seq[begin:], seq[-1] - MISORDERED))
    return len(seq) - max(first - 1, begin)


def _count_starts(seq: Integers, *, is_last: bool) -> tuple[Booleans, int]:
    """Return which readings start a count, and how many of the last ones cannot be decided yet."""
    steps = np.diff(seq)
    starts = np.concatenate(([False], (steps == 0) | (steps < -MISORDERED)))
    small = np.flatnonzero((steps < 0) & (steps >= -MISORDERED)) + 1
    if not len(small):
        return starts, 0
    # Only parts with small falls have to be looked at one by one.
    bounds = np.concatenate(([0], np.flatnonzero(starts), [len(seq)]))
    pending = 0
    for part in distinct(np.searchsorted(bounds, small, "right")).tolist():
        begin, end = int(bounds[part - 1]), int(bounds[part])
        found, pending = _part_starts(seq[begin:end].tolist(), is_last=is_last or end < len(seq))
        starts[[begin + at for at in found]] = True
        pending = pending if end == len(seq) else 0
    return starts, pending


def _part_starts(seq: Sequence[int], *, is_last: bool) -> tuple[list[int], int]:
    """Return where counts start after the first number, and how many numbers at the end are undecided.

    Numbers below the highest one of their count are undecided until the count goes on above it: then they were late.
    If it does not, they are a count of their own.
    """
    starts: list[int] = []
    begin, size = 0, len(seq)
    while begin < size:
        at, late_from, is_late = _end_of_count(seq, begin)
        if at == size and late_from < size and not is_last:
            return starts, size - late_from
        begin = at if is_late else late_from
        if begin < size:
            starts.append(begin)
    return starts, 0


def _end_of_count(seq: Sequence[int], begin: int) -> tuple[int, int, bool]:
    """Return where a count can no longer go on, since when numbers are undecided, and whether these were late.

    They were if they are missing above the lowest number, and what follows does not go on from them. Later readings may
    be added in any parts: of the count, only what `_open_end` keeps matters here.
    """
    lowest = top = seq[begin]
    known = {top}
    at, late_from, size = begin + 1, begin + 1, len(seq)
    while at < size:
        number = seq[at]
        if number > top:
            lowest = min(lowest, *seq[late_from:at]) if late_from < at else lowest
            top, late_from = number, at + 1
        elif number in known or top - number > MISORDERED:
            break
        known.add(number)
        at += 1
    undecided = seq[late_from:at]
    is_late = all(number > lowest for number in undecided) and not (at < size and undecided and seq[at] > undecided[-1])
    return at, late_from, is_late
