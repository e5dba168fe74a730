"""A reading as a row of CSV: the columns of an export, and how its cells say what CSV itself has no form for.

The reader writes them, the simulator reads them back: what was stored is what comes out of both.
"""

import json
from typing import Any

import msgspec

from readings.place import Place

CSV_COLUMNS = ("device", "sensorType", "ts", "seq", "value", "receivedAt", "unit", "location", "tags")
# How the last line begins where one was asked for; behind it stands how many readings there are.
CSV_END = "# end "


def compact(value: Any) -> str:
    """Return JSON without spaces, for a cell."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def location_cell(location: Any) -> str:
    """Return a location as a cell: a position as JSON, a text as it is.

    A text that `read_location` would take for something else, as it is the very JSON of a position, is put into quotes
    as JSON has them. No other text is changed.
    """
    if not isinstance(location, str):
        return compact(location)
    return location if read_location(location) == location else json.dumps(location, ensure_ascii=False)


def read_location(cell: str) -> str | Place:
    """Return what `location_cell` was given. Only the JSON that it writes of a position is one: `{"lat":1}` is text."""
    if cell.startswith("{"):
        try:
            place = msgspec.json.decode(cell, type=Place)
        except (msgspec.MsgspecError, UnicodeError):
            return cell
        return place if compact(msgspec.to_builtins(place)) == cell else cell
    if cell.startswith('"'):
        try:
            text = json.loads(cell)
        except ValueError:
            return cell
        if isinstance(text, str) and location_cell(text) == cell:
            return text
    return cell
