"""What the library needs to know of a reading: its identity and its JSON."""

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

# No valid reading is as large, whatever its characters: 16 tags of 64 and 256, and four other texts.
MAX_READING_BYTES = 100_000
# Objects and arrays within each other; valid ones have two. What is encoded must be decoded again, to be reported,
# wherever that is called from: the interpreter's own limit depends on the calls that are under way.
MAX_NESTING = 100
# From 2**52 on they are the gateway's own.
LARGEST_SEQ = (1 << 52) - 1
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_OUTSIDE_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_LEAP_SECOND = re.compile(r"(T\d\d:\d\d:)60(?:\.\d+)?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A reading in the buffer; `ts` (ms) and `seq` are None where the given ones cannot be read."""

    id: int
    series: str
    ts: int | None
    seq: int | None
    body: str


def numbered(reading: Mapping[str, Any], row_id: int, next_of: Callable[[str], int]) -> Row:
    """Return a reading as a row, with `ts` and `seq` where it has none; `next_of` has the next `seq` of a sensorType.

    Raises ValueError or TypeError if it is not JSON or too large.
    """
    if not isinstance(reading, Mapping):
        raise TypeError(f"a reading is a mapping of its fields, not {type(reading).__name__}")
    whole = dict(reading)
    given = whole.get("sensorType")
    name = given if isinstance(given, str) else ""
    if whole.get("ts") is None:
        whole["ts"] = time.time_ns() // 1_000_000
    if whole.get("seq") is None:
        whole["seq"] = next_of(name)
    seq = whole["seq"] if type(whole["seq"]) is int and 0 <= whole["seq"] <= LARGEST_SEQ else None
    ts = milliseconds(whole["ts"])
    try:
        body = _encode(whole)  # in ASCII, so that its length is its size
    except RecursionError as error:
        raise ValueError("a reading that is nested too deeply") from error
    if len(body) > MAX_READING_BYTES:
        raise ValueError(f"a reading of {len(body)} bytes; the largest valid one is smaller than {MAX_READING_BYTES}")
    if body.count("[") + body.count("{") > MAX_NESTING and _nesting(body) > MAX_NESTING:
        raise ValueError("a reading that is nested too deeply")
    return Row(row_id, name, ts if ts is not None and abs(ts) < 1 << 62 else None, seq, body)


def _nesting(body: str) -> int:
    deepest = depth = 0
    for mark in _OUTSIDE_TEXTS.findall(body):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark, 0)
        deepest = max(deepest, depth)
    return deepest


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
    return (moment - _EPOCH) // timedelta(milliseconds=1) + 1000 * leaps
