"""Puts announced readings into the order of (ts, seq): persisters work side by side, so they announce out of order.

Readings are taken in rounds. At its end, each series gives out everything up to the newest reading that it had
when the round began: so a reading may be announced up to a round later than one behind it. What comes later still is
late, which alarms/evaluation/evaluator.py decides about.
"""

from bisect import bisect_right
from dataclasses import dataclass

from alarms.rules.point import Point
from alarms.rules.rule import Series
from broker.alarms import WatchedReading, WatchedReadings
from readings.keys import Position


@dataclass(slots=True)
class Ordered:
    """Readings of a series in their order, each with the time at which a gateway received it, in ms since 1970."""

    series: Series
    unit: str | None
    readings: list[WatchedReading]


@dataclass(slots=True)
class _Waiting:
    unit: str | None
    readings: list[WatchedReading]
    # The newest position at the end of the last round.
    until: Position | None = None


class Reorder:
    """Readings that wait for their round to end."""

    def __init__(self) -> None:
        self._waiting: dict[Series, _Waiting] = {}

    def add(self, announced: WatchedReadings) -> None:
        """Add readings of this round."""
        series = (announced.owner, announced.device, announced.sensor_type)
        waiting = self._waiting.get(series)
        if waiting is None:
            self._waiting[series] = _Waiting(announced.unit, announced.readings)
        else:
            waiting.readings += announced.readings
            waiting.unit = announced.unit or waiting.unit

    def next_round(self) -> list[Ordered]:
        """End a round; return the readings whose turn it is."""
        given: list[Ordered] = []
        left: dict[Series, _Waiting] = {}
        for series, waiting in self._waiting.items():
            readings, until = waiting.readings, waiting.until
            if len(readings) > 1:
                readings.sort(key=_position)
            if until is None:
                ready = 0
            elif _position(readings[-1]) <= until:  # nearly always
                given.append(Ordered(series, waiting.unit, readings))
                continue
            else:
                ready = bisect_right(readings, until, key=_position)
                given.append(Ordered(series, waiting.unit, readings[:ready]))
            left[series] = waiting
            waiting.readings, waiting.until = readings[ready:] if ready else readings, _position(readings[-1])
        self._waiting = left
        return given

    def clear(self) -> None:
        """Forget everything, as the messages are delivered again."""
        self._waiting.clear()


def point_of(reading: WatchedReading) -> Point:
    """Return an announced reading as rules see it."""
    return Point(reading.ts_ms, reading.seq, reading.value)


def _position(reading: WatchedReading) -> Position:
    return reading.ts_ms, reading.seq
