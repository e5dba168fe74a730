"""What a person at the terminal sees while a onebox runs: a live panel, or a line now and then where there is none."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from simulator.run_stats import RunStats

PANEL_EVERY_S = 0.5
LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from."""

    registry: CollectorRegistry
    tally: RunStats
    depth: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at the pipeline."""

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
    """Return a metric's present value; 0 when nothing was counted yet."""
    return int(registry.get_sample_value(metric, labels) or 0)


class View:
    """Looks at the pipeline and draws what it sees."""

    def __init__(self, sources: Sources, address: str, account: str, seconds: float | None) -> None:
        self._sources = sources
        self.address = address
        self._account = account
        self._seconds = seconds
        self._started = self._looked_at = time.monotonic()
        self._accepted = 0

    def look(self) -> Figures:
        """Read all figures; the rate is since the last look."""
        registry, tally = self._sources.registry, self._sources.tally
        readings, outcomes = "tidegate_gateway_readings_total", "tidegate_persister_readings_total"
        now, accepted = time.monotonic(), count(registry, readings, answer="accepted")
        rate = (accepted - self._accepted) / max(now - self._looked_at, 0.001)
        self._looked_at, self._accepted = now, accepted
        return Figures(
            readings_per_second=rate,
            connected=count(registry, "tidegate_gateway_connections"),
            accepted=accepted,
            stored=count(registry, outcomes, outcome="stored"),
            duplicates=count(registry, outcomes, outcome="duplicate"),
            waiting=self._sources.depth(),
            rejected=count(registry, readings, answer="rejected"),
            p50_ms=tally.latencies.percentile_ms(50),
            p99_ms=tally.latencies.percentile_ms(99),
        )

    def welcome(self) -> str:
        """Return where the dashboard is, and who may look at it."""
        return f"Tidegate is up. Dashboard: {self.address}   log in as {self._account}"

    def line(self) -> str:
        """Return the figures as one line."""
        seen = self.look()
        return (
            f"{seen.readings_per_second:,.0f} readings/s, {seen.connected:,} devices, accepted {seen.accepted:,}, "
            f"stored {seen.stored:,}, duplicates {seen.duplicates:,}, messages waiting {seen.waiting:,}, "
            f"rejected {seen.rejected:,}, acknowledged after {seen.p50_ms:.1f} ms (p50), {seen.p99_ms:.1f} ms (p99)"
        )

    def panel(self) -> Panel:
        """Return the figures as a panel."""
        seen = self.look()
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
        if bar := self._bar():
            parts += [Text(""), bar]
        parts += [
            Text(""),
            Text(f"Dashboard {self.address}   Ctrl-C drains and stops"),
            Text(f"log in as {self._account}", style="dim"),
        ]
        return Panel(Group(*parts), title="Tidegate", expand=False)

    def _bar(self) -> ProgressBar | None:
        tally = self._sources.tally
        if tally.expected:
            return ProgressBar(total=tally.expected, completed=tally.acked, width=70)
        if self._seconds:
            return ProgressBar(
                total=self._seconds, completed=min(time.monotonic() - self._started, self._seconds), width=70
            )
        return None


@asynccontextmanager
async def shown(view: View) -> AsyncIterator[None]:
    """Show the view on standard error as long as the context lasts."""
    console = Console(stderr=True)
    console.print(view.welcome(), soft_wrap=True, highlight=False, markup=False)
    task = asyncio.create_task(_panel(console, view) if console.is_terminal else _lines(console, view), name="panel")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _panel(console: Console, view: View) -> None:
    with Live(view.panel(), console=console, auto_refresh=False, redirect_stdout=False) as live:
        while True:
            await asyncio.sleep(PANEL_EVERY_S)
            live.update(view.panel(), refresh=True)


async def _lines(console: Console, view: View) -> None:
    while True:
        await asyncio.sleep(LINE_EVERY_S)
        console.print(view.line(), soft_wrap=True, highlight=False, markup=False)
