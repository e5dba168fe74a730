"""The figures of a running onebox in the terminal: a live panel, or a line now and then where there is no terminal."""

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runtime.terminal_panel import Rate, progress_bar, show
from simulator.run_stats import RunStats

GATEWAY_READINGS = "tidegate_gateway_readings_total"
_PERSISTER_READINGS = "tidegate_persister_readings_total"
_CONNECTIONS = "tidegate_gateway_connections"


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of the figures; `depth` returns the number of queued messages."""

    registry: CollectorRegistry
    tally: RunStats
    depth: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Figures:
    """The state of the pipeline at one moment."""

    readings_per_second: float
    connected: int
    accepted: int
    stored: int
    duplicates: int
    waiting: int
    rejected: int
    p50_ms: float
    p99_ms: float


def count(registry: CollectorRegistry, metric: str, **labels: str) -> int:
    """Return the current value of a metric, 0 if there is none yet."""
    return int(registry.get_sample_value(metric, labels) or 0)


class View:
    """Reads the figures and draws them."""

    def __init__(self, sources: Sources, address: str, account: str, seconds: float | None) -> None:
        self._sources = sources
        self.address = address
        self._account = account
        self._seconds = seconds
        self._started = time.monotonic()
        self._rate = Rate()

    def figures(self) -> Figures:
        """Read all figures; the rate is the one since the last call."""
        registry, tally = self._sources.registry, self._sources.tally
        accepted = count(registry, GATEWAY_READINGS, answer="accepted")
        return Figures(
            readings_per_second=self._rate.update(accepted),
            connected=count(registry, _CONNECTIONS),
            accepted=accepted,
            stored=count(registry, _PERSISTER_READINGS, outcome="stored"),
            duplicates=count(registry, _PERSISTER_READINGS, outcome="duplicate"),
            waiting=self._sources.depth(),
            rejected=count(registry, GATEWAY_READINGS, answer="rejected"),
            p50_ms=tally.latencies.percentile_ms(50),
            p99_ms=tally.latencies.percentile_ms(99),
        )

    def welcome(self) -> str:
        """Return the dashboard's address and the account to log in with."""
        return f"Tidegate is up. Dashboard: {self.address}   log in as {self._account}"

    def line(self) -> str:
        """Return the figures as one line."""
        seen = self.figures()
        return (
            f"{seen.readings_per_second:,.0f} readings/s, {seen.connected:,} devices, accepted {seen.accepted:,}, "
            f"stored {seen.stored:,}, duplicates {seen.duplicates:,}, messages waiting {seen.waiting:,}, "
            f"rejected {seen.rejected:,}, acknowledged after {seen.p50_ms:.1f} ms (p50), {seen.p99_ms:.1f} ms (p99)"
        )

    def panel(self) -> Panel:
        """Return the figures as a panel."""
        seen = self.figures()
        grid = Table.grid(padding=(0, 2))
        for _ in range(3):
            grid.add_column(justify="left", style="dim")
            grid.add_column(justify="right", min_width=9)
        grid.add_row(
            "readings/s", f"[bold green]{seen.readings_per_second:,.0f}[/]",
            "accepted", f"{seen.accepted:,}",
            "answered p50", f"{seen.p50_ms:.1f} ms",
        )  # fmt: skip
        grid.add_row(
            "devices", f"{seen.connected:,}",
            "stored", f"{seen.stored:,}",
            "answered p99", f"{seen.p99_ms:.1f} ms",
        )  # fmt: skip
        grid.add_row(
            "queued", f"{seen.waiting:,}",
            "duplicates", f"{seen.duplicates:,}",
            "rejected", f"[red]{seen.rejected:,}[/]" if seen.rejected else "0",
        )  # fmt: skip
        parts: list[RenderableType] = [grid]
        tally = self._sources.tally
        if bar := progress_bar(tally.acked, tally.expected, started=self._started, seconds=self._seconds, width=70):
            parts += [Text(""), bar]
        parts += [
            Text(""),
            Text(f"Dashboard {self.address}   Ctrl-C drains and stops"),
            Text(f"log in as {self._account}", style="dim"),
        ]
        return Panel(Group(*parts), title="Tidegate", expand=False)


def shown(view: View) -> AbstractAsyncContextManager[None]:
    """Show the view on standard error while the context lasts."""
    return show(view, welcome=view.welcome())
