"""Conditions: whether a reading leaves the bounds of a rule, given the reading before it.

A condition with `hysteresis` ends later than it begins: `above` 80 with a hysteresis of 2 begins with a reading of more
than 80 and ends with one of 78 or less, so that a value that trembles around its bound is one alarm. Booleans and texts
are never above, below or outside.
"""

from dataclasses import dataclass
from typing import Protocol

from alarms.rules.point import Point
from readings.reading import GENERATED_SEQ_START, Value


class Condition(Protocol):
    """Whether a condition holds at a reading."""

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds at `point`; `previous` is the reading before, at which it `held` or not."""
        ...


@dataclass(frozen=True, slots=True)
class Above:
    """More than a bound; ends at the bound less the hysteresis, or below."""

    bound: float
    hysteresis: float = 0.0

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds."""
        number = point.number
        return number is not None and number > (self.bound - self.hysteresis if held else self.bound)


@dataclass(frozen=True, slots=True)
class Below:
    """Less than a bound; ends at the bound plus the hysteresis, or above."""

    bound: float
    hysteresis: float = 0.0

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds."""
        number = point.number
        return number is not None and number < (self.bound + self.hysteresis if held else self.bound)


@dataclass(frozen=True, slots=True)
class Outside:
    """Less than a low bound or more than a high one; ends between them, the hysteresis away from either."""

    low: float
    high: float
    hysteresis: float = 0.0

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds."""
        number, margin = point.number, self.hysteresis if held else 0.0
        return number is not None and not self.low + margin <= number <= self.high - margin


@dataclass(frozen=True, slots=True)
class Equals:
    """The value itself. 1 and 1.0 are equal, 1 and true are not."""

    value: Value

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds."""
        return same_value(point.value, self.value)


@dataclass(frozen=True, slots=True)
class Changed:
    """Another value than the reading before; ends with a reading that repeats its predecessor's."""

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds."""
        return previous is not None and not same_value(point.value, previous.value)


@dataclass(frozen=True, slots=True)
class Rate:
    """A change against the reading before of more than a bound in each `per_seconds`, up or down."""

    bound: float
    per_seconds: float

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds; of two readings at the same time, the second has no rate and changes nothing."""
        if previous is None or point.number is None or previous.number is None:
            return False
        elapsed_s = (point.ts_ms - previous.ts_ms) / 1000
        if elapsed_s == 0:
            return held
        return abs(point.number - previous.number) / elapsed_s * self.per_seconds > self.bound


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers (`seq`) that are missing before a reading; a fall of `seq` is a new count, and no gap."""

    def holds(self, point: Point, previous: Point | None, *, held: bool) -> bool:
        """Return whether it holds. Readings that were sent without `ts` have no number of their device's."""
        if previous is None or point.seq >= GENERATED_SEQ_START or previous.seq >= GENERATED_SEQ_START:
            return False
        return point.seq > previous.seq + 1


def same_value(one: Value, other: Value) -> bool:
    """Return whether two values are the same: numbers by value, and no number is a boolean."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
