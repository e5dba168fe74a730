"""Many heads of one series at once: their bounds, and their sums where they are of floats alone, as arrays.

Neighbours mostly differ in numbers only, at the same places. All heads of one length are compared with the first of
them at once, and only those that are different anywhere else are read one by one: 1 us a head instead of 12.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from readings.keys import Position
from storage.codec.columns import Booleans
from storage.codec.distinct import distinct
from storage.codec.exact_sums import two_doubles_by_part
from storage.codec.from_documents import split
from storage.codec.head_sums import HeadSums, fields_of, head_sums_from
from storage.codec.packed import Floats, Integers
from storage.codec.sums import Numbers, Sums, first_equal

_BOUNDS = (b"\x03until", b"\x03first", b"\x03last")
_FLOATS = (b"\x01min", b"\x01max", b"\x01sum", b"\x01rest", b"\x01first", b"\x01last")
_MIN, _MAX, _SUM, _REST, _FIRST, _LAST = range(len(_FLOATS))
# ts and seq in `_TS_SEQ_BYTES`, after their types and names.
_TS_AT, _SEQ_AT, _TS_SEQ_BYTES = 4, 17, 25
# Fewer heads of one length are faster one by one.
_FEW = 8


@dataclass(frozen=True, slots=True)
class HeadTable:
    """Heads in the order of their documents.

    `start` and `until`, which is not included, and the `first` and the `last` reading are rows of ts and seq.
    `is_plain`: all that `merged` needs of a head is in arrays, `counts` of readings and of numbers, and `floats` of
    what else `Numbers` has.
    """

    documents: bytes
    begins: Integers
    ends: Integers
    start: Integers
    until: Integers
    first: Integers
    last: Integers
    is_plain: Booleans
    counts: Integers
    floats: Floats

    def __len__(self) -> int:
        return len(self.begins)

    def take(self, index: Integers) -> "HeadTable":
        """Return some of the heads."""
        return replace(self, **{name: getattr(self, name)[index] for name in _ARRAYS})

    def document(self, at: int) -> bytes:
        """Return one of the heads as it is stored."""
        return self.documents[self.begins[at] : self.ends[at]]

    def head(self, at: int) -> HeadSums:
        """Return the sums of one of the heads; BlockError when it is damaged."""
        return head_sums_from(self.document(at))

    def merged(self, begins: Integers, ends: Integers) -> list[Sums]:
        """Return the sums of runs of plain heads, which begin and end at these indexes; none of the runs is empty."""
        if not len(begins):
            return []
        starts = np.concatenate(([0], np.cumsum(ends - begins)[:-1]))
        index = np.arange(int((ends - begins).sum())) + np.repeat(begins - starts, ends - begins)
        counts, floats = np.add.reduceat(self.counts[index], starts), self.floats[index]
        untils = np.append(starts[1:], len(index))
        nearest, rests = two_doubles_by_part(floats[:, _SUM : _REST + 1].ravel(), starts * 2)
        least = floats[first_equal(floats[:, _MIN], np.minimum, starts, untils), _MIN]
        most = floats[first_equal(floats[:, _MAX], np.maximum, starts, untils), _MAX]
        columns = (counts[:, 1], least, most, nearest, rests, floats[starts, _FIRST], floats[untils - 1, _LAST])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [Sums(count, Numbers(*row)) for count, row in zip(counts[:, 0].tolist(), rows, strict=True)]


_ARRAYS = ("begins", "ends", "start", "until", "first", "last", "is_plain", "counts", "floats")


def head_table(documents: bytes) -> HeadTable:
    """Return heads of one series, as stored and back to back; BlockError as `head_sums_from`, DocumentError."""
    at = split(documents) if documents else np.zeros(1, np.int64)
    count = len(at) - 1
    start, until, first, last = np.zeros((4, count, 2), np.int64)
    is_plain, counts, floats = (
        np.zeros(count, np.bool_),
        np.zeros((count, 2), np.int64),
        np.zeros((count, len(_FLOATS))),
    )
    table = HeadTable(documents, at[:-1], at[1:], start, until, first, last, is_plain, counts, floats)
    lengths = np.diff(at)
    for length in distinct(lengths).tolist():
        index = np.flatnonzero(lengths == length)
        if len(index) >= _FEW:
            _fill(table, index, np.frombuffer(documents, np.uint8)[at[index][:, None] + np.arange(length)])
    for one in np.flatnonzero(~table.is_plain).tolist():
        head = head_sums_from(table.document(one))
        for bound, position in zip(_bounds(table), (head.start, head.until, head.first, head.last), strict=True):
            bound[one] = position
    return table


def _bounds(table: HeadTable) -> tuple[Integers, Integers, Integers, Integers]:
    return table.start, table.until, table.first, table.last


def _fill(table: HeadTable, index: Integers, rows: npt.NDArray[np.uint8]) -> None:
    """Read those of the heads at `index`, which are rows of one length, that have the form of the first one."""
    document = rows[0].tobytes()
    layout = _layout(document)
    if layout is None:
        return
    positions, counts, floats, is_fixed = layout
    fixed = np.flatnonzero(is_fixed)
    index, rows = (each[(rows[:, fixed] == rows[0, fixed]).all(1)] for each in (index, rows))

    def column(at: int, dtype: str) -> npt.NDArray[np.generic]:
        return np.ndarray((len(rows),), dtype, rows, at, (rows.shape[1],))

    for bound, position in zip(_bounds(table), positions, strict=True):
        bound[index, 0] = column(position + _TS_AT, "<i8")
        bound[index, 1] = column(position + _SEQ_AT, "<i8")
    for number, position in enumerate(counts):
        table.counts[index, number] = column(position, "<i4")
    for number, position in enumerate(floats):
        table.floats[index, number] = column(position, "<f8")
    # What is out of order, or not finite, is for `head_sums_from`.
    start, until, first, last = (bound[index] for bound in _bounds(table))
    table.is_plain[index] = (
        (table.counts[index] > 0).all(1)
        & np.isfinite(table.floats[index]).all(1)
        & ~is_before(first, start)
        & ~is_before(last, first)
        & is_before(last, until)
    )


def _layout(document: bytes) -> tuple[list[int], list[int], list[int], Booleans] | None:
    """Return where a head has its positions, counts and floats, and which of its bytes others have to have.

    None if its sums are not of floats alone; BlockError when it is no head.
    """
    head_sums_from(document)
    fields = fields_of(document)
    begin, end = fields.get(b"\x03numbers", (0, 0))
    numbers = fields_of(document[begin:end]) if end else {}
    if numbers.keys() != {b"\x10count", *_FLOATS} or b"\x03booleans" in fields or b"\x03texts" in fields:
        return None
    positions = [fields[b"\x03_id"][1] - 1 - _TS_SEQ_BYTES, *(fields[name][0] + 4 for name in _BOUNDS)]
    counts = [fields[b"\x10count"][0], begin + numbers[b"\x10count"][0]]
    floats = [begin + numbers[name][0] for name in _FLOATS]
    is_fixed = np.ones(len(document), np.bool_)
    for name, (at, until) in fields.items():
        if name in _BOUNDS:  # what follows ts and seq is of no interest
            is_fixed[at + 4 + _TS_SEQ_BYTES : until] = False
        elif name not in (b"\x03_id", b"\x03numbers", b"\x10version"):
            is_fixed[at:until] = False
    for at in positions:
        is_fixed[at + _TS_AT : at + _TS_AT + 8] = is_fixed[at + _SEQ_AT : at + _SEQ_AT + 8] = False
    is_fixed[counts[1] : counts[1] + 4] = False
    for at in floats:
        is_fixed[at : at + 8] = False
    return positions, counts, floats, is_fixed


def is_before(positions: Integers, others: Integers | Position) -> Booleans:
    """Return which of the positions, rows of ts and seq, are lower than others: as many rows, or one position."""
    others = np.asarray(others)
    ts, seq = positions[..., 0], positions[..., 1]
    found: Booleans = (ts < others[..., 0]) | (ts == others[..., 0]) & (seq < others[..., 1])
    return found


def live_heads(table: HeadTable, start: Position) -> HeadTable | None:
    """Return the heads that follow each other from `start` on; None if one is missing."""
    if not len(table):
        return None
    if tuple(table.start[0].tolist()) == start and (table.start[1:] == table.until[:-1]).all():
        return table
    live = []
    for at, (begin, until) in enumerate(zip(table.start.tolist(), table.until.tolist(), strict=True)):
        if tuple(begin) == start:
            live.append(at)
            start = tuple(until)
        elif tuple(begin) > start:
            return None
    return table.take(np.array(live, np.int64)) if live else None
