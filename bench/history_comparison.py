"""One row of the history benchmark: what is measured now, what it is compared with, and the goal."""

from dataclasses import dataclass

from bench.report import Figure, rounded
from bench.versions import BASE

COMMIT = f"commit {BASE}"
TIME_SERIES = "a time-series collection"
BEGIN = "<!-- bench history: the table below is written by `python -m bench history` -->"
END = "<!-- bench history: end -->"


@dataclass(frozen=True)
class Comparison:
    """A figure of this version beside that of another one (`other`, None if it was not measured).

    The goal is a limit of the ratio to the other one; with `is_absolute`, of the figure itself.
    """

    what: str
    unit: str
    now: float
    other: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    is_absolute: bool = False
    against: str = COMMIT
    time_series: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the other figure this one is."""
        return self.now / self.other if self.other else None

    @property
    def judged(self) -> Figure | None:
        """The figure with the goal; None if there is no goal, or nothing to compare with."""
        if self.at_most is None and self.at_least is None:
            return None
        if self.is_absolute:
            return Figure(self.what, self.now, self.unit, self.at_most, self.at_least)
        if self.ratio is None:
            return None
        return Figure(f"  ratio to {self.against}", self.ratio, "x", self.at_most, self.at_least)

    def figures(self) -> list[Figure]:
        """Return its lines; one of them has the verdict."""
        judged = self.judged
        is_first = judged is not None and self.is_absolute
        lines = [judged if judged is not None and is_first else Figure(self.what, self.now, self.unit)]
        if self.other is not None:
            lines.append(Figure(f"  {self.against}", self.other, self.unit))
        if self.time_series is not None:
            lines.append(Figure(f"  {TIME_SERIES}", self.time_series, self.unit))
        if judged is not None and not is_first:
            lines.append(judged)
        return lines

    def row(self) -> dict[str, float]:
        """Return its row of the stored table."""
        goal = self.at_most if self.at_most is not None else self.at_least
        cells = {"before": self.other, "now": self.now, "ratio": self.ratio, "goal": goal}
        cells["time series"] = self.time_series
        return {name: value for name, value in cells.items() if value is not None}

    def line(self) -> str:
        """Return its line of the table in the docs."""
        goal = ""
        if (judged := self.judged) is not None:
            limit = f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"
            goal = f"{limit} {self.unit}" if self.is_absolute else f"{limit} ×"
        before = "" if self.other is None else rounded(self.other)
        if self.other is not None and self.against != COMMIT:
            before += f" ({self.against})"
        ratio = "" if self.ratio is None else f"{rounded(self.ratio)} ×"
        cells = [f"{self.what}, {self.unit}", before, rounded(self.now), ratio, goal]
        cells += [judged.verdict if judged is not None else ""]
        cells += ["" if self.time_series is None else rounded(self.time_series)]
        return "| " + " | ".join(cells) + " |"


def table(comparisons: list[Comparison]) -> str:
    """Return the table of the docs."""
    head = ["", COMMIT, "now", "ratio", "goal", "", TIME_SERIES]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(one.line() for one in comparisons)]) + "\n"


def with_table(document: str, text: str) -> str:
    """Return a document with another text between its two marks; ValueError if it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the document has no place for the table")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"
