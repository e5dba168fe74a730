"""Readings as lines of CSV (RFC 4180): for programs, or for spreadsheets, with formulas neutralized."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from reader.responses import Document, json_value, time_text
from readings.csv_row import CSV_COLUMNS, attribute_cell
from readings.reading import ATTRIBUTES

_NO_ATTRIBUTES = "," * (len(ATTRIBUTES) - 1)

CSV_HEADER = ",".join(CSV_COLUMNS).encode() + b"\r\n"

# Characters that start a formula, and TAB, CR and LF, which spreadsheets strip first:
# https://owasp.org/www-community/attacks/CSV_Injection. Their full-width forms start formulas in Japanese Excel
# (github.com/OWASP/www-community/issues/1088) and in Apple's Numbers (github.com/adaltas/node-csv/pull/387).
_FORMULA_STARTS = "=+\\-@\uff1d\uff0b\uff0d\uff20\u30fc"
# Also after characters that start a cell under another separator setting, and after spaces and quotes.
_FORMULA = re.compile(rf'^(?=[\t\r\n])|(^|[,;|\t\r\n])(?=(?:[^\S\t\r\n]|")*[{_FORMULA_STARTS}])')

Lines = Callable[[Iterable[Document]], bytes]
Cell = Callable[[str], str]


def csv_lines(device: str, sensor_type: str, *, for_spreadsheet: bool = False) -> Lines:
    """Return a function that encodes readings of one series: no header, CRLF, quotes only around text.

    A text value is always quoted, so that `"1"` and `1` remain distinct; so is an empty unit or location, which may
    also be missing. `for_spreadsheet` neutralizes formulas (`as_text`).
    """
    cell, text_cell = (_text_as_text, _text_as_text) if for_spreadsheet else (_cell, _quoted)
    head = f"{cell(device)},{cell(sensor_type)},"

    def lines(documents: Iterable[Document]) -> bytes:
        return "".join([line(document) for document in documents]).encode()

    def line(document: Document) -> str:
        key, value = document["_id"], document.get("value")
        ts, received = key["ts"], document.get("receivedAt")
        shown = repr(value) if type(value) is float else _value_cell(value, text_cell, cell)
        return f"{head}{time_text(ts)},{key['seq']},{shown},{time_text(received) or ''},{_rest(document, cell)}\r\n"

    return lines


def as_text(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: an apostrophe is inserted where one would start."""
    return _FORMULA.sub(r"\g<0>'", text)


def _rest(document: Document, cell: Cell) -> str:
    if len(document) == 3:
        return _NO_ATTRIBUTES
    return ",".join(
        [
            "" if (attribute := document.get(name)) is None else cell(attribute_cell(name, attribute))
            for name in ATTRIBUTES
        ]
    )


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
    return _quoted(text) if not text or any(sign in text for sign in ',"\r\n') else text


def _text_as_text(text: str) -> str:
    return _quoted(as_text(text))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
