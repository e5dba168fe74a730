"""Readings as lines of CSV (RFC 4180): for programs, or for spreadsheets, with formulas neutralized."""

import re
from collections.abc import Callable
from typing import Any

from reader.history.lines import LineForm, json_module_floats, repr_floats
from reader.responses import Document, json_value, time_text
from readings.csv_row import CSV_COLUMNS, attribute_cell
from readings.reading import ATTRIBUTES

CSV_HEADER = ",".join(CSV_COLUMNS).encode() + b"\r\n"

# Characters that start a formula, and TAB, CR and LF, which spreadsheets strip first:
# https://owasp.org/www-community/attacks/CSV_Injection. Their full-width forms start formulas in Japanese Excel
# (github.com/OWASP/www-community/issues/1088) and in Apple's Numbers (github.com/adaltas/node-csv/pull/387).
_FORMULA_STARTS = "=+\\-@\uff1d\uff0b\uff0d\uff20\u30fc"
# Also after characters that start a cell under another separator setting, and after spaces and quotes.
_FORMULA = re.compile(rf'^(?=[\t\r\n])|(^|[,;|\t\r\n])(?=(?:[^\S\t\r\n]|")*[{_FORMULA_STARTS}])')

# Signs of CSV's own.
_SIGNS = re.compile(r'[,"\r\n]')

Cell = Callable[[str], str]


def csv_form(device: str, sensor_type: str, *, for_spreadsheet: bool = False) -> LineForm:
    """Return the form of the lines of one series: no header, CRLF, quotes only around text.

    A text value is always quoted, so that `"1"` and `1` remain distinct; so is an empty unit or location, which may
    also be missing. `for_spreadsheet` neutralizes formulas (`as_text`).
    """
    cell, text_cell = (_text_as_text, _text_as_text) if for_spreadsheet else (_cell, _quoted)
    head = f"{cell(device)},{cell(sensor_type)},"

    def attribute(name: str, value: Any) -> bytes:
        return f",{_attribute(name, value, cell)}".encode()

    def line(document: Document) -> bytes:
        """Return a line of a document of any form; columns become the same lines several times as fast."""
        key, value = document["_id"], document.get("value")
        ts, received = time_text(key["ts"]), time_text(document.get("receivedAt")) or ""
        shown = repr(value) if type(value) is float else _value_cell(value, text_cell, cell)
        rest = ",".join([_attribute(name, document.get(name), cell) for name in ATTRIBUTES])
        return f"{head}{ts},{key['seq']},{shown},{received},{rest}\r\n".encode()

    return LineForm(
        head.encode(),
        after_ts=b",",
        after_seq=b",",
        after_value=b",",
        after_received=b"",
        end=b"\r\n",
        floats=repr_floats,
        coordinates=json_module_floats,
        text=lambda text: text_cell(text).encode(),
        attribute=attribute,
        absent=b",",
        document=line,
    )


def as_text(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe is inserted where one would start."""
    return _FORMULA.sub(r"\g<0>'", text)


def _attribute(name: str, attribute: Any, cell: Cell) -> str:
    return "" if attribute is None else cell(attribute_cell(name, attribute))


def _value_cell(value: Any, text_cell: Cell, cell: Cell) -> str:
    if isinstance(value, str):
        return text_cell(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    return cell(str(json_value(value)))  # only a manual write can have stored it


def _cell(text: str) -> str:
    return _quoted(text) if not text or _SIGNS.search(text) else text


def _text_as_text(text: str) -> str:
    return _quoted(as_text(text))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
