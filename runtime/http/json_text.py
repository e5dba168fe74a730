"""Strict JSON parsing: text that is not JSON to its end, or that has duplicate names, is refused as a whole.

For small bodies, as each is parsed twice (about 0.2 ms for 64 KiB). Bodies on a hot path have a decoder of their own,
which calls `repeated_name` where it needs to.
"""

import json
import math
from typing import Any

import msgspec


class NotJsonError(ValueError):
    """The text is refused; the message tells the client why."""


def parse(raw: bytes) -> Any:
    """Return the value of `raw`; raise NotJsonError for invalid JSON or UTF-8, NaN, duplicate names or deep nesting.

    Numbers too large for a float (1e999) are refused as well: they would become infinite.
    """
    try:
        # msgspec checks grammar, UTF-8 and surrogates, but accepts duplicate names and keeps the last value.
        msgspec.json.decode(raw)
        return _WITHOUT_DUPLICATES.decode(raw.decode())
    except RecursionError as error:
        raise NotJsonError("The body is nested too deeply.") from error
    except msgspec.ValidationError as error:  # with type Any it means a number out of range
        raise NotJsonError("The body has a number that cannot be read.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJsonError(f"The body is not JSON: {error}") from error
    except NotJsonError:
        raise
    except ValueError as error:  # int() accepts at most 4,300 digits
        raise NotJsonError("The body has a number that cannot be read.") from error


def repeated_name(raw: bytes) -> str | None:
    """Return a name that occurs twice in one object of this JSON, or None; invalid JSON also gives None."""
    try:
        _NAMES.decode(raw.decode(errors="replace"))
    except _RepeatedNameError as error:
        return error.name
    except (ValueError, RecursionError):
        return None
    return None


class _RepeatedNameError(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _names_once(pairs: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            raise _RepeatedNameError(name)
        names.add(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object. RFC 8259 leaves duplicate names to the parser, and parsers differ, so they are refused."""
    built = dict(pairs)
    if len(built) != len(pairs):
        raise NotJsonError("The body has an object with the same name twice.")
    return built


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotJsonError("The body has a number that cannot be read.")
    return number


_WITHOUT_DUPLICATES = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite)
# Numbers are skipped, whatever their length.
_NAMES = json.JSONDecoder(object_pairs_hook=_names_once, parse_int=len, parse_float=len)
