"""TALLY → PERSON: the progress of a fleet on standard error."""

import time
from contextlib import AbstractAsyncContextManager

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from runtime.terminal_panel import Rate, progress_bar, show
from simulator.tally import Tally


def progress(tally: Tally, *, title: str, seconds: float | None = None) -> AbstractAsyncContextManager[None]:
    """Show how the run goes while the context lasts."""
    return show(_View(tally, title, seconds), transient=True)


class _View:
    def __init__(self, tally: Tally, title: str, seconds: float | None) -> None:
        self._tally = tally
        self._title = title
        self._seconds = seconds
        self._started = time.monotonic()
        self._rate = Rate()

    def line(self) -> str:
        """Return the figures as one line."""
        tally = self._tally
        whole = f" of {tally.expected:,}" if tally.expected else ""
        return (
            f"{self._rate.update(tally.acked):,.0f} readings/s, sent {tally.sent:,}{whole}, "
            f"acknowledged {tally.acked:,}, in flight {tally.sent - tally.acked:,}, "
            f"p50 {tally.latencies.percentile_ms(50):.1f} ms, p99 {tally.latencies.percentile_ms(99):.1f} ms, "
            f"connected {tally.connected} of {tally.devices}, rejected {tally.rejected:,}"
        )

    def panel(self) -> Panel:
        """Return the figures as a panel."""
        tally = self._tally
        grid = Table.grid(padding=(0, 3))
        for _ in range(4):
            grid.add_column(justify="right")
        cells = {
            "readings/s": f"[bold]{self._rate.update(tally.acked):,.0f}[/]",
            "sent": f"{tally.sent:,}",
            "acknowledged": f"{tally.acked:,}",
            "in flight": f"{tally.sent - tally.acked:,}",
            "p50": f"{tally.latencies.percentile_ms(50):.1f} ms",
            "p99": f"{tally.latencies.percentile_ms(99):.1f} ms",
            "connected": f"{tally.connected} of {tally.devices}",
            "rejected": f"[red]{tally.rejected:,}[/]" if tally.rejected else "0",
        }
        items = list(cells.items())
        for first in range(0, len(items), 2):
            (name, shown), (other, other_shown) = items[first : first + 2]
            grid.add_row(f"[dim]{name}[/]", shown, f"[dim]{other}[/]", other_shown)
        parts: list[Table | ProgressBar] = [grid]
        if bar := progress_bar(tally.acked, tally.expected, started=self._started, seconds=self._seconds, width=60):
            parts.append(bar)
        return Panel(Group(*parts), title=self._title, expand=False)
