"""The progress of a run: its rate, its bar, and what it prints without a terminal."""

import asyncio
import time

import pytest
from rich.panel import Panel

from runtime import terminal_panel
from runtime.terminal_panel import Rate, progress_bar, show


class Figures:
    def __init__(self) -> None:
        self.drawn = 0

    def panel(self) -> Panel:
        raise AssertionError("there is no terminal")

    def line(self) -> str:
        self.drawn += 1
        return f"[line] {self.drawn}"


def test_a_rate_is_that_since_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: at)
    rate = Rate()
    at = 102.0
    assert rate.update(10) == 5
    at = 103.0
    assert rate.update(40) == 30
    assert rate.update(41) == 1000  # at the same moment: bounded


@pytest.mark.parametrize(("expected", "seconds", "bar"), [(10, 60.0, (4, 10)), (0, 60.0, (7, 60)), (None, None, None)])
def test_a_bar_shows_the_expected_count_or_else_the_time(
    monkeypatch: pytest.MonkeyPatch, expected: int | None, seconds: float | None, bar: tuple[float, float] | None
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 107.0)
    found = progress_bar(4, expected, started=100.0, seconds=seconds, width=60)
    assert (found and (found.completed, found.total)) == bar


async def test_without_a_terminal_lines_are_printed_until_the_context_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal_panel, "LINE_EVERY_S", 0.01)
    view = Figures()
    async with show(view, welcome="[here] it is"):
        while view.drawn < 2:
            await asyncio.sleep(0.01)
    drawn = view.drawn
    await asyncio.sleep(0.05)
    assert view.drawn == drawn
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[:3] == ["[here] it is", "[line] 1", "[line] 2"]


async def test_a_terminal_that_is_gone_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal_panel, "LINE_EVERY_S", 0.01)
    view = Figures()

    def gone() -> str:
        raise OSError("Input/output error")

    monkeypatch.setattr(view, "line", gone)
    async with show(view):
        await asyncio.sleep(0.05)
