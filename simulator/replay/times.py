"""CELLS → TIMES: the forms of time that files have. What a cell alone leaves open, `TimeEvidence` decides."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple

from readings.reading import EARLIEST_MS
from runtime.times import parse_rfc3339
from simulator.replay.time_formats import parse_by_format
from simulator.replay.zones import Zone

DateOrder = Literal["day", "month"]
"""What comes first in a date such as 01/02/2026."""
EpochUnit = Literal["s", "ms", "us", "ns"]

# Nanoseconds since 1970 in one of each unit.
_NANOSECONDS: dict[EpochUnit, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
EPOCH_UNITS: tuple[EpochUnit, ...] = tuple(_NANOSECONDS)
# Readings are from 2000 on; up to 2100 the numbers of one unit are none of another.
_LATEST_MS = 4_102_444_800_000
# `2**63` has 19 digits; Python refuses to convert very long numbers.
MAX_DIGITS = 40
_EPOCH = re.compile(r"([+-]?\d{1,40})(?:\.(\d{1,9}))?", re.ASCII)

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_NAME = r"(jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec)[a-z]*\.?"
# Hours and minutes, also with seconds, decimals, AM or PM, and a zone.
_CLOCK = (
    r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
    r"(?:\s?([ap])\.?m\.?)?\s?(z|utc|gmt|[+-]\d\d:?\d\d|[+-]\d\d)?"
)
_AND_CLOCK = rf"(?:(?:[ \t]+|[ \t]*t[ \t]*|,[ \t]*){_CLOCK})?"


def _pattern(day: str) -> re.Pattern[str]:
    return re.compile(day + _AND_CLOCK, re.ASCII | re.IGNORECASE)


_YEAR_FIRST = _pattern(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
YEAR_LAST = _pattern(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_MONTH_NAMED = _pattern(rf"{_NAME}[ \t,/.-]*(\d{{1,2}})(?:[ \t,/.-]+)(\d{{4}})")
_DAY_THEN_NAME = _pattern(rf"(\d{{1,2}})[ \t./-]*{_NAME}[ \t,/-]*(\d{{4}})")
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)(?:[Tt]?(\d\d)(\d\d)(\d\d)?([Zz])?)?", re.ASCII)
_ONLY_CLOCK = re.compile(_CLOCK, re.ASCII | re.IGNORECASE)
FORMS = (
    "2026-01-31 12:00:00 (also with / or without seconds, with decimals and a zone), 31/01/2026, Jan 31 2026, "
    "20260131, or s, ms, us or ns since 1970; --time-format gives another"
)


class Moment(NamedTuple):
    """A time as written: milliseconds since 1970, by its own clock unless it `is_utc`; whether digits were cut."""

    ms: int
    is_utc: bool
    cut: bool


class TimeError(ValueError):
    """A cell is not a time; the message says why."""


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """What the command line says about times.

    `format` is one of EPOCH_UNITS, or a format of `datetime.strptime`. `zone` is that of times without one. `year`
    replaces the year of each time.
    """

    format: str | None = None
    zone: Zone | None = None
    year: int | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """The forms of a file's times, decided: the first part of dates of numbers, and the unit of whole numbers."""

    options: TimeOptions = TimeOptions()
    order: DateOrder | None = None
    unit: EpochUnit = "ms"
    parts: tuple[str, ...] = ()
    why: str = ""

    def parse(self, text: str) -> Moment:
        """Return the time of a cell; raise TimeError."""
        wanted = self.options.format
        try:
            if wanted in _NANOSECONDS:
                return _epoch(text, wanted)
            if wanted is not None:
                return Moment(*parse_by_format(text, wanted, self.options.year))
            if self.parts:
                return _of_parts(text, self.parts, self.options.year)
            return self._usual(text) or self._by_form(text)
        except TimeError:
            raise
        except (ValueError, OverflowError) as error:
            raise TimeError(f"{text[:64]!r} is not a time: {error}") from error

    def _usual(self, text: str) -> Moment | None:
        """Return the time of 2026-01-31 12:00:00, the usual form, in a third of the time."""
        if len(text) == 19 and text[10] in " T" and self.options.year is None:
            with suppress(ValueError):
                return Moment(parse_rfc3339(f"{text[:10]}T{text[11:]}Z"), is_utc=False, cut=False)
        return None

    def _by_form(self, text: str) -> Moment:
        year = self.options.year
        if found := _YEAR_FIRST.fullmatch(text):
            return _moment(found[1], found[3], found[4], found.groups()[4:], year)
        if found := YEAR_LAST.fullmatch(text):
            first, second = found[1], found[3]
            day, month = (second, first) if self.order == "month" else (first, second)
            return _moment(found[4], month, day, found.groups()[4:], year)
        if found := _COMPACT.fullmatch(text):
            hour, minute, second, zone = found.groups()[3:]
            return _moment(found[1], found[2], found[3], (hour, minute, second, None, None, zone), year)
        if _EPOCH.fullmatch(text):
            return _epoch(text, self.unit)
        if found := _MONTH_NAMED.fullmatch(text):
            return _moment(found[3], _month(found[1]), found[2], found.groups()[3:], year)
        if found := _DAY_THEN_NAME.fullmatch(text):
            return _moment(found[3], _month(found[2]), found[1], found.groups()[3:], year)
        raise TimeError(f"{text[:64]!r} is not a time; a time is {FORMS}")


def is_time(text: str) -> bool:
    """Return whether a cell has a form of times that no number has."""
    return any(form.fullmatch(text) for form in (_YEAR_FIRST, YEAR_LAST, _MONTH_NAMED, _DAY_THEN_NAME)) or (
        _EPOCH.fullmatch(text) is None and _COMPACT.fullmatch(text) is not None
    )


def is_number_of_time(text: str) -> bool:
    """Return whether a number may be a time: since 1970, or 20260131."""
    return epoch_unit(text) is not None or _COMPACT.fullmatch(text) is not None


def is_clock(text: str) -> bool:
    """Return whether a cell is a time of day alone."""
    return _ONLY_CLOCK.fullmatch(text) is not None


def is_day(text: str) -> bool:
    """Return whether a cell is a date alone."""
    return is_time(text) and ":" not in text


def parse_time_cell(text: str) -> tuple[int, bool]:
    """Return milliseconds since 1970, and whether finer digits were cut off, of a time of an export."""
    found = Times().parse(text)
    return found.ms, found.cut


def _month(name: str) -> str:
    return str(_MONTHS.index(name[:3].lower()) + 1)


def epoch_unit(text: str) -> EpochUnit | None:
    """Return the unit in which a number is a time that a reading may have; None if it is none."""
    found = _EPOCH.fullmatch(text) if 9 <= len(text) <= MAX_DIGITS else None
    if found is None or (len(found[1]) in (12, 14) and _COMPACT.fullmatch(text)):
        return None
    number = int(found[1])
    for unit, nanoseconds in _NANOSECONDS.items():
        if EARLIEST_MS <= number * nanoseconds // 10**6 < _LATEST_MS:
            return unit
    return None


def _epoch(text: str, unit: EpochUnit) -> Moment:
    found = _EPOCH.fullmatch(text)
    if found is None:
        raise TimeError(f"{text[:64]!r} is not a number of {unit} since 1970")
    nanoseconds = int(found[1]) * _NANOSECONDS[unit]
    if decimals := found[2]:
        fraction = int(decimals.ljust(9, "0")) * _NANOSECONDS[unit] // 10**9
        nanoseconds += -fraction if found[1].startswith("-") else fraction
    ms, rest = divmod(nanoseconds, 10**6)
    return Moment(ms, is_utc=True, cut=rest != 0)


def _moment(year: str, month: str, day: str, clock: tuple[str | None, ...], other_year: int | None) -> Moment:
    """Return the time of these texts; `clock`: hour, minute, second, decimals, a or p, zone, each maybe None."""
    hour, minute, second, decimals, half, zone = clock
    hour_number, next_day = int(hour or 0), 0
    if half is not None:
        if not 1 <= hour_number <= 12:
            raise ValueError("with AM or PM an hour is 1 to 12")
        hour_number = hour_number % 12 + (12 if half in "pP" else 0)
    elif hour_number == 24 and not int(minute or 0) and not int(second or 0) and not int(decimals or 0):
        hour_number, next_day = 0, 86_400_000
    offset = _offset(zone) if zone else "Z"
    shown = f".{decimals[:3]}" if decimals else ""
    years = int(year) if other_year is None else other_year
    text = f"{years:04}-{int(month):02}-{int(day):02}T{hour_number:02}:{int(minute or 0):02}:{second or '00'}{shown}"
    ms = parse_rfc3339(text + offset) + next_day
    return Moment(ms, zone is not None, bool(decimals and decimals[3:].strip("0")))


def _offset(zone: str) -> str:
    if zone[0] not in "+-":
        return "Z"
    return f"{zone[:3]}:{zone[-2:] if len(zone) > 3 else '00'}"


_PART_MS = {"hour": 3_600_000, "ending_hour": 3_600_000, "minute": 60_000, "second": 1000}


def _of_parts(text: str, parts: tuple[str, ...], other_year: int | None) -> Moment:
    """Return the time of numbers in columns of their own, joined by spaces.

    An `ending_hour` of 1 is the one until 01:00, so that its minute 60, or 0 where a file has only whole hours, is
    01:00 (EnergyPlus, Auxiliary Programs, "EPW CSV Format").
    """
    found = dict(zip(parts, map(_whole, text.split(" ")), strict=True))
    year = found.get("year") if other_year is None else other_year
    if year is None or year < 100:
        raise ValueError("its year has two digits; --year gives it" if year else "it has no year; --year gives one")
    ends = "ending_hour" in found
    hour, minute = found.get("hour", found.get("ending_hour", 0)), found.get("minute", 0)
    if not (hour <= 24 and minute <= (60 if ends else 59) and found.get("second", 0) < 60) or (
        hour == 24 and minute and not ends
    ):
        raise ValueError("hour, minute or second is out of range")
    ms = (date(year, found["month"], found["day"]) - date(1970, 1, 1)).days * 86_400_000
    ms += sum(found.get(part, 0) * part_ms for part, part_ms in _PART_MS.items())
    if ends and minute:
        ms -= _PART_MS["hour"]
    return Moment(ms, is_utc=False, cut=False)


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,4}(?:\.0*)?", text, re.ASCII):
        raise ValueError(f"{text[:16]!r} is not a whole number")
    return int(text.partition(".")[0])
