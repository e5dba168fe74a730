"""CELLS → FIELDS: parse a seq, location or tags. ValueError says what is wrong with a cell."""

import re

import msgspec

from readings.place import Place
from simulator.replay.times import MAX_DIGITS

INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


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
