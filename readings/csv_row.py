"""A reading as a row of CSV: the columns of an export, and the cells for values that CSV has no form for.

The reader writes them and the simulator reads them back, so that an export and its replay are what was stored.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from readings.place import Place
from readings.reading import ATTRIBUTES

CSV_COLUMNS = ("device", "sensorType", "ts", "seq", "value", "receivedAt", *ATTRIBUTES)
# The columns that every export has. Those of attributes that were added since follow; older exports do not have them.
_FIRST_COLUMNS = CSV_COLUMNS.index("tags") + 1
# Made once: `json.dumps` would make one for each value.
_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
# The start of the optional last line; the number of readings follows.
CSV_END = "# end "


def is_export_header(row: Sequence[str]) -> bool:
    """Return whether a row is the header of an export, of this version or of an earlier one with fewer columns."""
    return len(row) >= _FIRST_COLUMNS and tuple(row) == CSV_COLUMNS[: len(row)]


def compact(value: Any) -> str:
    """Return the JSON of a value without spaces, for a cell."""
    return _compact(value)


def attribute_cell(name: str, attribute: Any) -> str:
    """Return an attribute of a stored reading as a cell: a text unchanged (but see `location_cell`), others as JSON."""
    if name == "location":
        return location_cell(attribute)
    return attribute if isinstance(attribute, str) else compact(attribute)


def location_cell(location: Any) -> str:
    """Return a location as a cell: a position as JSON, a text unchanged.

    Only a text that `read_location` would read as something else, because it is itself the JSON of a position, is
    quoted as a JSON string.
    """
    if not isinstance(location, str):
        return compact(location)
    return location if read_location(location) == location else json.dumps(location, ensure_ascii=False)


def read_location(cell: str) -> str | Place:
    """Return the location of a cell. Only JSON as `location_cell` writes it is a position: `{"lat":1}` is text."""
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
