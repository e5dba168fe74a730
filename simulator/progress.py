"""STATS → TERMINAL: a live panel in a terminal, a plain line every 5 s elsewhere; always on standard error."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from simulator.run_stats import RunStats

PANEL_EVERY_S = 0.5
LINE_EVERY_S = 5.0


@asynccontextmanager
async def progress(stats: RunStats, *, title: str, seconds: float | None = None) -> AsyncIterator[None]:
    """Show the progress of the run while the context is active."""
    console = Console(stderr=True)
    view = _View(stats, title, seconds)
    work = _panel(console, view) if console.is_terminal else _lines(console, view)
    task = asyncio.create_task(work, name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _panel(console: Console, view: "_View") -> None:
    with Live(view.panel(), console=console, auto_refresh=False, transient=True) as live:
        while True:
            await asyncio.sleep(PANEL_EVERY_S)
            live.update(view.panel(), refresh=True)


async def _lines(console: Console, view: "_View") -> None:
    while True:
        await asyncio.sleep(LINE_EVERY_S)
        console.print(view.line(), soft_wrap=True, highlight=False, markup=False)


class _View:
    def __init__(self, stats: RunStats, title: str, seconds: float | None) -> None:
        self._stats = stats
        self._title = title
        self._seconds = seconds
        self._started = self._sampled_at = time.monotonic()
        self._acked = 0

    def _rate(self) -> float:
        now, acked = time.monotonic(), self._stats.acked
        rate = (acked - self._acked) / max(now - self._sampled_at, 0.001)
        self._sampled_at, self._acked = now, acked
        return rate

    def line(self) -> str:
        stats = self._stats
        total = f" of {stats.expected:,}" if stats.expected else ""
        return (
            f"{self._rate():,.0f} readings/s, sent {stats.sent:,}{total}, acknowledged {stats.acked:,}, "
            f"in flight {stats.sent - stats.acked:,}, p50 {stats.latencies.percentile_ms(50):.1f} ms, "
            f"p99 {stats.latencies.percentile_ms(99):.1f} ms, connected {stats.connected} of {stats.devices}, "
            f"rejected {stats.rejected:,}"
        )

    def panel(self) -> Panel:
        stats = self._stats
        grid = Table.grid(padding=(0, 3))
        for _ in range(4):
            grid.add_column(justify="right")
        cells = {
            "readings/s": f"[bold]{self._rate():,.0f}[/]",
            "sent": f"{stats.sent:,}",
            "acknowledged": f"{stats.acked:,}",
            "in flight": f"{stats.sent - stats.acked:,}",
            "p50": f"{stats.latencies.percentile_ms(50):.1f} ms",
            "p99": f"{stats.latencies.percentile_ms(99):.1f} ms",
            "connected": f"{stats.connected} of {stats.devices}",
            "rejected": f"[red]{stats.rejected:,}[/]" if stats.rejected else "0",
        }
        items = list(cells.items())
        for first in range(0, len(items), 2):
            (name, shown), (other, other_shown) = items[first : first + 2]
            grid.add_row(f"[dim]{name}[/]", shown, f"[dim]{other}[/]", other_shown)
        parts: list[Table | ProgressBar] = [grid]
        if stats.expected:
            parts.append(ProgressBar(total=stats.expected, completed=stats.acked, width=60))
        elif self._seconds:
            done = min(time.monotonic() - self._started, self._seconds)
            parts.append(ProgressBar(total=self._seconds, completed=done, width=60))
        return Panel(Group(*parts), title=self._title, expand=False)
