"""CSV CELLS → FIELDS: parse a time, seq, location or tags. ValueError says what is wrong with a cell."""

import re

import msgspec

from readings.place import Place
from readings.reading import ReadingError, parse_time

# `2**63` has 19 digits; Python refuses to convert very long numbers.
MAX_DIGITS = 40
INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
# Formats of pandas and databases: a space or a T, any number of decimals, a zone with or without a colon, or none;
# a date alone means midnight.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?\s?([Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII)
_FORMS = "whole milliseconds since 1970, or for example 2026-01-31 12:00:00, with decimals and a zone or without"


def parse_time_cell(text: str) -> tuple[int, bool]:
    """Return milliseconds since 1970, and whether finer digits were cut off. Without a zone the time is UTC."""
    if len(text) <= MAX_DIGITS and INTEGER.fullmatch(text):
        return int(text), False
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:64]!r} is not a time; a time is {_FORMS}")
    day, clock, decimals, zone = found.groups(default="")
    if len(zone) == 5:
        zone = f"{zone[:3]}:{zone[3:]}"
    milliseconds = f".{decimals[:3]}" if decimals else ""
    try:
        ts_ms = parse_time(f"{day}T{clock or '00:00:00'}{milliseconds}{zone or 'Z'}")
    except ReadingError as error:
        raise ValueError(f"{text[:64]!r} is not a time: {error}") from error
    return ts_ms, bool(decimals[3:].strip("0"))


def parse_seq_cell(text: str) -> int:
    """Return a sequence number of any size."""
    if len(text) > MAX_DIGITS or not INTEGER.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is not a seq: a seq is a whole number")
    return int(text)


def parse_location_cell(text: str) -> str | Place:
    """Return a position if the cell is its JSON, `{"lat":48.1,"lon":11.5}`; otherwise the text unchanged."""
    try:
        return msgspec.json.decode(text, type=Place) if text.startswith("{") else text
    except (msgspec.MsgspecError, UnicodeError):
        return text


def parse_tags_cell(text: str) -> dict[str, str]:
    """Return tags from a JSON object of strings."""
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(f'tags are a JSON object of texts, as {{"room":"a"}}: {error}') from error
