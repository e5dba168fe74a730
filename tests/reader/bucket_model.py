"""Buckets in plain Python: what the reader should answer for readings in memory."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

import pytest

from readings.reading import Reading
from runtime.times import rfc3339

# Half of a step beyond the largest double: sums from here on are infinite.
OVERFLOW = 2**1024 - 2**970


def in_buckets(readings: Iterable[Reading], boundaries: Sequence[int]) -> list[tuple[int, list[Any]]]:
    """Return the start of each bucket that contains readings, and their values in order."""
    inside = [one for one in readings if boundaries[0] <= one.ts_ms < boundaries[-1]]
    inside.sort(key=lambda one: (one.ts_ms, one.seq))
    groups = groupby(inside, key=lambda one: boundaries[bisect_right(boundaries, one.ts_ms) - 1])
    return [(start, [one.value for one in group]) for start, group in groups]


def by_kind(values: Iterable[Any]) -> tuple[list[Any], list[bool], list[str]]:
    """Return the numbers, the booleans and the texts."""
    booleans = [value for value in values if isinstance(value, bool)]
    texts = [value for value in values if isinstance(value, str)]
    return [value for value in values if not isinstance(value, bool | str)], booleans, texts


def numbers_of(values: Sequence[Any]) -> dict[str, Any]:
    exact = sum(map(Fraction, values), Fraction())
    average = pytest.approx(float(exact / len(values)), rel=1e-12, abs=0) if abs(exact) < OVERFLOW else None
    return {"min": min(values), "max": max(values), "avg": average} | ends_of(values)


def ends_of(values: Sequence[Any]) -> dict[str, Any]:
    return {"count": len(values), "first": values[0], "last": values[-1]}


def summary(readings: Iterable[Reading], boundaries: Sequence[int]) -> list[dict[str, Any]]:
    """Return the buckets of a request that names no `values`."""
    found = []
    for start, values in in_buckets(readings, boundaries):
        numbers, booleans, texts = by_kind(values)
        bucket: dict[str, Any] = {"ts": rfc3339(start), "count": 0}
        if numbers or booleans:
            bucket |= numbers_of(numbers or [int(value) for value in booleans])
        if booleans:
            bucket["booleans"] = {"on": sum(booleans)} | ends_of(booleans)
        if texts:
            bucket["texts"] = ends_of(texts)
        found.append(bucket)
    return found


def number_buckets(readings: Iterable[Reading], boundaries: Sequence[int]) -> list[dict[str, Any]]:
    """Return the buckets of `values=number`."""
    numbers = [one for one in readings if not isinstance(one.value, bool | str)]
    return [{"ts": rfc3339(start)} | numbers_of(values) for start, values in in_buckets(numbers, boundaries)]


def kind_buckets(readings: Iterable[Reading], boundaries: Sequence[int]) -> list[dict[str, Any]]:
    """Return the buckets of `values=all`."""
    found = []
    for start, values in in_buckets(readings, boundaries):
        numbers, booleans, texts = by_kind(values)
        bucket: dict[str, Any] = {"ts": rfc3339(start), "count": len(values)}
        if numbers:
            bucket["numbers"] = numbers_of(numbers)
        if booleans:
            bucket["booleans"] = {"on": sum(booleans)} | ends_of(booleans)
        if texts:
            often = sorted({(-texts.count(text), text.encode()) for text in texts})[:5]
            bucket["texts"] = ends_of(texts) | {"top": [[text.decode(), -count] for count, text in often]}
        found.append(bucket)
    return found


MODELS = {"": summary, "number": number_buckets, "all": kind_buckets}
