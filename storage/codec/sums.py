"""Sums of readings, by type of value: what a bucket needs of readings that nobody looks at one by one.

A sum of numbers is two doubles, the nearest one and what it misses: an average of many sums is then as exact as that of
all numbers at once. Numbers that are not finite, and readings that are kept whole, are only in `count`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bson import Int64

from storage.codec.columns import Columns, Kind
from storage.codec.packed import BlockError, Floats, Integers

Number = int | float
# Members of an enum take longer to look up.
_FLOAT, _INT64 = int(Kind.FLOAT), int(Kind.INT64)
# Integers up to here are doubles without loss.
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers in the order of (ts, seq). `min` and the others keep their types; `Int64` is an int64 in BSON."""

    count: int
    min: Number
    max: Number
    sum: float
    rest: float
    first: Number
    last: Number


@dataclass(frozen=True, slots=True)
class Booleans:
    """Booleans in the order of (ts, seq); `true` counts those that are."""

    count: int
    true: int
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts in the order of (ts, seq)."""

    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Sums:
    """Readings in the order of (ts, seq); None for a type that none of them has."""

    count: int
    numbers: Numbers | None = None
    booleans: Booleans | None = None
    texts: Texts | None = None

    def document(self) -> dict[str, Any]:
        """Return the sums as they are stored."""
        parts = {"numbers": self.numbers, "booleans": self.booleans, "texts": self.texts}
        return {"count": self.count} | {
            name: {field: getattr(part, field) for field in part.__slots__}
            for name, part in parts.items()
            if part is not None
        }


def merge(parts: Sequence[Sums]) -> Sums:
    """Return the sums of all parts, which follow each other in time; there is at least one."""
    if len(parts) == 1:
        return parts[0]
    return Sums(
        sum(part.count for part in parts),
        _merged_numbers([part.numbers for part in parts if part.numbers is not None]),
        _merged_booleans([part.booleans for part in parts if part.booleans is not None]),
        _merged_texts([part.texts for part in parts if part.texts is not None]),
    )


def _merged_numbers(parts: list[Numbers]) -> Numbers | None:
    if not parts:
        return None
    # Python compares integers and floats exactly.
    return Numbers(
        sum(part.count for part in parts),
        min(part.min for part in parts),
        max(part.max for part in parts),
        *_two_doubles([part.sum for part in parts] + [part.rest for part in parts]),
        parts[0].first,
        parts[-1].last,
    )


def _merged_booleans(parts: list[Booleans]) -> Booleans | None:
    if not parts:
        return None
    count, true = sum(part.count for part in parts), sum(part.true for part in parts)
    return Booleans(count, true, parts[0].first, parts[-1].last)


def _merged_texts(parts: list[Texts]) -> Texts | None:
    return Texts(sum(part.count for part in parts), parts[0].first, parts[-1].last) if parts else None


def _two_doubles(numbers: list[float]) -> tuple[float, float]:
    """Return the double nearest to the exact sum, and the one nearest to what it misses."""
    try:
        nearest = math.fsum(numbers)
        return nearest, math.fsum((-nearest, *numbers)) if math.isfinite(nearest) else 0.0
    except OverflowError:  # on the way, or in the end: then the sum is infinite
        return math.fsum(number / 2**64 for number in numbers) * 2.0**64, 0.0
    except ValueError:  # of sums that are infinite in both directions
        return math.nan, 0.0


def sums_of(columns: Columns, starts: Integers) -> list[Sums]:
    """Return the sums of each part of ordered columns, which start at these indexes: the first one at 0, none empty."""
    counts = np.diff(starts, append=len(columns)).tolist()
    kinds = columns.kinds
    numbers = _numbers(columns, starts)
    booleans: list[Booleans | None] = [None] * len(starts)
    texts: list[Texts | None] = [None] * len(starts)
    if not (kinds == Kind.FLOAT).all():
        for part, index in _by_part(np.flatnonzero(kinds == Kind.BOOLEAN), starts):
            values = columns.values[index]
            booleans[part] = Booleans(len(index), int(values.sum()), bool(values[0]), bool(values[-1]))
        for part, index in _by_part(np.flatnonzero(kinds == Kind.TEXT), starts):
            first, last = (text_at(columns, at) for at in (index[0], index[-1]))
            texts[part] = Texts(len(index), first, last)
    return [Sums(*fields) for fields in zip(counts, numbers, booleans, texts, strict=True)]


def text_at(columns: Columns, at: int) -> str:
    """Return a text."""
    # Texts are UTF-8, or readers could not have decoded them: what else there is shows as replacement characters.
    text: bytes = columns.texts[columns.values[at]]
    return text.decode(errors="replace")


def _by_part(index: Integers, starts: Integers) -> Iterable[tuple[int, Integers]]:
    """Yield the number of each part that has some of these readings, and which."""
    bounds = [*np.searchsorted(index, starts).tolist(), len(index)]
    for part in range(len(starts)):
        if bounds[part] < bounds[part + 1]:
            yield part, index[bounds[part] : bounds[part + 1]]


def _numbers(columns: Columns, starts: Integers) -> list[Numbers | None]:
    index, floats, is_exact = _finite(columns)
    sums: list[Numbers | None] = [None] * len(starts)
    if not len(index):
        return sums
    bounds = np.append(np.searchsorted(index, starts), len(index))
    parts = np.flatnonzero(bounds[1:] > bounds[:-1])
    begins, ends = bounds[:-1][parts], bounds[1:][parts]
    exact = floats if is_exact else np.array([number_at(columns, at) for at in index.tolist()], object)
    least, most = (_first_equal(exact, extreme, begins, ends) for extreme in (np.minimum, np.maximum))
    doubles = floats.tolist() if is_exact else exact.tolist()
    rows = zip(*(array.tolist() for array in (parts, begins, ends, least, most)), strict=True)
    for part, begin, end, *places in rows:
        low, high, first, last = (number_at(columns, index[at]) for at in (*places, begin, end - 1))
        addends = doubles[begin:end] if is_exact else _as_doubles(doubles[begin:end])
        sums[part] = Numbers(end - begin, low, high, *_two_doubles(addends), first, last)
    return sums


def _finite(columns: Columns) -> tuple[Integers, Floats, bool]:
    """Return where the finite numbers are, the numbers as doubles, and whether that lost nothing."""
    kinds, values = columns.kinds, columns.values
    floats = values.view(np.float64)
    if (kinds == Kind.FLOAT).all():
        index = np.flatnonzero(np.isfinite(floats))
        return index, floats if len(index) == len(floats) else floats[index], True
    is_float = kinds == Kind.FLOAT
    is_integer = (kinds == Kind.INT32) | (kinds == Kind.INT64)
    index = np.flatnonzero(is_integer | is_float & np.isfinite(np.where(is_float, floats, 0)))
    integers = values[is_integer]
    is_exact = not len(integers) or bool(integers.min() >= -_EXACT and integers.max() <= _EXACT)
    return index, np.where(is_float, floats, values.astype(np.float64))[index], is_exact


def _first_equal(numbers: Any, extreme: np.ufunc, begins: Integers, ends: Integers) -> Integers:
    """Return where in each part, which cover all numbers, its extreme is first."""
    extremes = np.repeat(extreme.reduceat(numbers, begins), ends - begins)
    found = np.flatnonzero(numbers == extremes)
    return found[np.searchsorted(found, begins)]


def number_at(columns: Columns, at: int) -> Number:
    """Return a number with its type."""
    kind, value = int(columns.kinds[at]), int(columns.values[at])
    if kind == _FLOAT:
        return float(columns.values.view(np.float64)[at])
    return Int64(value) if kind == _INT64 else value


def _as_doubles(numbers: list[Number]) -> list[float]:
    """Return doubles with the same sum."""
    parts = [number for number in numbers if isinstance(number, float)]
    for number in numbers:
        if not isinstance(number, float):
            low = number & 0xFFFF_FFFF
            parts += (float(number - low), float(low))
    return parts


_FIELDS: dict[str, tuple[type[Numbers] | type[Booleans] | type[Texts], dict[str, tuple[type, ...]]]] = {
    "numbers": (Numbers, dict.fromkeys(Numbers.__slots__, (int, float))),
    "booleans": (Booleans, {"count": (int,), "true": (int,), "first": (bool,), "last": (bool,)}),
    "texts": (Texts, {"count": (int,), "first": (str,), "last": (str,)}),
}


def sums_from(document: dict[str, Any]) -> Sums:
    """Return the sums that `Sums.document` stored; BlockError for any other document."""
    count = document.get("count")
    if type(count) is not int or count < 1:
        raise BlockError(f"a count is {count!r}")
    parts: dict[str, Any] = {}
    for name, (kind, fields) in _FIELDS.items():
        if (part := document.get(name)) is None:
            continue
        if not isinstance(part, dict) or part.keys() != fields.keys():
            raise BlockError(f"{name} have other fields than {', '.join(fields)}")
        for field, types in fields.items():
            if not isinstance(part[field], types) or (isinstance(part[field], bool) and bool not in types):
                raise BlockError(f"{field} of {name} is {part[field]!r}")
        parts[name] = kind(**part)
    return Sums(count, **parts)
