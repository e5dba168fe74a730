"""What an oracle finds wrong with the alarms of a run, and the figures of a run."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["missing", "twice", "under two ids", "false"]
KINDS: tuple[Kind, ...] = ("missing", "twice", "under two ids", "false")
SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing that must not be."""

    kind: Kind
    what: str


@dataclass
class AlarmsVerdict:
    """What became of all alarms of a run. `changes` are those that are notified one by one."""

    findings: list[Finding] = field(default_factory=list)
    changes: int = 0
    notified: int = 0
    # What the figures above leave out, and what shows that the run has tried something.
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong; a run without a change proves nothing."""
        return not self.findings and self.changes > 0

    def require(self, holds: bool, what: str) -> None:
        """Add a finding unless it holds."""
        if not holds:
            self.findings.append(Finding("false", what))

    def line(self) -> str:
        """Return the verdict in a line."""
        found = Counter(one.kind for one in self.findings)
        kinds = ", ".join(f"{found[kind]} {kind}" for kind in KINDS)
        figures = ", ".join(f"{count} {name}" for name, count in self.figures.items())
        return f"alarms: {self.changes} changes, {self.notified} notified, {kinds}; {figures}"

    def lines(self) -> list[str]:
        """Return what was found, some of it, and the verdict."""
        shown = []
        for kind in KINDS:
            mine = [f"  {kind}: {one.what}" for one in self.findings if one.kind == kind]
            shown += mine[:SHOWN]
            if len(mine) > SHOWN:
                shown.append(f"  {kind}: and {len(mine) - SHOWN} more")
        return [*shown, self.line()]


def found(kind: Kind, whats: Iterable[str]) -> list[Finding]:
    """Return findings of one kind."""
    return [Finding(kind, what) for what in whats]
