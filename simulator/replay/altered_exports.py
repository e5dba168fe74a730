"""Detects exports that differ from what is stored: those for spreadsheets, and those rewritten by another program."""

import re

from readings.reading import ATTRIBUTES
from simulator.replay.table import TableRow

# How `for=spreadsheet` escapes a text that is a formula; a text stored with its apostrophe looks the same.
_APOSTROPHE = re.compile("'(?:[^\\S\\t\\r\\n]|\")*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20\u30fc]")
_TEXTS = ("value", *ATTRIBUTES)


def find_alteration(row: TableRow, *, inferred: bool) -> tuple[str, str] | None:
    """Return a field of an export's row that may differ from what is stored, and why; None if there is none.

    `inferred`: quotes decide whether a value is a text. An export does not quote numbers, and one for programs does not
    quote device and sensorType.
    """
    if inferred and "seq" in row.texts and "value" in row.texts:
        reason = "may be a text or a number, as numbers are quoted here, too: --value-type decides"
        return "value", f"{row.values[0][:64]!r} {reason}"
    if not row.texts.isdisjoint(("device", "sensorType")):
        for field in _TEXTS:
            cell = row.values[0] if field == "value" else row.cells.get(field, "")
            if _APOSTROPHE.search(cell):
                return field, (
                    f"{cell[:64]!r} may have its apostrophe from the export for spreadsheets, which differs from "
                    "what is stored: use an export without for=spreadsheet"
                )
    return None
