"""FIRST ROWS → HEADING: which row has the names of a table's columns, which one their units, and where data begin."""

import re
from collections.abc import Sequence
from itertools import islice

from simulator.replay.file import Replay
from simulator.replay.separators import Record, is_typed, usual_length
from simulator.replay.time_columns import has_a_time, is_name_of_time
from simulator.replay.value_types import looks_numeric

# The line that tells Excel which delimiter a file has.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_MAX_NAMED = 50


def delimiter_line(lines: Sequence[str]) -> str | None:
    """Return the delimiter that the first line names, as in `sep=;`; None if it is another line."""
    found = _SEPARATOR_LINE.fullmatch(lines[0].removeprefix("\ufeff")) if lines else None
    return found[1] if found else None


def find_heading(replay: Replay, records: list[Record]) -> tuple[int | None, int]:
    """Return the index of the record with the columns' names, None if there is none, and that of the first row."""
    if replay.text.skip_rows is None:
        named = _named_header(replay, records)
        length = usual_length(records)
        regular = [n for n, (_, cells) in enumerate(records) if len(cells) == length]
        data = next((n for n in regular if has_a_time(records[n][1], replay.times)), None)
        if named is not None:
            header: int | None = named
        elif data is None:
            header = regular[0] if regular else 0
        else:
            header = _first_of_heading(records, data, length)
            if header is None and data > 0 and _are_names(records[data - 1][1]):
                header = data - 1  # rows may end with a delimiter that the names have not
    else:
        header = None if has_a_time(records[0][1], replay.times) else 0
    if header is None:
        return None, next(n for n, (_, cells) in enumerate(records) if has_a_time(cells, replay.times))
    data = header + 1
    while data + 1 < len(records) and _is_part_of_heading(replay, records[header][1], records[data][1]):
        data += 1
    return header, data


def _first_of_heading(records: list[Record], data: int, length: int) -> int | None:
    """Return the row of names, of those above the data that have as many cells; lines such as *** may be between.

    It is the first that has a usual name of times, otherwise the first that is no comment: a pair as `Station,Hall 3`
    may be above the names of two columns, and units below them.
    """
    rows: list[int] = []
    for number in range(data - 1, -1, -1):
        cells = records[number][1]
        if len(cells) == length:
            rows.insert(0, number)
        elif any(map(str.isalnum, "".join(cells))):
            break
    plain = [number for number in rows if not records[number][1][0].startswith("#")] or rows
    return next((number for number in plain if any(map(is_name_of_time, records[number][1]))), next(iter(plain), None))


def _are_names(cells: list[str]) -> bool:
    return len(cells) > 1 and not any(cell and is_typed(cell) for cell in cells)


def _named_header(replay: Replay, records: list[Record]) -> int | None:
    """Return the first record that has all names of the options, or without such `timestamp`."""
    wanted = {
        name.partition("=")[0] if name.partition("=")[0] else name
        for name in (
            *replay.time_columns,
            *replay.value_columns,
            *(replay.sensor_type_column, replay.seq_column, replay.device_column),
            *replay.attribute_columns.values(),
        )
        if name and not name.startswith("#")
    } or {"timestamp"}
    return next((n for n, (_, cells) in enumerate(islice(records, _MAX_NAMED)) if wanted <= set(cells)), None)


def _is_part_of_heading(replay: Replay, names: list[str], cells: list[str]) -> bool:
    """Return whether a row below the names is not one of data, but has units or the like: no time and no number."""
    if not any(map(str.isalnum, "".join(cells))):
        return True
    return len(cells) == len(names) and not has_a_time(cells, replay.times) and not any(map(looks_numeric, cells))
