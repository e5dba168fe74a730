"""Which columns of a table have its times: one, a date and a time of day, or the parts of times as numbers."""

import re
from collections.abc import Callable, Sequence

from simulator.replay.file import Replay
from simulator.replay.layout import index_of
from simulator.replay.times import is_clock, is_day, is_number_of_time, is_time

# Usual names, best first. Columns of whole numbers have times only if they have one of these.
_NAMES = (
    *("timestamp", "time", "datetime", "date_time", "date time", "date/time", "date", "ts", "utc", "epoch", "unixtime"),
    *("unix time", "when", "t"),
)
# In the order of time; the name of months is that of minutes, too.
_PARTS = {
    "year": {"year", "yr", "yy", "yyyy"},
    "month": {"month", "mon", "mo", "mm"},
    "day": {"day", "dd", "dy"},
    "hour": {"hour", "hr", "hh"},
    "minute": {"minute", "min", "mn", "mm"},
    "second": {"second", "sec", "ss"},
}
_WHOLE = re.compile(r"\d{1,4}", re.ASCII)


def has_a_time(cells: Sequence[str]) -> bool:
    """Return whether a row is one of data: it has a time, or begins with the numbers of one."""
    parts = all(map(_WHOLE.fullmatch, cells[:3])) and len(cells) > 3
    return parts or any(is_time(cell) or is_number_of_time(cell) for cell in cells)


def find_time_columns(
    replay: Replay, names: Sequence[str], rows: Sequence[Sequence[str]], line: int, taken: set[int]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the columns of times, and their parts if each has a number; ReplayError if that cannot be told."""
    if replay.time_columns:
        times = tuple(index_of(replay, names, name, "ts", line) for name in replay.time_columns)
        return times, _parts_of(replay, [names[index] for index in times]) if len(times) > 2 else ()
    if names.count("timestamp") == 1:
        return (names.index("timestamp"),), ()
    if found := _find_parts(replay, names, rows):
        return found
    return _find_by_cells(replay, names, rows, line, taken), ()


def _find_parts(
    replay: Replay, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[int, ...], tuple[str, ...]] | None:
    for begin in range(len(names) - 2):
        parts = _parts_of(replay, names[begin:])
        columns = tuple(range(begin, begin + len(parts)))
        if parts and all(
            _WHOLE.fullmatch(cells[index]) for cells in rows[:1] for index in columns if index < len(cells)
        ):
            return columns, parts
    return None


def _parts_of(replay: Replay, names: Sequence[str]) -> tuple[str, ...]:
    """Return the parts that the first names are, from year (or with --year month) to at least day."""
    expected = list(_PARTS)
    if replay.times.year is not None and names and _plain(names[0]) not in _PARTS["year"]:
        expected.pop(0)
    found = []
    for name, part in zip(names, expected, strict=False):
        if _plain(name) not in _PARTS[part]:
            break
        found.append(part)
    return tuple(found) if "day" in found else ()


def _plain(name: str) -> str:
    return name.strip("#").strip().lower()


def _find_by_cells(
    replay: Replay, names: Sequence[str], rows: Sequence[Sequence[str]], line: int, taken: set[int]
) -> tuple[int, ...]:
    columns = {
        index: [cells[index] for cells in rows if index < len(cells) and cells[index]]
        for index in range(len(names))
        if index not in taken
    }

    def mostly(check: Callable[[str], bool]) -> list[int]:
        return [index for index, cells in columns.items() if sum(map(check, cells)) * 2 >= len(cells) > 0]

    days, clocks = mostly(is_day), mostly(is_clock)
    if whole := _best(replay, names, [index for index in mostly(is_time) if index not in days], line):
        return whole
    if len(days) == len(clocks) == 1:
        return days[0], clocks[0]
    if days and clocks:
        shown = ", ".join(repr(names[index]) for index in sorted(days + clocks))
        raise replay.error_at(
            line, "", f"which columns are its times? {shown} may be: --time-column, once or twice, says"
        )
    numbers = [index for index in mostly(is_number_of_time) if names[index].strip().lower() in _NAMES]
    found = _best(replay, names, days, line) or _best(replay, names, numbers, line)
    if found is None:
        raise replay.error_at(
            line, "", f"no column of times was found; the file has {', '.join(names)}; --time-column names it"
        )
    return found


def _best(replay: Replay, names: Sequence[str], columns: list[int], line: int) -> tuple[int] | None:
    if len(columns) < 2:
        return (columns[0],) if columns else None
    for name in _NAMES:
        named = [index for index in columns if names[index].strip().lower() == name]
        if len(named) == 1:
            return (named[0],)
    shown = ", ".join(repr(names[index]) for index in columns)
    raise replay.error_at(line, "", f"{shown} are times: --time-column says which one the readings have")
