"""The types of the values of a CSV: numbers, texts or booleans, one type per sensor type.

A cell that does not fit is an error, not a text: `1,5`, `45%` or `NA` among numbers would otherwise become readings
that no chart and no sum includes.
"""

import math
import re
from collections import Counter
from typing import Literal

from readings.reading import Value
from simulator.replay.cells import INTEGER
from simulator.replay.times import MAX_DIGITS

ValueType = Literal["auto", "number", "text", "boolean"]
VALUE_TYPES: tuple[ValueType, ...] = ("auto", "number", "text", "boolean")
Kind = Literal["number", "text", "boolean", "unknown"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# Localized numbers: 1,5 and 1,234.5 and 1.234,5 and 1 234.5 and 45%.
_LOCALIZED_NUMBER = re.compile(
    r"[+-]?(\d*[.,]?\d+([eE][+-]?\d+)?|\d{1,3}([,.'_ \u00a0\u202f]\d{3})+([.,]\d+)?)(\s?%)?", re.ASCII
)
# Common markers of missing values. They say nothing about the other values and do not vote; if there is nothing else,
# the type is unknown.
_MISSING_MARKERS = frozenset({"na", "n/a", "nan", "null", "none", "nil", "mm", "m", "?", "-", "--", "."})
_DECIMAL_COMMA = re.compile(r"[+-]?(\d+,\d*|,\d+)([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_DIGITS = {"1": True, "0": False}
_REMEDIES = "--missing {cell} skips such rows, --value-type text reads all values as texts"


class TypeVotes:
    """Counts what the cells of one sensor type look like."""

    __slots__ = ("_counts", "markers")

    def __init__(self) -> None:
        self._counts: Counter[Kind] = Counter()
        self.markers: Counter[str] = Counter()

    @property
    def is_empty(self) -> bool:
        """True if there was no cell."""
        return not self._counts and not self.markers

    def add(self, cell: str) -> None:
        """Count a cell that is not missing. Localized numbers count as numbers, and are refused later."""
        if is_missing_marker(cell):
            self.markers[cell] += 1
        elif looks_numeric(cell):
            self._counts["number"] += 1
        else:
            self._counts["boolean" if cell.lower() in _BOOLEANS else "text"] += 1

    @property
    def kind(self) -> Kind:
        """Number if at least half of the cells are numbers, else boolean by the same rule, else text.

        Unknown if all of them are markers of missing values.
        """
        if self.markers and not self._counts:
            return "unknown"
        half = self._counts.total() / 2
        for kind in ("number", "boolean"):
            if self._counts[kind] and self._counts[kind] >= half:
                return kind
        return "text"


def is_missing_marker(cell: str) -> bool:
    """Return whether a cell is a usual mark of a missing value."""
    return len(cell) <= 5 and cell.lower() in _MISSING_MARKERS


def looks_numeric(cell: str) -> bool:
    """Return whether a cell is a number, also one that is not finite or as people write it."""
    forms = (_NUMBER, _NOT_FINITE, _LOCALIZED_NUMBER)
    return any(form.fullmatch(cell) for form in forms)


def parse_value(cell: str, kind: Kind, *, inferred: bool, decimal: str = ".") -> Value:
    """Return the value of a cell; ValueError if it does not fit. `inferred`: `kind` was inferred from the file."""
    if kind == "text":
        return cell
    if kind == "unknown":
        remedies = _REMEDIES.format(cell=repr(cell))
        raise ValueError(f"{cell!r} marks a missing value, and no other value here shows their type; {remedies}")
    if kind == "boolean":
        value = _BOOLEANS.get(cell.lower()) if inferred else (_BOOLEANS | _DIGITS).get(cell.lower())
        if value is None:
            raise ValueError(_type_mismatch(cell, "true or false", inferred=inferred))
        return value
    number = _with_decimal_comma(cell) if decimal == "," else parse_number(cell)
    if number is None or not math.isfinite(number):
        infinite = number is not None or _NOT_FINITE.fullmatch(cell)
        example = "1234,5" if decimal == "," else "1234.5"
        expected = "a finite number" if infinite else f"a number such as {example}"
        raise ValueError(_type_mismatch(cell, expected, inferred=inferred, decimal=decimal))
    return number


def parse_number(cell: str) -> int | float | None:
    """Return the number in a cell, as programs write it, or None."""
    if len(cell) <= MAX_DIGITS and INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else None


def _with_decimal_comma(cell: str) -> int | float | None:
    if _DECIMAL_COMMA.fullmatch(cell):
        return float(cell.replace(",", "."))
    return None if "." in cell else parse_number(cell)


def _type_mismatch(cell: str, expected: str, *, inferred: bool, decimal: str = ".") -> str:
    reason = "; at least half of the values here are" if inferred else ""
    remedies = _REMEDIES.format(cell=repr(cell[:64]))
    if _LOCALIZED_NUMBER.fullmatch(cell) and not (_NUMBER.fullmatch(cell) and decimal == "."):
        remedies = f"write it without thousands separators and %; --decimal says which sign is the decimal; {remedies}"
    return f"{cell[:64]!r} is not {expected}{reason}; {remedies}"
