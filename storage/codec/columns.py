"""Readings of one series as columns: the form in which they are merged, encoded and searched.

A column has one entry a reading, in the same order. Whatever is not a number is in a list once, and its column has
indexes into that list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from storage.codec.packed import Floats, Integers

Bytes = npt.NDArray[np.uint8]
Booleans = npt.NDArray[np.bool_]
INT32 = range(-(2**31), 2**31)


class Kind(IntEnum):
    """The type of a value: its code in BSON, or OTHER for a document that is kept whole."""

    OTHER = 0x00
    FLOAT = 0x01
    TEXT = 0x02
    BOOLEAN = 0x08
    INT32 = 0x10
    INT64 = 0x12


@dataclass(frozen=True, slots=True)
class Columns:
    """Readings of one series, in any order and with repeats until `first_wins`.

    `series` are the bytes of `series_bytes`. Times are milliseconds since 1970. `values` holds a float's bits, an
    integer, 0 or 1 of a boolean, the index of a text in `texts` or of a whole document in `others`. A tail is what
    follows `receivedAt` in a document, without its closing zero: the attributes, as BSON. If its first byte is 1
    instead of 0, the latitude, longitude and altitude in it are zeros, and in `places` instead (n x 3, or None when
    no tail has any). `tails` and `received` mean nothing where `kinds` is OTHER.
    """

    series: bytes
    ts: Integers
    seq: Integers
    received: Integers
    seals: Integers
    kinds: Bytes
    values: Integers
    tails: Integers
    places: Floats | None
    tail_list: list[bytes]
    texts: list[bytes]
    others: list[bytes]

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, index: Integers | Booleans | slice) -> "Columns":
        """Return some of the readings, in the order of `index`."""
        arrays = {name: getattr(self, name)[index] for name in _ARRAYS}
        return replace(self, **arrays, places=None if self.places is None else self.places[index])

    def is_sorted(self) -> bool:
        """Return whether (ts, seq) increases from each reading to the next."""
        ts, seq = self.ts, self.seq
        later = ts[1:] > ts[:-1]
        return bool((later | (ts[1:] == ts[:-1]) & (seq[1:] > seq[:-1])).all())


_ARRAYS = ("ts", "seq", "received", "seals", "kinds", "values", "tails")


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Return the readings of all parts, at least one, one part after the other; ValueError if of several series."""
    first = parts[0]
    if any(part.series != first.series for part in parts):
        raise ValueError("the parts are of several series")
    if len(parts) == 1:
        return first
    values, tails = [], []
    tail_list: dict[bytes, int] = {}
    texts: dict[bytes, int] = {}
    others: list[bytes] = []
    for part in parts:
        value = part.values
        if part.texts:
            value = _with_new_indexes(value, part.kinds == Kind.TEXT, part.texts, texts)
        if part.others:
            value = np.where(part.kinds == Kind.OTHER, value + len(others), value)
            others += part.others
        values.append(value)
        tails.append(_with_new_indexes(part.tails, None, part.tail_list, tail_list))
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS[:5]}
    return Columns(
        first.series,
        **arrays,
        values=np.concatenate(values),
        tails=np.concatenate(tails),
        places=_places(parts),
        tail_list=list(tail_list),
        texts=list(texts),
        others=others,
    )


def _with_new_indexes(index: Integers, where: Booleans | None, items: list[bytes], known: dict[bytes, int]) -> Integers:
    """Return a column of indexes into `items` as indexes into `known`, which gains what it lacks."""
    new = np.array([known.setdefault(item, len(known)) for item in items] or [0], np.int64)
    if where is None:
        return new[index]
    return np.where(where, new[np.where(where, index, 0)], index)


def _places(parts: Sequence[Columns]) -> Floats | None:
    if all(part.places is None for part in parts):
        return None
    return np.concatenate([np.zeros((len(part), 3)) if part.places is None else part.places for part in parts])


class Merged(NamedTuple):
    """Columns in the order of (ts, seq), each identity once, and what was left out."""

    columns: Columns
    redone: int
    repeated: int


def first_wins(columns: Columns) -> Merged:
    """Return the readings in order, of each identity the one with the lowest seal number.

    `redone` counts other copies with the same seal number as the one that is kept: the same reading, read a second
    time. `repeated` counts those with a higher one: the reading was sent again after its first copy was sealed.
    """
    if columns.is_sorted():
        return Merged(columns, 0, 0)
    order = np.lexsort((columns.seals, columns.seq, columns.ts))
    ts, seq, seals = columns.ts[order], columns.seq[order], columns.seals[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (ts[1:] != ts[:-1]) | (seq[1:] != seq[:-1])
    kept = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    redone = int(np.count_nonzero(~is_first & (seals == seals[kept])))
    return Merged(columns.take(order[is_first]), redone, int(np.count_nonzero(~is_first)) - redone)
