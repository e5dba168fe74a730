"""CELLS → TIMES by a format of `strptime`, as the command line gives it."""

import re
from contextlib import suppress
from datetime import datetime, time, timedelta

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of any clock


def parse_by_format(text: str, wanted: str, year: int | None) -> tuple[int, bool, bool]:
    """Return milliseconds since 1970 by the time's own clock, or UTC if it has a zone; whether so; whether cut.

    An hour of 24 is midnight at the end of the day; `year` replaces the time's own. ValueError if the format does not
    match.
    """
    # strptime takes at most 6 decimals.
    finer = re.search(r"[.,]\d{6}(\d+)", text) if "%f" in wanted else None
    shown = text if finer is None else text[: finer.start(1)] + text[finer.end(1) :]
    try:
        found, days = _strptime(shown, wanted), 0
    except ValueError:
        found, days = _midnight(shown, wanted), 1
    if year is not None:
        found = found.replace(year=year)
    cut = found.microsecond % 1000 != 0 or bool(finer and finer[1].strip("0"))
    offset = found.utcoffset()
    moment = found.replace(tzinfo=None) - (offset or timedelta(0)) + timedelta(days=days)
    return (moment - _EPOCH) // timedelta(milliseconds=1), offset is not None, cut


def has_format(text: str, wanted: str) -> bool:
    """Return whether a cell is a time of this format."""
    try:
        parse_by_format(text, wanted, None)
    except (ValueError, OverflowError):
        return False
    return True


def _strptime(text: str, wanted: str) -> datetime:
    return datetime.strptime(text, wanted)  # noqa: DTZ007 - the zone, if none is in the text, is applied later


def _midnight(text: str, wanted: str) -> datetime:
    """Return the day of a time with 24 for its hour, at 0 h; ValueError as `strptime` raises it for any other."""
    if "%H" in wanted:
        for place in re.finditer("24", text):
            with suppress(ValueError):
                found = _strptime(f"{text[: place.start()]}00{text[place.end() :]}", wanted)
                if found.time() == time():
                    return found
    return _strptime(text, wanted)
