"""What a bench found: each figure beside what is asked of it."""

import json
import platform
import sys
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One figure; `limit` is the most that it may be, None where it only informs."""

    what: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """`holds`, `FAILS`, or nothing where nothing is asked."""
        if self.limit is None:
            return ""
        return "holds" if self.value <= self.limit else "FAILS"


def show(title: str, figures: list[Figure], *, as_json: bool) -> int:
    """Print the figures; return the exit code, 1 where one fails."""
    failed = any(figure.verdict == "FAILS" for figure in figures)
    if as_json:
        items = [asdict(figure) | {"verdict": figure.verdict} for figure in figures]
        print(json.dumps({"title": title, "python": platform.python_version(), "figures": items}))
        return int(failed)
    width = max(len(figure.what) for figure in figures)
    print(f"\n{title}")
    for figure in figures:
        limit = "" if figure.limit is None else f"<= {figure.limit:g}"
        print(f"  {figure.what:{width}}  {figure.value:10.3f} {figure.unit:12} {limit:8} {figure.verdict}".rstrip())
    return int(failed)


def progress(text: str) -> None:
    """Say on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)
