"""Hours in which a rule applies: days of the week, and a span of local time in a zone."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from runtime.time_zones import time_zone

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTES_A_DAY = 24 * 60
# A span on one day a week, which a change of clocks has left out once.
_DAYS_AHEAD = 15


@dataclass(frozen=True, slots=True)
class Schedule:
    """From a minute of the day, included, until another, excluded, on days of the week.

    A span that ends at or before its beginning goes on past midnight and belongs to the day on which it begins. It
    follows the clock on the wall: on the days on which clocks are changed it is an hour longer or shorter.
    """

    zone: ZoneInfo
    days: frozenset[int]
    from_minute: int
    to_minute: int

    @classmethod
    def of(cls, zone: str, days: Iterable[Day], from_minute: int, to_minute: int) -> "Schedule":
        """Return the schedule of a zone by name; UnknownZone if there is none of that name."""
        return cls(time_zone(zone), frozenset(map(DAYS.index, days)), from_minute, to_minute)

    def covers(self, ts_ms: int) -> bool:
        """Return whether a time, in ms since 1970, is within."""
        local = self._local(ts_ms)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.from_minute < self.to_minute:
            return day in self.days and self.from_minute <= minute < self.to_minute
        return (day in self.days and minute >= self.from_minute) or (
            (day - 1) % 7 in self.days and minute < self.to_minute
        )

    def first_covered(self, ts_ms: int) -> int:
        """Return the first time from `ts_ms` on, in ms since 1970, that is within."""
        if self.covers(ts_ms):
            return ts_ms
        today = datetime.combine(self._local(ts_ms), time(), self.zone)
        days = (today + timedelta(days=ahead, minutes=self.from_minute) for ahead in range(-1, _DAYS_AHEAD))
        begins = ((day - _EPOCH) // timedelta(milliseconds=1) for day in days)
        return next(begin for begin in begins if begin > ts_ms and self.covers(begin))

    def _local(self, ts_ms: int) -> datetime:
        return (_EPOCH + timedelta(milliseconds=ts_ms)).astimezone(self.zone)


def minute_of(text: str) -> int:
    """Return the minute of the day of `HH:MM`; `24:00` is the end of the day. ValueError for another form."""
    hours, colon, minutes = text.partition(":")
    if not (colon and len(hours) == len(minutes) == 2 and (hours + minutes).isdecimal() and text.isascii()):
        raise ValueError(f"{text!r} is not a time of day as HH:MM")
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > _MINUTES_A_DAY:
        raise ValueError(f"there is no {text} in a day")
    return minute
