"""The figures of a benchmark, with their limits and verdicts."""

import json
import platform
import sys
from dataclasses import asdict, dataclass

COLUMNS = {"perSecond": "readings/s", "load": "the load's own"}


@dataclass(frozen=True)
class Figure:
    """One figure; `limit` is its maximum, `at_least` its minimum, both None if it is informational.

    Without a unit it is a heading.
    """

    what: str
    value: float
    unit: str
    limit: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        """`holds`, `FALLS SHORT`, or empty without a limit."""
        if self.limit is None and self.at_least is None:
            return ""
        high = self.limit is not None and self.value > self.limit
        low = self.at_least is not None and self.value < self.at_least
        return "FALLS SHORT" if high or low else "holds"

    @property
    def target(self) -> str:
        """Its limit, as text."""
        if self.limit is not None:
            return f"<= {self.limit:g}"
        return "" if self.at_least is None else f">= {self.at_least:,g}"


def exit_code(figures: list[Figure]) -> int:
    """Return 1 if a figure falls short, else 0."""
    return int(any(figure.verdict == "FALLS SHORT" for figure in figures))


def show(title: str, figures: list[Figure], *, as_json: bool) -> int:
    """Print the figures; return the exit code, 1 if one falls short."""
    if as_json:
        items = [asdict(figure) | {"verdict": figure.verdict} for figure in figures]
        print(json.dumps({"title": title, "python": platform.python_version(), "figures": items}))
        return exit_code(figures)
    width = max(len(figure.what) for figure in figures)
    print(f"\n{title}")
    for figure in figures:
        if not figure.unit:
            print(f"\n{figure.what}")
            continue
        value = f"{figure.value:12,.0f}" if figure.value >= 10_000 else f"{figure.value:12.3f}"
        print(f"  {figure.what:{width}}  {value} {figure.unit:12} {figure.target:10} {figure.verdict}".rstrip())
    return exit_code(figures)


def markdown(figures: list[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| | | asked | |", "|---|---|---|---|"]
    for figure in figures:
        if not figure.unit:
            lines.append(f"| **{figure.what}** | | | |")
            continue
        value = rounded(figure.value)
        indent = "&nbsp;" * (len(figure.what) - len(figure.what.lstrip()))
        lines.append(f"| {indent}{figure.what.strip()} | {value} {figure.unit} | {figure.target} | {figure.verdict} |")
    return "\n".join(lines) + "\n"


def rounded(value: float) -> str:
    """Return a figure for a table."""
    if abs(value) >= 1000 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def table_markdown(table: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table whose rows may have different columns; empty for an empty table."""
    if not table:
        return ""
    names = list(dict.fromkeys(name for row in table.values() for name in row))
    lines = ["| | " + " | ".join(COLUMNS.get(name, name) for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for what, row in table.items():
        cells = [rounded(row[name]) if name in row else "" for name in names]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def progress(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)
