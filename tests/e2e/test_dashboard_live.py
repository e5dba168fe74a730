"""The live chart in a real browser: quick sensors, late readings, readings ahead of now, hidden tabs."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from testing.browser import Browser
from tests.e2e.charts import ago, looking, runs
from tests.e2e.demo_server import DemoServer

# Records in the page when each point is first drawn.
WATCH = (
    "window.drawn = new Map(); window.most = 0;"
    "setInterval(() => { for (const {name, x} of document.getElementById('chart').data ?? []) {"
    " if (!name) continue; window.most = Math.max(window.most, x.length);"
    " for (const at of x) if (!window.drawn.has(at)) window.drawn.set(at, Date.now()); } }, 50)"
)
DRAWN = "return [...window.drawn]"


@contextmanager
def streaming(demo_server: DemoServer, device: str, hz: int, *, seconds: float) -> Iterator[list[int]]:
    """Send a sensor's readings as they are measured, one or 20 per request; returns their times."""
    sent: list[int] = []
    thread = threading.Thread(target=lambda: asyncio.run(_stream(demo_server, device, hz, seconds, sent)))
    thread.start()
    try:
        yield sent
    finally:
        thread.join()


async def _stream(demo_server: DemoServer, device: str, hz: int, seconds: float, sent: list[int]) -> None:
    at_once = max(1, hz // 10)
    async with aiohttp.ClientSession(demo_server.url) as session:
        async with session.post("/user/login", json=demo_server.person) as answer:
            headers = {"Authorization": f"Bearer {(await answer.json())['accessToken']}", "X-Device-Id": device}
        began = time.time()
        for number in range(int(seconds * hz / at_once)):
            now = began + number * at_once / hz
            await asyncio.sleep(max(0.0, now - time.time()))
            times = [round((now - n / hz) * 1000) for n in reversed(range(at_once))]
            part = [{"sensorType": "level", "ts": ts, "seq": 0, "value": ts % 1000} for ts in times]
            async with session.post("/readings", json=part, headers=headers) as answer:
                assert answer.status == 202
            sent.extend(times)


@pytest.mark.parametrize("hz", [5, 10])
def test_every_reading_of_a_quick_sensor_is_drawn_live_whatever_came_before(
    browser: Browser, demo_server: DemoServer, hz: int
) -> None:
    """The last five minutes hold more than 1,000 readings, and the feed leaves some of the new ones out."""
    device = f"quick-{hz}"
    begin = ago(4.9)
    demo_server.send(
        device, [{"sensorType": "level", "ts": begin + 190 * n, "seq": 0, "value": n % 7} for n in range(1500)]
    )
    looking(browser, demo_server, (device, "level"), also="span=live")
    browser.until("return document.getElementById('chart').data[0].x.length >= 1400")
    browser.run(WATCH)
    with streaming(demo_server, device, hz, seconds=8) as sent:
        pass
    assert len(sent) == 8 * hz
    browser.until("return arguments[0].every((at) => window.drawn.has(at))", sent)
    (curve,) = browser.curves()
    times = [x for piece in runs(curve) for x in piece]
    assert times == sorted(set(times))


def test_a_sensor_too_quick_to_be_drawn_one_by_one_is_drawn_in_buckets_that_count_every_reading(
    browser: Browser, demo_server: DemoServer
) -> None:
    begin = ago(2)
    history = [{"sensorType": "level", "ts": begin + 10 * n, "seq": 0, "value": n % 7} for n in range(8000)]
    demo_server.send("quick-200", history)
    looking(browser, demo_server, ("quick-200", "level"), also="span=live")
    browser.until("return document.getElementById('resolution').textContent.startsWith('8,000 readings, mean')")
    before = browser.curves()[0]["x"][-1]
    with streaming(demo_server, "quick-200", 200, seconds=6) as sent:
        browser.until("return document.getElementById('chart').data.at(-1).x.at(-1) > arguments[0]", before + 5000)
    total = f"{len(history) + len(sent):,} readings, mean"
    browser.until("return document.getElementById('resolution').textContent.startsWith(arguments[0])", total)


def test_a_live_line_grows_no_longer_than_its_window(browser: Browser, demo_server: DemoServer) -> None:
    """Readings leave at one end as they enter at the other."""
    begin = ago(4.95)
    demo_server.send(
        "window-1", [{"sensorType": "level", "ts": begin + 50 * n, "seq": 0, "value": 1} for n in range(2000)]
    )
    looking(browser, demo_server, ("window-1", "level"), also="span=live")
    browser.until("return document.getElementById('chart').data[0].x.length > 1000")
    with streaming(demo_server, "window-1", 10, seconds=6):
        browser.until("return document.getElementById('chart').data[0].x.length < 2000")
    browser.until("return document.getElementById('chart').data[0].x[0] > arguments[0]", begin + 4000)


def test_late_readings_are_drawn_where_they_belong(browser: Browser, demo_server: DemoServer) -> None:
    """A device reconnects and sends what it buffered in one batch, of which the feed sends one reading."""
    now = ago(0)
    fresh = [{"sensorType": "level", "ts": now - 1000 * n, "seq": 0, "value": 5} for n in range(20)]
    demo_server.send("late-1", fresh[::-1])
    looking(browser, demo_server, ("late-1", "level"), also="span=live")
    browser.until("return document.getElementById('chart').data[0].x.length === 20")
    late = [{"sensorType": "level", "ts": now - 120_000 + 1000 * n, "seq": 0, "value": 9} for n in range(30)]
    demo_server.send("late-1", late)
    browser.until("return document.getElementById('chart').data[0].y.filter((y) => y === 9).length === 30")
    (curve,) = browser.curves()
    times = [x for piece in runs(curve) for x in piece]
    assert times == sorted(set(times))
    demo_server.send("late-1", [{"sensorType": "level", "ts": ago(0), "seq": 0, "value": 6}])
    browser.until("return document.getElementById('chart').data[0].y.at(-1) === 6")


def test_readings_ahead_of_now_stand_apart_and_mute_nothing(browser: Browser, demo_server: DemoServer) -> None:
    now = ago(0)
    ahead = [{"sensorType": "level", "ts": now + 3_600_000 + 60_000 * n, "seq": 0, "value": 99} for n in range(3)]
    demo_server.send("ahead-1", [{"sensorType": "level", "ts": now - 1000, "seq": 0, "value": 1}, *ahead])
    looking(browser, demo_server, ("ahead-1", "level"), also="span=live")
    assert browser.text("#ahead-text").startswith("3 readings ahead of now, up to ")
    for value in (2, 3):
        demo_server.send("ahead-1", [{"sensorType": "level", "ts": ago(0), "seq": 0, "value": value}])
        browser.until("return document.getElementById('chart').data[0].y.at(-1) === arguments[0]", value)
    (curve,) = browser.curves()
    assert 99 not in curve["y"]
    assert browser.run("return document.getElementById('chart').layout.xaxis.range[1]") < now + 120_000
    assert browser.figures()[0][1] == "3"
    demo_server.send("ahead-1", [{"sensorType": "level", "ts": ago(0) + 7_200_000, "seq": 0, "value": 98}])
    browser.until("return document.getElementById('ahead-text').innerText.startsWith('4 readings ahead')")
    browser.find("#ahead-show").click()
    browser.until("return document.getElementById('chart').data[0].y.filter((y) => y === 99 || y === 98).length === 4")
    browser.find("[data-span='live']").click()
    browser.until("return document.getElementById('chart').data[0].y.at(-1) === 3")


def test_a_hidden_page_draws_nothing_and_catches_up_when_it_is_seen_again(
    browser: Browser, demo_server: DemoServer
) -> None:
    demo_server.send("hidden-1", [{"sensorType": "level", "ts": ago(0), "seq": 0, "value": 0}])
    looking(browser, demo_server, ("hidden-1", "level"), also="span=live")
    hide = (
        "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
        "Object.defineProperty(document, 'visibilityState', {value: arguments[1], configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    browser.run(hide, True, "hidden")
    browser.run(
        "window.draws = 0; const react = Plotly.react;"
        "Plotly.react = (...all) => { window.draws += 1; return react(...all); }"
    )
    with streaming(demo_server, "hidden-1", 10, seconds=3) as sent:
        pass
    assert browser.run("return window.draws") == 0
    browser.run(hide, False, "visible")
    browser.until(
        "const x = new Set(document.getElementById('chart').data[0].x); return arguments[0].every((at) => x.has(at))",
        sent,
    )


def wrong_clock(minutes: float) -> str:
    """Return a script that makes the page's clock wrong by this much."""
    return (
        "{ const Right = Date; const off = " + str(round(minutes * 60_000)) + ";"
        "Date = class extends Right {"
        " constructor(...all) { if (all.length) super(...all); else super(Right.now() + off); }"
        " static now() { return Right.now() + off; } }; }"
    )


@pytest.mark.parametrize("minutes", [-10, 10, -1440])
def test_a_browser_whose_clock_is_wrong_shows_what_comes_in(demo_server: DemoServer, minutes: float) -> None:
    with Browser.opened(demo_server.url, before=wrong_clock(minutes)) as browser:
        assert abs(browser.run("return Date.now()") / 1000 - time.time()) > 500
        device = f"clock{minutes}"
        demo_server.send(device, [{"sensorType": "level", "ts": ago(0), "seq": 0, "value": 1}])
        looking(browser, demo_server, (device, "level"), also="span=live")
        demo_server.send(device, [{"sensorType": "level", "ts": ago(0), "seq": 0, "value": 2}])
        browser.until("return document.getElementById('chart').data[0].y.at(-1) === 2")
        low, high = browser.run("return document.getElementById('chart').layout.xaxis.range")
        assert low < time.time() * 1000
        assert abs(high - time.time() * 1000) < 30_000
        assert browser.run("return document.getElementById('ahead').hidden")


def test_a_range_can_be_dragged_slowly_while_the_chart_is_live(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send(
        "dragged-1", [{"sensorType": "level", "ts": ago(2) + 1000 * n, "seq": 0, "value": n} for n in range(110)]
    )
    looking(browser, demo_server, ("dragged-1", "level"), also="span=live")
    with streaming(demo_server, "dragged-1", 5, seconds=5):
        box = browser.run(
            "const {x, y, width} = document.querySelector('.nsewdrag').getBoundingClientRect(); return [x, y, width]"
        )
        for kind, part in (("mousePressed", 0.3), ("mouseMoved", 0.4), ("mouseMoved", 0.5), ("mouseReleased", 0.5)):
            place = {"type": kind, "x": box[0] + box[2] * part, "y": box[1] + 60, "button": "left", "clickCount": 1}
            browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", place)
            time.sleep(0.8)  # longer than the chart stands still otherwise
    browser.until("return location.hash.includes('span=range')")
    low, high = browser.run("return document.getElementById('chart').layout.xaxis.range")
    assert 10_000 < high - low < 60_000
