"""InfluxDB's line protocol: each field of a line is a reading of the series measurement.field.

`measurement,tag=value field=1.5,count=3i,open=t,state="ok" 1750000000000000000`

A line ends at a newline that is not within a quoted text, so that no text can bring lines of its own. A line that is
not one is an error; a field whose value is wrong is one, and its neighbours are taken. Times become nanoseconds,
whatever their precision: repeats are one reading in any of them. Tags become the tags of the readings; those that are
named in `series_tags` also stand in the name, between measurement and field.

In measurements, tags and field names a backslash escapes a comma, a space and (not in measurements) `=`; in a quoted
text, a quotation mark and a backslash; elsewhere it is a backslash.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

from msgspec import UNSET

from readings.encodings.sent import BodyRefused, SentReading, rejected_at
from readings.reading import MAX_READINGS, MAX_TAGS, ReadingError, Value

Precision = Literal["ns", "us", "ms", "s", "n", "u", "m", "h"]
"""The unit of the times; `n`, `u`, `m` and `h` are those of InfluxDB 1."""

NS_OF: dict[Precision, int] = {
    "ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9,
    "n": 1, "u": 10**3, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
# A number with more characters is none that anything measured.
MAX_NUMBER_CHARS = 400

_KEY = r"(?:\\[,= ]|[^,= ])++"
_QUOTED = r'"((?:\\.|[^"\\])*+)"'
_BLANKS_AND_COMMENTS = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
# Up to the first space quotation marks are part of a name. Then `="` begins a text; one that does not end takes the
# rest of the body.
_LINE = re.compile(r'(?:\\[^\n]|[^ \n])*+(?:="(?:\\.|[^"\\])*+(?:"|\Z)|\\[^\n]|[^\n])*+', re.DOTALL)
_HEAD = re.compile(rf"((?:\\[, ]|[^, ])++)((?:,{_KEY}={_KEY})*+) ++", re.DOTALL)
_TAG = re.compile(rf",({_KEY})=({_KEY})", re.DOTALL)
_FIELD = re.compile(rf'({_KEY})=(?:{_QUOTED}|([^," ]++))(,|\Z| ++)', re.DOTALL)
_TIME = re.compile(r"-?[0-9]{1,19}")
_ESCAPED_IN_MEASUREMENT = re.compile(r"\\([, ])")
_ESCAPED_IN_KEY = re.compile(r"\\([,= ])")
_ESCAPED_IN_TEXT = re.compile(r'\\(["\\])')
_FLOAT = re.compile(r"[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?")
_INTEGER = re.compile(r"([+-]?[0-9]++)i|(\+?[0-9]++)u")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_BOOLEANS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)


class _LineError(Exception):
    """The text is not a line of this protocol."""


class LineProtocol:
    """Decodes bodies whose times have one precision."""

    def __init__(self, precision: Precision = "ns", series_tags: Sequence[str] = ()) -> None:
        """Decode times of this precision. The values of `series_tags`, where a line has them, are part of the name."""
        self._ns = NS_OF[precision]
        self._series_tags = tuple(series_tags)

    def __call__(self, raw: bytes) -> Iterator[SentReading | ReadingError]:
        """Yield the reading of each field of each line, or what is wrong with it; BodyRefused if it is not UTF-8."""
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise BodyRefused("malformed", f"The body is not UTF-8: {error}") from error
        at, number = 0, 1
        while True:
            start = _end(_BLANKS_AND_COMMENTS, text, at)
            if start == len(text):
                return
            end = _end(_LINE, text, start)
            number += text.count("\n", at, start)
            more = text.count("\n", start, end)
            place = f"lines {number} to {number + more}" if more else f"line {number}"
            try:
                yield from self._readings(text[start:end].rstrip(" \t\r"), place)
            except _LineError as error:
                yield ReadingError("invalid_reading", f"{place}: {error}")
            at, number = end, number + more

    def _readings(self, line: str, place: str) -> Iterator[SentReading | ReadingError]:
        head = _HEAD.match(line)
        if head is None:
            raise _LineError("a line is a measurement, tags (each with a value), a space, and fields")
        measurement = _unescaped(_ESCAPED_IN_MEASUREMENT, head[1])
        tags = _tags(head[2])
        named = [name for name in self._series_tags if name in tags]
        prefix = ".".join((measurement, *(tags[name] for name in named)))
        series = (measurement, *(f"{name}={tags[name]}" for name in named))
        fields, ts_ns = self._fields_and_time(line, head.end())
        given = tags or UNSET
        for key, value in fields.items():
            field = f"{place}, {key[:64]}"
            if isinstance(value, ReadingError):
                yield rejected_at(field, value.code, value.detail)
            else:
                yield SentReading(f"{prefix}.{key}", (*series, key), value, ts_ns, tags=given, place=field)

    def _fields_and_time(self, line: str, at: int) -> tuple[dict[str, Value | ReadingError], int | None]:
        """Return the fields from `at` on, with what is wrong with a value in its place, and the time in nanoseconds."""
        fields: dict[str, Value | ReadingError] = {}
        while True:
            found = _FIELD.match(line, at)
            if found is None:
                raise _LineError(f"no field, or none that ends as it should, begins with {line[at : at + 32]!r}")
            key, quoted, bare, after = found.groups()
            key, at = _unescaped(_ESCAPED_IN_KEY, key), found.end()
            if key in fields:
                raise _LineError(f"the field {key[:64]!r} occurs twice")
            fields[key] = _bare_value(bare) if quoted is None else _unescaped(_ESCAPED_IN_TEXT, quoted)
            if len(fields) > MAX_READINGS:
                raise BodyRefused("batch_size", f"1 to {MAX_READINGS} readings are accepted, a line has more")
            if after != ",":
                break
        if at == len(line):
            return fields, None
        if not _TIME.fullmatch(line, at):
            raise _LineError("what follows the fields must be the time, an integer")
        return fields, int(line[at:]) * self._ns


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where the match of a pattern ends that matches everywhere."""
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _tags(text: str) -> dict[str, str]:
    tags: dict[str, str] = {}
    for found in islice(_TAG.finditer(text), MAX_TAGS + 1):
        name = _unescaped(_ESCAPED_IN_KEY, found[1])
        if name in tags:
            raise _LineError(f"the tag {name[:64]!r} occurs twice")
        tags[name] = _unescaped(_ESCAPED_IN_KEY, found[2])
    return tags  # one more than a reading may have is enough to reject it


def _unescaped(escape: re.Pattern[str], text: str) -> str:
    return escape.sub(r"\1", text) if "\\" in text else text


def _bare_value(text: str) -> Value | ReadingError:
    """Return a value that is not quoted, or what is wrong with it. A number without a suffix is a float."""
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if len(text) <= MAX_NUMBER_CHARS:
        if _FLOAT.fullmatch(text):
            return float(text)  # an infinite one is rejected with those that are not finite
        if integer := _INTEGER.fullmatch(text):
            return int(integer[1] or integer[2])
    detail = "value must be finite" if _NOT_FINITE.fullmatch(text) else f"{text[:64]!r} is not a value"
    return ReadingError("invalid_value", detail)
