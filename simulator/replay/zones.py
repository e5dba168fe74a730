"""LOCAL TIMES → UTC: times without a zone of their own, including the hours that a zone skips and repeats.

Where clocks are set back, an hour has two meanings, and where they are set forward, times are written that never were.
Neither is guessed: it is an error unless an option gives the rule.
"""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from runtime.time_zones import UnknownZone, time_zone

RepeatedHour = Literal["refuse", "earlier", "later", "order"]
SkippedHour = Literal["refuse", "forward"]
REPEATED_HOUR: tuple[RepeatedHour, ...] = ("refuse", "earlier", "later", "order")
SKIPPED_HOUR: tuple[SkippedHour, ...] = ("refuse", "forward")

_FIXED = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?", re.ASCII | re.IGNORECASE)
_MINUTE_MS = 60_000
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of a local clock


class Zone:
    """A time zone and the rules for its hours with two meanings or none.

    `name` is of the IANA database, or an offset as +01:00 or UTC-9. With `repeated="order"` the rows of a series are
    taken to be in the order of time: those of the first pass through the hour are the earlier, and from where the clock
    goes back on, the later. `Clock.note` is shown all times of the file first, and a series is refused that passes the
    hour once, or goes back several times.
    """

    def __init__(self, name: str, *, repeated: RepeatedHour = "refuse", skipped: SkippedHour = "refuse") -> None:
        """Raise UnknownZone if there is no such zone."""
        self.name = name
        self._repeated = repeated
        self._skipped = skipped
        self._offset_ms: int | None = None
        if found := _FIXED.fullmatch(name):
            hours, minutes = int(found[2]), int(found[3] or 0)
            if hours > 14:
                raise UnknownZone(name)
            self._offset_ms = (hours * 60 + minutes) * _MINUTE_MS * (-1 if found[1] == "-" else 1)
        elif name.upper() in ("UTC", "Z", "GMT"):
            self._offset_ms = 0
        else:
            self._zone = time_zone(name)

    @property
    def needs_order(self) -> bool:
        """True if the whole file must be shown to `Clock.note` before times are converted."""
        return self._repeated == "order" and self._offset_ms is None


Begins = Literal["back", "repeat", "unclear"]
"""What begins the second pass: the row that goes back, or, if none does, the only one that repeats its predecessor."""
Passes = Mapping[tuple[Hashable, int], Begins]
"""By series and day on which it passes through an hour twice; days are numbered since 1970, and begin at noon."""

_DAY_MS, _NOON_MS = 86_400_000, 43_200_000


@dataclass(slots=True)
class _Hour:
    """A series in an hour that is repeated: the day, its last time, and how often it has gone back or repeated one."""

    day: int = -1
    last_ms: int = 0
    back: int = 0
    repeats: int = 0
    disordered: bool = False

    def pass_to(self, local_ms: int) -> None:
        """Take the next time into account."""
        day = _day_of(local_ms)
        if day != self.day:
            self.day, self.back, self.repeats, self.disordered = day, 0, 0, False
        else:
            self.back += local_ms < self.last_ms
            self.repeats += local_ms == self.last_ms
        self.last_ms = local_ms

    @property
    def begins(self) -> Begins:
        """What began the second pass."""
        if self.disordered or self.back > 1:
            return "unclear"
        if self.back:
            return "back"
        return "repeat" if self.repeats == 1 else "unclear"

    def is_second(self, begins: Begins) -> bool:
        return (self.back if begins == "back" else self.repeats) > 0


def _day_of(local_ms: int) -> int:
    """Return the day of a time; it begins at noon, as repeated hours may be on both sides of midnight."""
    return (local_ms - _NOON_MS) // _DAY_MS


class Clock:
    """Converts the times of a file in the order of its rows, in one pass over it."""

    def __init__(self, zone: Zone, passed_twice: Passes | None = None) -> None:
        """With `order`, `passed_twice` is from another clock, which was shown the whole file before."""
        self._zone = zone
        self.passed_twice = dict(passed_twice or {})
        self._hours: dict[Hashable, _Hour] = {}

    def note(self, local_ms: int, series: Hashable) -> None:
        """Take a time into account, with `order`."""
        earlier, later = self._offsets(local_ms)
        hour = self._hours.setdefault(series, _Hour())
        last_ms, last_day = hour.last_ms, hour.day
        if earlier > later:
            hour.pass_to(local_ms)
        # To or from a time outside of the hour: the newest come first.
        outside = earlier <= later or hour.day != last_day
        hour.disordered |= outside and local_ms < last_ms and hour.day == _day_of(local_ms)
        hour.last_ms = local_ms
        if hour.back + hour.repeats:
            self.passed_twice[series, hour.day] = hour.begins

    def utc_ms(self, local_ms: int, series: Hashable) -> int:
        """Return milliseconds since 1970; ValueError for a time with two meanings or none, unless a rule decides."""
        zone = self._zone
        if zone._offset_ms is not None:
            return local_ms - zone._offset_ms
        before, after = self._offsets(local_ms)
        if before == after:
            return local_ms - before
        if before < after:
            if zone._skipped == "forward":
                return local_ms - before
            raise ValueError(
                f"the clocks of {zone.name} skip this time (they are set forward): is the zone right? "
                "--skipped-hour forward takes it as if they had not been set, a --zone such as +01:00 has no such hours"
            )
        return local_ms - (after if self._is_later(local_ms, series) else before)

    def _is_later(self, local_ms: int, series: Hashable) -> bool:
        zone = self._zone
        if zone._repeated in ("earlier", "later"):
            return zone._repeated == "later"
        if zone._repeated == "order":
            begins = self.passed_twice.get((series, _day_of(local_ms)))
            if begins in ("back", "repeat"):
                hour = self._hours.setdefault(series, _Hour())
                hour.pass_to(local_ms)
                return hour.is_second(begins)
            passed = (
                "only once"
                if begins is None
                else "in no order that shows it (newest first, or more than one row does not advance)"
            )
            reason = f"and its rows pass through this hour {passed}: --repeated-hour earlier or later decides"
        else:
            reason = "it has two meanings: --repeated-hour earlier, later, or order (rows in the order of time) decides"
        raise ValueError(f"the clocks of {zone.name} show this time twice (they are set back), {reason}")

    def _offsets(self, local_ms: int) -> tuple[int, int]:
        if self._zone._offset_ms is not None:
            return self._zone._offset_ms, self._zone._offset_ms
        return _offsets(self._zone._zone, local_ms // _MINUTE_MS)


@lru_cache(maxsize=4096)
def _offsets(zone: ZoneInfo, local_minute: int) -> tuple[int, int]:
    """Return the offsets in ms before and after the nearest change, equal for a time with one meaning."""
    local = _EPOCH + timedelta(minutes=local_minute)
    found = []
    for fold in (0, 1):
        offset = zone.utcoffset(local.replace(tzinfo=zone, fold=fold))
        found.append((offset or timedelta(0)) // timedelta(milliseconds=1))
    return found[0], found[1]
