"""The progress of a run on standard error: a live panel in a terminal, a line now and then elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar

from runtime.background import background

PANEL_EVERY_S = 0.5
LINE_EVERY_S = 5.0
# Below this a rate would be noise.
_MIN_INTERVAL_S = 0.001


class View(Protocol):
    """The panel's content, rendered from the current figures at each call."""

    def panel(self) -> Panel:
        """Return the figures as a panel."""
        ...

    def line(self) -> str:
        """Return the figures as one line."""
        ...


class Rate:
    """The rate of a counter between two looks at it."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._count = 0

    def update(self, count: int) -> float:
        """Return how much the counter grew per second since the last call."""
        now = time.monotonic()
        rate = (count - self._count) / max(now - self._at, _MIN_INTERVAL_S)
        self._at, self._count = now, count
        return rate


def progress_bar(
    done: int, expected: int | None, *, started: float, seconds: float | None, width: int
) -> ProgressBar | None:
    """Return a bar of the expected count or, without one, of the run's time; None if the run has neither.

    `started` is a `time.monotonic()`.
    """
    if expected:
        return ProgressBar(total=expected, completed=done, width=width)
    if seconds:
        return ProgressBar(total=seconds, completed=min(time.monotonic() - started, seconds), width=width)
    return None


@asynccontextmanager
async def show(view: View, *, welcome: str = "", transient: bool = False) -> AsyncIterator[None]:
    """Print `welcome` and show the view while the context lasts; `transient` removes the panel at the end."""
    console = Console(stderr=True)
    if welcome:
        _print(console, welcome)
    async with background(_show(console, view, transient=transient), name="panel"):
        yield


async def _show(console: Console, view: View, *, transient: bool) -> None:
    with suppress(OSError):  # the terminal is gone: the run goes on without it
        if not console.is_terminal:
            while True:
                await asyncio.sleep(LINE_EVERY_S)
                _print(console, view.line())
        with Live(
            view.panel(), console=console, auto_refresh=False, redirect_stdout=False, transient=transient
        ) as live:
            while True:
                await asyncio.sleep(PANEL_EVERY_S)
                live.update(view.panel(), refresh=True)


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)
