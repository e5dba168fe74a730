"""STATS → PERSON: the progress of a fleet on standard error."""

import time
from contextlib import AbstractAsyncContextManager

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from runtime.terminal_panel import Rate, progress_bar, show
from simulator.run_stats import RunStats


def progress(stats: RunStats, *, title: str, seconds: float | None = None) -> AbstractAsyncContextManager[None]:
    """Show how the run goes while the context lasts."""
    return show(_View(stats, title, seconds), transient=True)


class _View:
    def __init__(self, stats: RunStats, title: str, seconds: float | None) -> None:
        self._stats = stats
        self._title = title
        self._seconds = seconds
        self._started = time.monotonic()
        self._rate = Rate()

    def line(self) -> str:
        """Return the figures as one line."""
        stats = self._stats
        whole = f" of {stats.expected:,}" if stats.expected else ""
        return (
            f"{self._rate.update(stats.acked):,.0f} readings/s, sent {stats.sent:,}{whole}, "
            f"acknowledged {stats.acked:,}, in flight {stats.sent - stats.acked:,}, "
            f"p50 {stats.latencies.percentile_ms(50):.1f} ms, p99 {stats.latencies.percentile_ms(99):.1f} ms, "
            f"connected {stats.connected} of {stats.devices}, rejected {stats.rejected:,}"
        )

    def panel(self) -> Panel:
        """Return the figures as a panel."""
        stats = self._stats
        grid = Table.grid(padding=(0, 3))
        for _ in range(4):
            grid.add_column(justify="right")
        cells = {
            "readings/s": f"[bold]{self._rate.update(stats.acked):,.0f}[/]",
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
        if bar := progress_bar(stats.acked, stats.expected, started=self._started, seconds=self._seconds, width=60):
            parts.append(bar)
        return Panel(Group(*parts), title=self._title, expand=False)
