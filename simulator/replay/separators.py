"""LINES → CELLS: the delimiter and the decimal sign of a table, found in its first lines."""

import csv
import re
from collections import Counter
from collections.abc import Sequence

from simulator.replay.times import is_clock, is_time
from simulator.replay.value_types import is_missing_marker, looks_numeric

BLANKS = " "
_DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "|", BLANKS: "blanks"}
_DECIMAL_COMMA = re.compile(r"[+-]?(\d*),(\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)

Record = tuple[int, list[str]]
"""The last line of a row, from 1, and its cells."""


def sample_of(lines: Sequence[str], delimiter: str) -> list[Record]:
    """Return the rows of the first lines of a file, as far as they can be read; empty ones are left out."""
    if delimiter == BLANKS:
        return [(number, cells) for number, line in enumerate(lines, 1) if (cells := line.split())]
    reader = csv.reader(lines, delimiter=delimiter)
    found = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                found.append((reader.line_num, cells))
    except csv.Error:
        pass  # told with its line when the rows are read
    return found


def find_delimiter(lines: Sequence[str]) -> str:
    """Return the delimiter that gives most rows the same number of cells, and most cells a meaning.

    Blanks only if no other gives two: they are also between dates and times.
    """
    scores = {delimiter: _score(sample_of(lines, delimiter)) for delimiter in _DELIMITERS}
    best = max(scores, key=lambda delimiter: scores[delimiter])
    return BLANKS if scores[best] < 0 < _score(sample_of(lines, BLANKS)) else best


def usual_length(records: Sequence[Record]) -> int:
    """Return the number of cells that most rows have (of two, the larger), but for the first, maybe a heading."""
    lengths = Counter(len(cells) for _, cells in records[len(records) // 4 :])
    return max(lengths, key=lambda length: (lengths[length], length), default=0)


def is_typed(cell: str) -> bool:
    """Return whether a cell is empty, a time, a number or a mark of a missing value, rather than any text."""
    return not cell or looks_numeric(cell) or is_missing_marker(cell) or is_time(cell) or is_clock(cell)


def _score(records: Sequence[Record]) -> float:
    length = usual_length(records)
    if length < 2:
        return -1.0
    regular = [cells for _, cells in records if len(cells) == length]
    typed = sum(is_typed(cell) for cells in regular for cell in cells)
    return round(len(regular) / len(records) * typed / (len(regular) * length), 3)


def find_decimal(records: Sequence[Record], delimiter: str) -> str:
    """Return a comma if cells such as 1,5 show that it is the decimal sign, else a point.

    1,234 shows nothing, it may be a thousand. Nor does a comma within quotes in a file separated by commas.
    """
    if delimiter == ",":
        return "."
    commas = 0
    for _, cells in records:
        for cell in cells:
            if _DECIMAL_POINT.fullmatch(cell):
                return "."
            if found := _DECIMAL_COMMA.fullmatch(cell):
                commas += len(found[2]) != 3 or found[1] in ("", "0") or len(found[1]) > 3 or found[3] is not None
    return "," if commas else "."
