"""Sums of readings, by type of value: what a bucket needs of readings that nobody looks at one by one.

A sum of numbers is two doubles, the nearest one and what it misses: an average of many sums is then as exact as that of
all numbers at once. Numbers that are not finite, and values of other types, are only in `count`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from bson import Int64

from storage.codec.columns import Columns, Kind
from storage.codec.exact_sums import two_doubles, two_doubles_by_part
from storage.codec.packed import BlockError, Floats, Integers
from storage.codec.plain_values import with_plain_values

Number = int | float
# Members of an enum take longer to look up.
_FLOAT, _INT64 = int(Kind.FLOAT), int(Kind.INT64)
# Integers up to here are doubles without loss.
_EXACT = 2**53


# Structs take a third of a frozen dataclass's time to create, and there is one or more an hour and series.
class Numbers(msgspec.Struct, frozen=True, gc=False):
    """Numbers in the order of (ts, seq). `min` and the others keep their types; `Int64` is an int64 in BSON."""

    count: int
    min: Number
    max: Number
    sum: float
    rest: float
    first: Number
    last: Number


class Booleans(msgspec.Struct, frozen=True, gc=False):
    """Booleans in the order of (ts, seq); `true` counts those that are."""

    count: int
    true: int
    first: bool
    last: bool


class Texts(msgspec.Struct, frozen=True, gc=False):
    """Texts in the order of (ts, seq)."""

    count: int
    first: str
    last: str


class Sums(msgspec.Struct, frozen=True, gc=False):
    """Readings in the order of (ts, seq); None for a type that none of them has."""

    count: int
    numbers: Numbers | None = None
    booleans: Booleans | None = None
    texts: Texts | None = None

    def document(self) -> dict[str, Any]:
        """Return the sums as they are stored."""
        parts = {"numbers": self.numbers, "booleans": self.booleans, "texts": self.texts}
        return {"count": self.count} | {
            name: {field: getattr(part, field) for field in part.__struct_fields__}
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
    if len(parts) == 1:
        return parts[0]
    # Python compares integers and floats exactly.
    return Numbers(
        sum([part.count for part in parts]),
        min([part.min for part in parts]),
        max([part.max for part in parts]),
        *two_doubles([part.sum for part in parts] + [part.rest for part in parts]),
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


def sums_of(columns: Columns, starts: Integers) -> list[Sums]:
    """Return the sums of each part of ordered columns, which start at these indexes: the first one at 0, none empty."""
    columns = with_plain_values(columns)
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
    sums: list[Numbers | None] = [None] * len(starts)
    index, exact, addends = _finite(columns)
    if not len(index):
        return sums
    bounds = np.append(np.searchsorted(index, starts), len(index))
    parts = np.flatnonzero(bounds[1:] > bounds[:-1])
    begins, ends = bounds[:-1][parts], bounds[1:][parts]
    nearest, rests = two_doubles_by_part(addends[0], begins)
    if len(addends) == 2:
        low, lost = two_doubles_by_part(addends[1], begins)
        both = [
            two_doubles(list(each)) for each in zip(*map(np.ndarray.tolist, (nearest, rests, low, lost)), strict=True)
        ]
        nearest, rests = np.array(both).T
    places = [first_equal(exact, extreme, begins, ends) for extreme in (np.minimum, np.maximum)]
    least, most, first, last = (_numbers_at(columns, index[at]) for at in (*places, begins, ends - 1))
    counts = (ends - begins).tolist()
    fields = zip(counts, least, most, nearest.tolist(), rests.tolist(), first, last, strict=True)
    for part, each in zip(parts.tolist(), fields, strict=True):
        sums[part] = Numbers(*each)
    return sums


def _finite(columns: Columns) -> tuple[Integers, Any, list[Floats]]:
    """Return where the finite numbers are, the numbers in an array without loss, and as one or two addends each."""
    kinds, values = columns.kinds, columns.values
    floats = values.view(np.float64)
    is_float = kinds == Kind.FLOAT
    if is_float.all():
        index = np.flatnonzero(np.isfinite(floats))
        floats = floats if len(index) == len(floats) else floats[index]
        return index, floats, [floats]
    is_integer = (kinds == Kind.INT32) | (kinds == Kind.INT64)
    index = np.flatnonzero(is_integer | is_float & np.isfinite(np.where(is_float, floats, 0)))
    is_float, integers = is_float[index], np.where(is_integer, values, 0)[index]
    floats = np.where(is_float, floats[index], integers)
    if not len(index) or (integers.min() >= -_EXACT and integers.max() <= _EXACT):
        return index, floats, [floats]
    exact = integers if not is_float.any() else np.array(_numbers_at(columns, index), object)
    low = integers & 0xFFFF_FFFF
    return index, exact, [np.where(is_float, floats, integers - low), low.astype(np.float64)]


def first_equal(numbers: Any, extreme: np.ufunc, begins: Integers, ends: Integers) -> Integers:
    """Return where in each part, which cover all numbers, its extreme is first."""
    extremes = np.repeat(extreme.reduceat(numbers, begins), ends - begins)
    found = np.flatnonzero(numbers == extremes)
    return found[np.searchsorted(found, begins)]


def _numbers_at(columns: Columns, index: Integers) -> list[Number]:
    """Return numbers with their types."""
    kinds, values = columns.kinds[index], columns.values[index]
    if (kinds == _FLOAT).all():
        floats: list[Number] = values.view(np.float64).tolist()
        return floats
    rows = zip(kinds.tolist(), values.tolist(), values.view(np.float64).tolist(), strict=True)
    return [float_ if kind == _FLOAT else Int64(value) if kind == _INT64 else value for kind, value, float_ in rows]


def number_at(columns: Columns, at: int) -> Number:
    """Return a number with its type."""
    kind, value = int(columns.kinds[at]), int(columns.values[at])
    if kind == _FLOAT:
        return float(columns.values.view(np.float64)[at])
    return Int64(value) if kind == _INT64 else value


_Part = type[Numbers] | type[Booleans] | type[Texts]
_PARTS: dict[str, _Part] = {"numbers": Numbers, "booleans": Booleans, "texts": Texts}
# The types of each field as BSON gives them. Most numbers pass this without a look at each.
_NUMBER_TYPES = frozenset((int, float, Int64))
_TYPES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "numbers": dict.fromkeys(Numbers.__struct_fields__, (int, float)),
    "booleans": {"count": int, "true": int, "first": bool, "last": bool},
    "texts": {"count": int, "first": str, "last": str},
}


def sums_from(document: dict[str, Any]) -> Sums:
    """Return the sums that `Sums.document` stored; BlockError for any other document."""
    count = document.get("count")
    if type(count) is not int or count < 1:
        raise BlockError(f"a count is {count!r}")
    parts: dict[str, Any] = {}
    for name, kind in _PARTS.items():
        if (part := document.get(name)) is not None:
            parts[name] = _checked(name, kind, part)
    return Sums(count, **parts)


def _checked(name: str, kind: _Part, part: Any) -> Any:
    fields = kind.__struct_fields__
    if not isinstance(part, dict) or (tuple(part) != fields and part.keys() != set(fields)):
        raise BlockError(f"{name} have other fields than {', '.join(fields)}")
    if kind is not Numbers or not _NUMBER_TYPES.issuperset(map(type, part.values())):
        for field, types in _TYPES[name].items():
            if not isinstance(part[field], types) or (isinstance(part[field], bool) and types is not bool):
                raise BlockError(f"{field} of {name} is {part[field]!r}")
    return kind(**part)
