"""Exports that do not say what is stored: those for spreadsheets, and those that another program has written anew."""

import re

from readings.reading import ATTRIBUTES
from simulator.replay.file import FileRow

# What `for=spreadsheet` makes of a text that is a formula; a text that was stored with its apostrophe looks the same.
_APOSTROPHE = re.compile("'(?:[^\\S\\t\\r\\n]|\")*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20\u30fc]")
_TEXTS = ("value", *ATTRIBUTES)


def altered(row: FileRow, *, decided: bool) -> tuple[str, str] | None:
    """Return a field of an export's row that may not be what is stored, and why; None where there is none.

    `decided`: that a value is a text is told by its quotes. An export has none around numbers, and one for programs
    none around device and sensorType.
    """
    if decided and "seq" in row.texts and "value" in row.texts:
        why = "may be a text or not, as numbers stand in quotes here, too: --value-type says what it is"
        return "value", f"{row.cells['value'][:64]!r} {why}"
    if not row.texts.isdisjoint(("device", "sensorType")):
        for field in _TEXTS:
            if _APOSTROPHE.search(cell := row.cells.get(field, "")):
                return field, (
                    f"{cell[:64]!r} may have its apostrophe from the export for spreadsheets, which is not what is "
                    "stored: take one without for=spreadsheet"
                )
    return None
