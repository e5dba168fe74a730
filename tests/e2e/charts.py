"""Readings for the dashboard's chart, and the page that shows them."""

import time
from typing import Any
from urllib.parse import quote

from testing.browser import Browser
from tests.e2e.demo_server import DemoServer

MINUTE_MS = 60_000


def ago(minutes: float) -> int:
    return int(time.time() * 1000 - minutes * MINUTE_MS)


def shown(demo_server: DemoServer, *series: tuple[str, str], also: str = "span=1h") -> str:
    """Return the URL that shows these series."""
    parts = [f"series={quote(device, safe='')}/{quote(sensor, safe='')}" for device, sensor in series]
    return f"{demo_server.url}/#{'&'.join([*parts, also])}"


def looking(browser: Browser, demo_server: DemoServer, *series: tuple[str, str], also: str = "span=1h") -> None:
    """Log in at that URL, and wait until every series is drawn."""
    browser.driver.get(shown(demo_server, *series, also=also))
    browser.driver.refresh()  # another fragment alone loads nothing
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    browser.until("return new Set(arguments[0]).size <= document.getElementById('legend').rows.length", list(series))
    browser.until("return document.getElementById('chart').data?.length > 0")


def every(
    step_minutes: float, values: list[Any], sensor: str, *, back: float = 50, **also: Any
) -> list[dict[str, Any]]:
    """Return readings of one sensor, the first one `back` minutes ago."""
    return [
        {"sensorType": sensor, "ts": ago(back - step_minutes * n), "seq": n, "value": value, **also}
        for n, value in enumerate(values)
    ]


def runs(curve: dict[str, Any]) -> list[list[float]]:
    """Return the times of a line, split at its gaps."""
    found: list[list[float]] = [[]]
    for x, y in zip(curve["x"], curve["y"], strict=True):
        if y is None:
            found.append([])
        else:
            found[-1].append(x)
    return found
