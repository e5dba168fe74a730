"""What a whole file says about times with two meanings: whether days or months come first, the unit of whole numbers.

Nothing is guessed: without evidence, or with contradicting evidence, `--time-format` must decide.
"""

import re

from simulator.replay.times import YEAR_LAST, DateOrder, EpochUnit, TimeError, TimeOptions, Times, epoch_unit


class TimeEvidence:
    """Collects what the cells of a file say about its times. Lines are kept for messages."""

    def __init__(self, options: TimeOptions, parts: tuple[str, ...], header: str) -> None:
        """`header`: the names of the time columns, which may say the order, as in `Date (MM/DD/YYYY)`."""
        self._options = options
        self._parts = parts
        self._orders: dict[DateOrder, str] = {}
        self._units: dict[EpochUnit, int] = {}
        self._undecided: tuple[int, str] | None = None
        if named := re.search(r"(?i)\b(dd?[-/.]mm?|mm?[-/.]dd?)[-/.]y", header):
            self._orders["day" if named[1][0] in "dD" else "month"] = f"as the name {header!r} says"

    def add(self, text: str, line: int) -> None:
        """Take a cell into account."""
        if self._parts or self._options.format is not None or text[4:5] == "-":  # the year is first: no two meanings
            return
        if found := YEAR_LAST.fullmatch(text):
            first, second = int(found[1]), int(found[3])
            if self._undecided is None:
                self._undecided = line, text
            if first > 12 >= second:
                self._orders.setdefault("day", f"as {text!r} in line {line} shows")
            elif second > 12 >= first:
                self._orders.setdefault("month", f"as {text!r} in line {line} shows")
        elif (unit := epoch_unit(text)) is not None:
            self._units.setdefault(unit, line)

    def times(self) -> Times:
        """Decide; raise TimeError if the file leaves it open or contradicts itself."""
        if len(self._orders) > 1:
            shown = " and ".join(f"the {order}, {why}" for order, why in self._orders.items())
            raise TimeError(f"its dates contradict each other, first comes {shown}; {_ask()}")
        if len(self._units) > 1:
            shown = " and ".join(f"{unit} in line {line}" for unit, line in self._units.items())
            raise TimeError(f"its times are whole numbers of two units, {shown}; --time-format says which is right")
        order, why = next(iter(self._orders.items()), (None, ""))
        if self._undecided is not None and order is None:
            line, text = self._undecided
            raise TimeError(
                f"is {text!r} in line {line} day first or month first? No time of the file shows it; {_ask()}"
            )
        unit: EpochUnit = next(iter(self._units), "ms")
        if self._undecided is None:
            order, why = None, f"{unit} since 1970" if self._units else ""
        else:
            why = f"{order} first, {why}"
        return Times(self._options, order, unit, self._parts, why)


def _ask() -> str:
    return "--time-format '%d/%m/%Y %H:%M' or '%m/%d/%Y %H:%M' decides (as the file writes it)"
