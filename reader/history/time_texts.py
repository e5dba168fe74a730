"""Times of many readings as RFC 3339 at once."""

from datetime import date
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from storage.codec.columns import Bytes
from storage.codec.packed import Integers

# `2026-01-31T12:00:00.000Z`
TIME_BYTES = 24
_DAY_MS, _MINUTE_MS = 86_400_000, 60_000
_EPOCH_DAY, _LAST_DAY = date(1970, 1, 1).toordinal(), date.max.toordinal()
_PARTS = np.dtype({"names": ["date", "minute", "second"], "formats": ["V10", "V6", "V8"], "itemsize": TIME_BYTES})


def time_texts(milliseconds: Integers) -> Bytes:
    """Return `runtime.times.rfc3339` of each, which clamps to the calendar, as rows of 24 characters.

    25 ns a time where neighbours share their day, and 1 us more for each day.
    """
    days = milliseconds // _DAY_MS
    rest = milliseconds - days * _DAY_MS
    minutes = rest // _MINUTE_MS
    texts = np.empty(len(days), _PARTS)
    texts["date"] = _dates(days)
    texts["minute"] = _minutes()[minutes]
    texts["second"] = _seconds()[rest - minutes * _MINUTE_MS]
    return texts.view(np.uint8).reshape(-1, TIME_BYTES)


def _dates(days: Integers) -> npt.NDArray[np.void]:
    """Return `2026-01-31` of days since 1970."""
    starts = np.flatnonzero(days[1:] != days[:-1]) + 1
    dates = b"".join([_date(int(days[0])), *map(_date, days[starts].tolist())]) if len(days) else b""
    counts = np.diff(starts, prepend=0, append=len(days)) if len(starts) else len(days)
    return np.repeat(np.frombuffer(dates, "V10"), counts)


@lru_cache(maxsize=1024)
def _date(day: int) -> bytes:
    return date.fromordinal(min(max(day + _EPOCH_DAY, 1), _LAST_DAY)).isoformat().encode()


@cache
def _minutes() -> npt.NDArray[np.void]:
    """Return `T12:00` of each minute of a day."""
    return np.frombuffer("".join([f"T{at // 60:02}:{at % 60:02}" for at in range(1440)]).encode(), "V6")


@cache
def _seconds() -> npt.NDArray[np.void]:
    """Return `:00.000Z` of each millisecond of a minute: 0.5 MB."""
    return np.frombuffer("".join([f":{at // 1000:02}.{at % 1000:03}Z" for at in range(_MINUTE_MS)]).encode(), "V8")
