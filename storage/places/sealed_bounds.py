"""Where the readings of a series in sealed collections begin and end, as far as questions have found out.

A sealed collection that was renamed gains nothing: what was its first or last reading once, stays a bound. A question
about another time need not ask it.
"""

import time
from collections import OrderedDict
from threading import Lock

from readings.keys import Key, Position
from storage.places.names import BEGINNING, END
from storage.places.remembered import make_room
from storage.places.state import State
from storage.places.window import Window

# Series, some 1 KB each while eight collections wait.
MAX_SERIES = 10_000
# An operator may restore a copy. What is older is forgotten when something else is noted: devices come and go.
KNOWN_S = 60.0

_Name = tuple[str, str, str]


class _Bounds:
    """Bounds in the collections of one series, by their numbers: the first reading or a later one, and the last."""

    def __init__(self) -> None:
        self.first: dict[int, Position] = {}
        self.last: dict[int, Position] = {}
        self.at = time.monotonic()

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.at >= KNOWN_S


class SealedBounds:
    """The bounds that are known of one database."""

    def __init__(self) -> None:
        self._series: OrderedDict[_Name, _Bounds] = OrderedDict()
        # Questions are asked in several threads.
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._series)

    def may_have(self, number: int, window: Window) -> bool:
        """Return whether a sealed collection may have readings of a window."""
        bounds = self._series.get(_name(window.series))
        if bounds is None or bounds.is_old:
            return True
        return window.start <= bounds.last.get(number, END) and window.end > bounds.first.get(number, BEGINNING)

    def is_known(self, number: int, window: Window) -> bool:
        """Return whether the bound at which a window is read first is known."""
        bounds = self._series.get(_name(window.series))
        return bounds is not None and number in (bounds.last if window.descending else bounds.first)

    def note(self, state: State, number: int, window: Window, found: Position | None) -> None:
        """Record the first reading that a question found in its direction; None for nothing."""
        if number >= state.final:  # it may get its readings only now
            return
        is_last, is_first = window.end == END, window.start == BEGINNING
        if not (is_first or is_last if found is None else is_last if window.descending else is_first):
            return
        with self._lock:
            bounds = self._of(window.series, state)
            if found is None:
                # It has nothing from here on to the open end.
                if is_last:
                    bounds.last[number] = min(bounds.last.get(number, END), _before(window.start))
                else:
                    bounds.first[number] = max(bounds.first.get(number, BEGINNING), window.end)
            elif window.descending:
                bounds.last[number] = found
            else:
                bounds.first[number] = found

    def _of(self, series: Key, state: State) -> _Bounds:
        name = _name(series)
        make_room(self._series, MAX_SERIES)
        bounds = self._series.get(name)
        if bounds is None or bounds.is_old:
            bounds = self._series[name] = _Bounds()
        self._series.move_to_end(name)
        for known in (bounds.first, bounds.last):
            for number in known.keys() - set(state.waiting):
                del known[number]
        return bounds


def _name(series: Key) -> _Name:
    return series["owner"], series["device"], series["sensorType"]


def _before(position: Position) -> Position:
    return position[0], position[1] - 1
