"""Which columns of a table have its times: one, a date and a time of day, or the parts of times as numbers."""

import re
from collections.abc import Callable, Sequence

from simulator.replay.file import Replay
from simulator.replay.layout import index_of
from simulator.replay.time_formats import has_format
from simulator.replay.times import EPOCH_UNITS, TimeOptions, is_clock, is_day, is_number_of_time, is_time

# Usual names, best first. Columns of whole numbers have times only if they have one of these.
_NAMES = (
    *("timestamp", "time", "datetime", "date_time", "date time", "date/time", "date", "ts", "utc", "epoch", "unixtime"),
    *("unix time", "when", "t", "datum", "zeit", "zeitstempel", "datum/zeit"),
)
# Of columns that may have the time of day of the dates in another one, as numbers: 13, or 1300.
_TIMES_OF_DAY = re.compile(r"(?:hours?|hr|hhmm|hh|time|clock|stunde|uhrzeit|zeit)(?:\W.*)?", re.IGNORECASE)
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


def is_name_of_time(name: str) -> bool:
    """Return whether a column of this name usually has times."""
    return _plain(name) in _NAMES


def has_a_time(cells: Sequence[str], options: TimeOptions) -> bool:
    """Return whether a row is one of data: it has a time, or begins with the numbers of one."""
    parts = all(map(_WHOLE.fullmatch, cells[:3])) and len(cells) > 3
    return parts or any(is_time(cell) or is_number_of_time(cell) or _as_asked(cell, options) for cell in cells)


def _as_asked(cell: str, options: TimeOptions) -> bool:
    """Return whether a cell has the format that the command line gives, which no number since 1970 shows."""
    return options.format is not None and options.format not in EPOCH_UNITS and has_format(cell, options.format)


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

    if not rows:
        raise replay.error_at(line, "", f"the file has no row below its names, {', '.join(names)}")
    if asked := _best(replay, names, mostly(lambda cell: _as_asked(cell, replay.times)), line):
        return asked
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
    _require_times_of_day(replay, names, days, mostly(lambda cell: bool(_WHOLE.fullmatch(cell))), line)
    numbers = [index for index in mostly(is_number_of_time) if names[index].strip().lower() in _NAMES]
    found = _best(replay, names, days, line) or _best(replay, names, numbers, line)
    if found is None:
        raise replay.error_at(
            line, "", f"no column of times was found; the file has {', '.join(names)}; --time-column names it"
        )
    return found


def _require_times_of_day(replay: Replay, names: Sequence[str], days: list[int], whole: list[int], line: int) -> None:
    """Raise ReplayError if dates without a time of day would be taken though a column of numbers may have it."""
    clocks = [names[index] for index in whole if _TIMES_OF_DAY.fullmatch(names[index])]
    if not days or not clocks:
        return
    date = f"--time-column {names[days[0]]!r}"
    raise replay.error_at(
        line,
        names[days[0]],
        f"these are dates without a time of day, which {clocks[0]!r} may have: {date} --time-column {clocks[0]!r} "
        f"--time-format '%Y-%m-%d %H' (as the file writes it) takes both, {date} alone midnight",
    )


def _best(replay: Replay, names: Sequence[str], columns: list[int], line: int) -> tuple[int] | None:
    if len(columns) < 2:
        return (columns[0],) if columns else None
    for name in _NAMES:
        named = [index for index in columns if names[index].strip().lower() == name]
        if len(named) == 1:
            return (named[0],)
    shown = ", ".join(repr(names[index]) for index in columns)
    raise replay.error_at(line, "", f"{shown} are times: --time-column says which one the readings have")
