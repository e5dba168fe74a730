"""Takes screenshots of the dashboard on its own onebox: `python -m tests.e2e.screenshots [FOLDER]` (docs/images)."""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from testing.browser import Browser
from tests.e2e.demo_server import wait_for_demo_user
from tests.e2e.onebox_process import ROOT, demo_credentials, running_onebox

FOLDER = ROOT / "docs" / "images"
# How long the curves need to fill.
STREAMED_S = 45.0
# How much of the past the live chart shows.
BEFORE_S = 300
DEVICES = 12
SIMULATED = ("sim-0001", "sim-0007", "sim-0002", "sim-0006")
PRESS = {"name": "press-1", "sensorType": "state", "location": "hall 3"}
# The states of the press, and their duration in seconds.
ROUND = (("heating", 42), ("pressing", 27), ("cooling", 31), ("idle", 16))
EVERY_S = 2


def look(browser: Browser) -> None:
    """Leave the page as it is."""


def add_device(browser: Browser) -> None:
    """Add a device and show its token and code."""
    browser.find("[data-add-device]").click()
    for name, text in (("name", "press-2"), ("sensor", "temperature"), ("location", "hall 3")):
        browser.find(f"#add-{name}").send_keys(text)
    browser.find("#add-device-form [type=submit]").click()
    browser.until("return !document.getElementById('connect').hidden")
    browser.find("[data-language=python]").click()


def make_rule(browser: Browser) -> None:
    """Make a rule that the press breaks unless it is idle, and wait until its alarm is shown."""
    browser.find("#alarms-open").click()
    browser.find("#new-rule").click()
    browser.find("#rule-which [value=name]").click()
    fields = {
        "name": "pressure left on",
        "sensor": "pressure",
        "pattern": "press-*",
        "value": "1.5",
        "hysteresis": "0.2",
    }
    for name, text in fields.items():
        browser.find(f"#rule-{name}").clear()
        browser.find(f"#rule-{name}").send_keys(text)
    browser.find("#rule-try").click()
    browser.until("return !document.getElementById('trial').hidden")
    browser.find("#rule-save").click()
    browser.until("return document.querySelectorAll('#rules li').length > 0")
    browser.find("#alarms [data-close]").click()
    browser.until("return !document.getElementById('firing').hidden")
    # Wide enough to be seen.
    shaded = "document.getElementById('chart').layout.shapes.some(({ x0, x1 }) => x1 - x0 > arguments[0])"
    browser.until(f"return {shaded}", 12_000)


@dataclass(frozen=True)
class Picture:
    """A window, the series in its chart as (device name, sensorType), and a step before the screenshot."""

    window: dict[str, Any]
    series: tuple[tuple[str, str | None], ...] = tuple((name, None) for name in SIMULATED)
    then: Callable[[Browser], None] = field(default=look)


WIDE: dict[str, Any] = {"width": 1400, "height": 1060}
PICTURES = {
    "dashboard-light.png": Picture(WIDE),
    "dashboard-dark.png": Picture(WIDE | {"dark": True}),
    "dashboard-phone.png": Picture({"width": 390, "height": 844, "phone": True}),
    "dashboard-states.png": Picture(WIDE, tuple(("press-1", name) for name in ("state", "door", "pressure"))),
    # Last, because its device stays in the list, and the alarm above the chart.
    "dashboard-device.png": Picture(WIDE, then=add_device),
    "dashboard-alarms.png": Picture(WIDE, (("press-1", "pressure"),), then=make_rule),
}


def press_at(ts_ms: int) -> list[dict[str, Any]]:
    """Return a press's readings at a time: a state, a door that is open while idle, a pressure."""
    at = ts_ms // 1000 % sum(seconds for _, seconds in ROUND)
    for state, seconds in ROUND:  # noqa: B007 - the one that is left
        if at < seconds:
            break
        at -= seconds
    pressure = {"heating": 2.0, "pressing": 2 + min(at, 8) * 5.5, "cooling": max(2.0, 46 - at * 4), "idle": 1.0}[state]
    found: dict[str, Any] = {"state": state, "door": state == "idle", "pressure": round(pressure + at % 3 / 10, 1)}
    units = {"pressure": {"unit": "bar"}}
    return [{"sensorType": name, "value": value, "ts": ts_ms} | units.get(name, {}) for name, value in found.items()]


@asynccontextmanager
async def press(url: str, person: dict[str, str]) -> AsyncIterator[None]:
    """A press that has been sending for five minutes and continues."""
    async with aiohttp.ClientSession(url) as session:
        async with session.post("/user/login", json=person) as answer:
            bearer = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
        async with session.post("/devices", json=PRESS, headers=bearer) as answer:
            device = (await answer.json())["id"]

        async def send(times_ms: list[int]) -> None:
            body = [reading for ts_ms in times_ms for reading in press_at(ts_ms)]
            async with session.post("/readings", json=body, headers=bearer | {"X-Device-Id": device}) as answer:
                assert answer.status == 202, await answer.text()

        async def go_on() -> None:
            while True:
                await send([time.time_ns() // 1_000_000])
                await asyncio.sleep(EVERY_S)

        now_ms = time.time_ns() // 1_000_000
        await send([now_ms - 1000 * ago for ago in range(BEFORE_S, 0, -EVERY_S)])
        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))


async def fragment(url: str, person: dict[str, str], series: tuple[tuple[str, str | None], ...]) -> str:
    """Return the URL fragment that shows these series."""
    chosen = []
    async with aiohttp.ClientSession(url) as session:
        async with session.post("/user/login", json=person) as answer:
            bearer = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
        for name, sensor_type in series:
            async with session.get("/devices", params={"name": name}, headers=bearer) as answer:
                (device,) = (await answer.json())["items"]
            chosen.append(f"series={quote(device['id'])}/{quote(sensor_type or device['sensorType'])}")
    return "&".join(chosen)


def encode_one(url: str, person: dict[str, str], file: Path, wanted: Picture) -> None:
    """Log in, wait until the page is filled, and take a screenshot."""
    with Browser.opened(url, **wanted.window) as browser:
        browser.log_in(person["email"], person["password"])
        named = "(document.getElementById('chart').data ?? []).filter((trace) => trace.name)"
        browser.until(f"return {named}.length === arguments[0]", len(wanted.series))
        browser.until("return Number(document.getElementById('online').textContent) >= arguments[0]", DEVICES)
        browser.until("return Number(document.getElementById('rate').textContent) > 0")
        browser.until("return document.getElementById('legend').innerText.includes(arguments[0])", wanted.series[0][0])
        sparks = "[...document.querySelectorAll('.spark polyline')].map((line) => line.getAttribute('points') ?? '')"
        browser.until(f"return {sparks}.filter((points) => points.split(' ').length >= 12).length >= 5")
        wanted.then(browser)
        browser.run("document.activeElement.blur(); scrollTo(0, 0)")
        browser.until("return document.getAnimations().length === 0")
        browser.driver.save_screenshot(str(file))


async def take(folder: Path, *, streamed_s: float = STREAMED_S) -> list[Path]:
    """Take all screenshots."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidegate-screenshots-") as data:
        async with running_onebox("--devices", str(DEVICES), "--rate", "2", data=Path(data)) as (_, url):
            await wait_for_demo_user(url, Path(data))
            person = demo_credentials(Path(data))
            async with press(url, person):
                await asyncio.sleep(streamed_s)
                for name, wanted in PICTURES.items():
                    address = f"{url}/#{await fragment(url, person, wanted.series)}"
                    await asyncio.to_thread(encode_one, address, person, folder / name, wanted)
    return [folder / name for name in PICTURES]


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
