"""Buckets from readings as columns and from precomputed sums, in the order of time.

Nothing here knows where readings are stored. Both ways give the same statistics, but for the last digits of `avg`.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from storage.codec.columns import Columns, Kind
from storage.codec.packed import Integers
from storage.codec.plain_values import with_plain_values
from storage.codec.sums import Booleans, Numbers, Sums, Texts, merge, sums_of
from storage.places.reading import Places
from storage.places.stretches import Stretch, stretches
from storage.places.threads import in_thread_if_large
from storage.places.window import Window

TOP_TEXTS = 5
# Distinct texts of one bucket that are counted for `top`: some 30 to 200 MB.
MAX_TEXTS = 200_000


class TooManyTexts(Exception):
    """A bucket has more than MAX_TEXTS distinct texts, of which the most frequent ones are wanted."""


class BucketSums:
    """The buckets between boundaries, as `boundaries` returns them, of the readings of one series.

    Readings are added in the order of (ts, seq), each once. Those outside of the boundaries are ignored; a range that
    begins or ends within a bucket is the caller's to apply. Only finite numbers, booleans and texts count. Other
    values, which only a manual write can have stored, do not, nor do NaN and infinities, which JSON does not have.

    `numbers_alone` ignores booleans and texts. `top` also finds the most frequent texts of each bucket.
    """

    def __init__(self, boundaries: Sequence[int], *, numbers_alone: bool = False, top: bool = False) -> None:
        self._boundaries = boundaries
        # The others may have more than 64 bits.
        self._inner: Integers = np.array(boundaries[1:-1], np.int64)
        self._numbers_alone = numbers_alone
        self._top = _TopTexts() if top and not numbers_alone else None
        self._sums: dict[int, list[Sums]] = {}
        self._last_bucket = 0
        # The bucket that `in_one_bucket` found, and the times in it.
        self._bucket, self._start, self._end = 0, 0, 0

    def can_use(self, sums: Sums) -> bool:
        """Return whether `add_sums` may take these; else their columns must be added."""
        return self._top is None or sums.texts is None

    def in_one_bucket(self, first_ms: int, last_ms: int) -> bool:
        """Return whether two times, both included, are in one bucket."""
        if not self._start <= first_ms < self._end:
            if not self._boundaries[0] <= first_ms < self._boundaries[-1]:
                return False
            self._bucket = bisect_right(self._boundaries, first_ms) - 1
            self._start, self._end = self._boundaries[self._bucket], self._boundaries[self._bucket + 1]
        return last_ms < self._end

    async def add_all(self, places: Places, window: Window) -> None:
        """Add the readings of a window, from wherever they are; the driver's errors, BlockError, TooManyTexts."""
        async with aclosing(stretches(places, window, self)) as found:
            async for one in found:
                if isinstance(one, Stretch):
                    self.add_sums(*one)
                else:
                    await in_thread_if_large(len(one), partial(self.add_columns, one))

    def will_do(self, stretch: Stretch) -> bool:
        """Return whether `add_sums` may take the sums of a stretch."""
        return self.in_one_bucket(stretch.first_ms, stretch.last_ms) and self.can_use(stretch.sums)

    def buckets_of(self, first_ms: Integers, last_ms: Integers) -> Integers:
        """Return in which bucket each two times are, both included; -1 if they are in several, or in none."""
        buckets = np.searchsorted(self._inner, first_ms, "right")
        is_one = buckets == np.searchsorted(self._inner, last_ms, "right")
        is_inside = (first_ms >= self._boundaries[0]) & (last_ms < self._boundaries[-1])
        return np.where(is_one & is_inside, buckets, -1)

    def add_sums(self, first_ms: int, last_ms: int, sums: Sums) -> None:
        """Add the sums of readings between two times, both included.

        ValueError when they are in several buckets, in an earlier one than others, or not usable (see `can_use`).
        """
        if not self.in_one_bucket(first_ms, last_ms):
            if last_ms < self._boundaries[0] or first_ms >= self._boundaries[-1]:
                return
            raise ValueError("the sums are of several buckets")
        if not self.can_use(sums):
            raise ValueError("sums do not have the most frequent texts")
        self._add(self._bucket, sums)

    def add_columns(self, columns: Columns) -> None:
        """Add ordered readings. ValueError when they are in earlier buckets than others; TooManyTexts."""
        columns = with_plain_values(self._inside(columns))
        if not len(columns):
            return
        first = int(np.searchsorted(self._inner, columns.ts[0], "right"))
        last = int(np.searchsorted(self._inner, columns.ts[-1], "right"))
        starts = np.concatenate(([0], np.searchsorted(columns.ts, self._inner[first:last])))
        has_some = np.diff(starts, append=len(columns)) > 0
        buckets, starts = (np.flatnonzero(has_some) + first).tolist(), starts[has_some]
        for bucket, sums in zip(buckets, sums_of(columns, starts), strict=True):
            self._add(bucket, sums)
        if self._top is not None:
            self._top.add(columns, starts, buckets)

    def _add(self, bucket: int, sums: Sums) -> None:
        if bucket < self._last_bucket:
            raise ValueError("readings are added in the order of time")
        self._last_bucket = bucket
        self._sums.setdefault(bucket, []).append(sums)

    def _inside(self, columns: Columns) -> Columns:
        """Return the readings between the first and the last boundary."""
        ts, start, end = columns.ts, self._boundaries[0], self._boundaries[-1]
        if not len(ts):
            return columns
        begin = int(np.searchsorted(ts, start)) if ts[0] < start else 0
        until = int(np.searchsorted(ts, end)) if ts[-1] >= end else len(ts)
        return columns if until - begin == len(ts) else columns.take(slice(begin, until))

    def parts(self) -> list[dict[str, Any]]:
        """Return the statistics, in the order of time; buckets without any are left out.

        `_id` is the bucket's start in milliseconds since 1970, or `at` and `kind`. Numbers have `min`, `max`, `avg`,
        `first`, `last` and `count`, booleans and texts what they have of them; booleans `on`, texts `top`.
        """
        merged = ((self._boundaries[bucket], bucket, merge(parts)) for bucket, parts in self._sums.items())
        if self._numbers_alone:
            return [{"_id": at} | _numbers(sums.numbers) for at, _, sums in merged if sums.numbers is not None]
        tops = {} if self._top is None else self._top.found()
        return [
            {"_id": {"at": at, "kind": kind}} | part
            for at, bucket, sums in merged
            for kind, part in _by_kind(sums, tops.get(bucket))
        ]


def _by_kind(sums: Sums, top: list[list[Any]] | None) -> Iterable[tuple[str, dict[str, Any]]]:
    if sums.numbers is not None:
        yield "number", _numbers(sums.numbers)
    if sums.booleans is not None:
        yield "boolean", _booleans(sums.booleans)
    if sums.texts is not None:
        yield "text", _texts(sums.texts) | ({} if top is None else {"top": top})


def _numbers(sums: Numbers) -> dict[str, Any]:
    # A sum that overflows is infinite, or of infinities of both signs.
    average = (sums.sum + sums.rest) / sums.count if math.isfinite(sums.sum) else None
    return {
        "min": sums.min,
        "max": sums.max,
        "avg": average,
        "first": sums.first,
        "last": sums.last,
        "count": sums.count,
    }


def _booleans(sums: Booleans) -> dict[str, Any]:
    return {"on": sums.true, "count": sums.count, "first": sums.first, "last": sums.last}


def _texts(sums: Texts) -> dict[str, Any]:
    return {"count": sums.count, "first": sums.first, "last": sums.last}


class _TopTexts:
    """The TOP_TEXTS most frequent texts of each bucket; of equally frequent ones, the first in the order of UTF-8."""

    def __init__(self) -> None:
        self._found: dict[int, list[list[Any]]] = {}
        # Readings come in order, so that texts are counted in one bucket at a time.
        self._bucket = -1
        self._counts: dict[bytes, int] = {}

    def add(self, columns: Columns, starts: Integers, buckets: list[int]) -> None:
        """Count the texts of parts, which begin at `starts` and are of `buckets`; TooManyTexts."""
        index = np.flatnonzero(columns.kinds == Kind.TEXT)
        if not len(index):
            return
        parts = np.searchsorted(starts, index, "right") - 1
        each, counts = _distinct(parts * len(columns.texts) + columns.values[index])
        rows = zip(*(array.tolist() for array in (*np.divmod(each, len(columns.texts)), counts)), strict=True)
        for part, texts in groupby(rows, itemgetter(0)):
            self._begin(buckets[part])
            known = self._counts
            for _, text, count in texts:
                value = columns.texts[text]
                known[value] = known.get(value, 0) + count
            if len(known) > MAX_TEXTS:
                raise TooManyTexts(f"more than {MAX_TEXTS:,} distinct texts are in one bucket")

    def found(self) -> dict[int, list[list[Any]]]:
        """Return [text, count] of the most frequent texts, by bucket."""
        self._begin(self._bucket)
        return self._found

    def _begin(self, bucket: int) -> None:
        if self._counts:
            most = sorted(self._counts.items(), key=lambda each: (-each[1], each[0]))[:TOP_TEXTS]
            self._found[self._bucket] = [[text.decode(errors="replace"), count] for text, count in most]
        if bucket != self._bucket:
            self._bucket, self._counts = bucket, {}


def _distinct(numbers: Integers) -> tuple[Integers, Integers]:
    """Return the distinct numbers, none of which is negative, in order, and how often each occurs."""
    if numbers.max() > 4 * len(numbers):
        return np.unique(numbers, return_counts=True)
    counts = np.bincount(numbers)
    found = np.flatnonzero(counts)
    return found, counts[found]
