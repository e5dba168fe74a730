"""What the values of a CSV are: numbers, texts or booleans, one type a sensor type, so that no typing error is stored.

A cell that does not fit is an error, not a text: `1,5`, `45%` or `NA` among numbers would otherwise be readings that no
chart and no sum ever shows.
"""

import math
import re
from collections import Counter
from typing import Literal

from readings.reading import Value
from simulator.replay.cells import INTEGER, MAX_DIGITS

ValueType = Literal["auto", "number", "text", "boolean"]
VALUE_TYPES: tuple[ValueType, ...] = ("auto", "number", "text", "boolean")
Kind = Literal["number", "text", "boolean", "unknown"]

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# Numbers in the notation of people: 1,5 and 1,234.5 and 1.234,5 and 1 234.5 and 45%.
_PEOPLES = re.compile(r"[+-]?(\d*[.,]?\d+|\d{1,3}([,.'_ \u00a0\u202f]\d{3})+([.,]\d+)?)(\s?%)?", re.ASCII)
# What stands for no value in files of measurements. It says nothing about the others, so it has no vote; where there is
# nothing else, nobody knows what the values are.
_MARKS = frozenset({"na", "n/a", "nan", "null", "none", "nil", "mm", "m", "?", "-", "--", "."})
_BOOLEANS = {"true": True, "false": False}
_DIGITS = {"1": True, "0": False}
_WAYS_OUT = "--missing {cell} leaves such rows out, --value-type text takes all values as texts"


class Votes:
    """Counts what the cells of one sensor type look like."""

    __slots__ = ("_marked", "_seen")

    def __init__(self) -> None:
        self._seen: Counter[Kind] = Counter()
        self._marked = False

    def add(self, cell: str) -> None:
        """Count a cell that is not missing. Numbers that only people can read are numbers here, and refused later."""
        lower = cell.lower() if len(cell) <= 5 else ""
        if lower in _MARKS:
            self._marked = True
            return
        if _NUMBER.fullmatch(cell) or _NOT_FINITE.fullmatch(cell) or _PEOPLES.fullmatch(cell):
            self._seen["number"] += 1
        else:
            self._seen["boolean" if lower in _BOOLEANS else "text"] += 1

    @property
    def kind(self) -> Kind:
        """Number where at least half of the cells are numbers, else boolean by the same rule, else text.

        Unknown where all of them stand for no value.
        """
        if self._marked and not self._seen:
            return "unknown"
        half = self._seen.total() / 2
        for kind in ("number", "boolean"):
            if self._seen[kind] and self._seen[kind] >= half:
                return kind
        return "text"


def value_of(cell: str, kind: Kind, *, decided: bool) -> Value:
    """Return the value of a cell; ValueError when it does not fit. `decided`: by the file's cells, not by a person."""
    if kind == "text":
        return cell
    if kind == "unknown":
        ways = _WAYS_OUT.format(cell=repr(cell))
        raise ValueError(f"{cell!r} stands for no value, and no other value here says what they are; {ways}")
    if kind == "boolean":
        value = _BOOLEANS.get(cell.lower()) if decided else (_BOOLEANS | _DIGITS).get(cell.lower())
        if value is None:
            raise ValueError(_misfit(cell, "true or false", decided=decided))
        return value
    number = plain_number(cell)
    if number is None or not math.isfinite(number):
        infinite = number is not None or _NOT_FINITE.fullmatch(cell)
        wanted = "a finite number" if infinite else "a number, as 1234.5"
        raise ValueError(_misfit(cell, wanted, decided=decided))
    return number


def plain_number(cell: str) -> int | float | None:
    """Return the number that a cell is, as programs write it; None when it is none."""
    if len(cell) <= MAX_DIGITS and INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else None


def _misfit(cell: str, wanted: str, *, decided: bool) -> str:
    why = "; at least half of the values here are such ones" if decided else ""
    ways = _WAYS_OUT.format(cell=repr(cell[:64]))
    if _PEOPLES.fullmatch(cell) and not _NUMBER.fullmatch(cell):
        ways = f"write it without separators of thousands, with a decimal point and without %, or: {ways}"
    return f"{cell[:64]!r} is not {wanted}{why}; {ways}"
