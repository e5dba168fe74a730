"""What the library needs to know of a reading: its identity and its JSON."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_LEAP_SECOND = re.compile(r"(T\d\d:\d\d:)60(?:\.\d+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A reading in the buffer; `ts` (ms) and `seq` are None where the given ones cannot be read."""

    id: int
    series: str
    ts: int | None
    seq: int | None
    body: str


def encoded(reading: Mapping[str, Any]) -> str:
    """Return compact JSON in ASCII, so that its length is its size; raises ValueError or TypeError."""
    return _encode(reading)


def milliseconds(ts: object) -> int | None:
    """Return a time of the protocol as milliseconds since 1970, or None; a leap second is the next second's .000."""
    if type(ts) is int:
        return ts
    if not isinstance(ts, str):
        return None
    text, leaps = _LEAP_SECOND.subn(r"\g<1>59", ts.upper())
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return (moment + timedelta(seconds=leaps) - _EPOCH) // timedelta(milliseconds=1)
