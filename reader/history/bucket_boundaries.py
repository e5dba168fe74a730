"""Where time buckets begin and end: a function of their width, a time zone and a range, and of nothing else.

A bucket is the time from one boundary (inclusive) to the next one (exclusive), in milliseconds since 1970. What
aggregates readings, and what adds up precomputed sums, both take their boundaries from here.

- Days, weeks and months follow the zone's calendar: a bucket begins at the first instant at which the zone's clocks
  show its first date, or a later one. So a day has 23 or 25 hours where the clocks change, and none if it was skipped.
- Hours and less are counted by the zone's clocks from midnight. A bucket in which the clocks change is shorter or
  longer. An hour that occurs twice is two buckets, as is anything shorter.
- In UTC every width but the month is a constant number of milliseconds, counted from 1970, weeks from a Monday.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count, pairwise
from typing import Literal
from zoneinfo import ZoneInfo

Unit = Literal["ms", "s", "m", "h", "d", "w", "M"]

DAY_MS = 86_400_000
# Of a month, the longest.
UNIT_MS: dict[Unit, int] = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": DAY_MS,
    "w": 7 * DAY_MS,
    "M": 31 * DAY_MS,
}
# Weeks begin on Monday (ISO 8601), as did this day before 1970-01-01.
_MONDAY = -3
# The Gregorian calendar repeats every 400 years. Years beyond Python's calendar are computed in its first ones.
_CYCLE_DAYS, _CYCLE_MONTHS = 146_097, 4800
_EPOCH_DAY = date(1970, 1, 1).toordinal() - 1
_EPOCH_MONTH = 1969 * 12
# A zone's offset is less than a day. Before and beyond these times, which are inside Python's calendar, it is constant.
_FIRST_S = int(datetime(2, 1, 1, tzinfo=UTC).timestamp())
_LAST_S = int(datetime(9998, 1, 1, tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class BucketWidth:
    """A number of units: `15m`, `1d`, `3M`."""

    number: int
    unit: Unit

    @property
    def ms(self) -> int:
        """The milliseconds of a bucket in which no clocks change; of months, the most they can have."""
        return self.number * UNIT_MS[self.unit]

    @property
    def divides_a_day(self) -> bool:
        """Whether each day consists of whole buckets."""
        return DAY_MS % self.ms == 0

    def first_day(self, index: int) -> int:
        """Return the first day, counted from 1970, of a bucket of days, weeks or months, counted from 1970 as well."""
        index *= self.number
        if self.unit == "M":
            return _first_day_of_month(index)
        return index * 7 + _MONDAY if self.unit == "w" else index

    def index_of(self, day: int) -> int:
        """Return the bucket of days, weeks or months that a day belongs to."""
        if self.unit == "M":
            return _month_of(day) // self.number
        return ((day - _MONDAY) // 7 if self.unit == "w" else day) // self.number


class TooManyBuckets(ValueError):
    """A range has more buckets than allowed: some `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"{number} buckets")
        self.number = number


def boundaries(width: BucketWidth, zone: ZoneInfo | None, from_ms: int, to_ms: int, limit: int) -> Sequence[int]:
    """Return the boundaries of the buckets from the one that contains `from_ms` to the one that contains `to_ms` - 1.

    One boundary more than buckets, ascending. A zone of None is UTC. Raises TooManyBuckets beyond `limit` buckets. In
    another zone than UTC, hours and less must divide a day.
    """
    to_ms = max(to_ms, from_ms + 1)
    if zone is None and width.unit != "M":
        found: Sequence[int] = _constant(width, from_ms, to_ms)
    else:
        # A tenth is more than skipped days, leap years and changed clocks make.
        if (to_ms - from_ms) // width.ms > limit * 1.1:
            raise TooManyBuckets((to_ms - from_ms) // width.ms)
        clock = _Clock(zone)
        starts = _in_days(width, clock, from_ms) if width.unit in {"d", "w", "M"} else _in_a_day(width, clock, from_ms)
        found = _covering(starts, from_ms, to_ms)
    if len(found) - 1 > limit:
        raise TooManyBuckets(len(found) - 1)
    return found


def _constant(width: BucketWidth, from_ms: int, to_ms: int) -> range:
    origin = _MONDAY * DAY_MS if width.unit == "w" else 0
    first = from_ms - (from_ms - origin) % width.ms
    buckets = (to_ms - 1 - first) // width.ms + 1
    if buckets >= 2**31:  # beyond what len() of a range can return on every machine
        raise TooManyBuckets(buckets)
    return range(first, first + buckets * width.ms + 1, width.ms)


def _covering(starts: Iterator[int], from_ms: int, to_ms: int) -> list[int]:
    """Return the boundaries from the last one up to `from_ms` to the first one from `to_ms` on; ascending input."""
    found = [next(starts)]
    for start in starts:
        if start <= from_ms:
            found = [start]
        elif start > found[-1]:  # a skipped day begins with the next one
            found.append(start)
        if found[-1] >= to_ms:
            break
    return found


def _in_days(width: BucketWidth, clock: "_Clock", from_ms: int) -> Iterator[int]:
    """Yield where buckets of days, weeks or months begin, from one that begins at or before `from_ms` on."""
    first = width.index_of(clock.local(from_ms) // DAY_MS)
    return (clock.day_start(width.first_day(index)) for index in count(first))


def _in_a_day(width: BucketWidth, clock: "_Clock", from_ms: int) -> Iterator[int]:
    """Yield where buckets of hours and less begin, from one that begins at or before `from_ms` on."""
    days = count(clock.local(from_ms) // DAY_MS)
    for start, end in pairwise(clock.day_start(day) for day in days):
        if start < end:
            yield start
            for part in clock.multiples(width.ms, start, end):
                yield from part[max(0, (from_ms - part.start) // part.step) :]  # not all 86,400,000 ms of a day


class _Clock:
    """The clocks of a zone: the offset of local time from UTC, in milliseconds."""

    def __init__(self, zone: ZoneInfo | None) -> None:
        self._zone = zone
        self._offsets: dict[int, int] = {}

    def offset(self, ms: int) -> int:
        """Return the offset at an instant."""
        if self._zone is None:
            return 0
        seconds = min(max(ms // 1000, _FIRST_S), _LAST_S)
        offset = datetime.fromtimestamp(seconds, self._zone).utcoffset()
        return 0 if offset is None else offset.days * DAY_MS + offset.seconds * 1000

    def local(self, ms: int) -> int:
        """Return what the clocks show at an instant, as if it were UTC."""
        return ms + self.offset(ms)

    def day_start(self, day: int) -> int:
        """Return the first instant at which the clocks show a day, counted from 1970, or a later one."""
        midnight = day * DAY_MS
        before, after = self._offset_on(day - 1), self._offset_on(day + 1)
        if before == after:
            return midnight - before
        change = self.change(midnight - DAY_MS, midnight + DAY_MS)
        if midnight - before < change:
            return midnight - before
        return max(change, midnight - after)

    def _offset_on(self, day: int) -> int:
        """Return the offset at the beginning of a day in UTC."""
        found = self._offsets.get(day)
        if found is None:
            found = self._offsets[day] = self.offset(day * DAY_MS)
        return found

    def change(self, before_ms: int, after_ms: int) -> int:
        """Return when the offset changes between two instants with different offsets; it does so in whole seconds."""
        low, high, old = before_ms // 1000, -(-after_ms // 1000), self.offset(before_ms)
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle * 1000) == old:
                low = middle
            else:
                high = middle
        return high * 1000

    def multiples(self, width_ms: int, start_ms: int, end_ms: int) -> Iterator[range]:
        """Yield, as ranges, when the clocks come to a multiple of a width in a day: after its start, before its end."""
        old, new = self.offset(start_ms), self.offset(end_ms - 1)
        change = end_ms if old == new else self.change(start_ms, end_ms - 1)
        yield range(start_ms + 1 + -(start_ms + 1 + old) % width_ms, change, width_ms)
        if change == end_ms:
            return
        # Set forward, the clocks come to the multiples they skip. Set back, they come to a multiple if they show one
        # before as after; else they are within the bucket that they had come to before.
        if new > old:
            begins = (change + new) // width_ms > (change - 1 + old) // width_ms
        else:
            begins = (change + old) % width_ms == 0 and (change + new) % width_ms == 0
        if begins:
            yield range(change, change + 1)
        yield range(change + 1 + -(change + 1 + new) % width_ms, end_ms, width_ms)


def _month_of(day: int) -> int:
    """Return the month, counted from January 1970, of a day counted from 1970-01-01."""
    cycles, rest = divmod(day + _EPOCH_DAY, _CYCLE_DAYS)
    found = date.fromordinal(rest + 1)
    return cycles * _CYCLE_MONTHS + (found.year - 1) * 12 + found.month - 1 - _EPOCH_MONTH


def _first_day_of_month(month: int) -> int:
    cycles, rest = divmod(month + _EPOCH_MONTH, _CYCLE_MONTHS)
    years, months = divmod(rest, 12)
    return date(years + 1, months + 1, 1).toordinal() - 1 + cycles * _CYCLE_DAYS - _EPOCH_DAY
