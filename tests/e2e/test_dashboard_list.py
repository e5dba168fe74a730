"""The dashboard's list in a real browser: searched, scrolled and selected, however long."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from testing.browser import Browser
from tests.e2e.demo_server import DemoServer

MANY = 3000
LISTED = "return document.querySelectorAll('#series li:not(.loading)').length > 0"
# Counts requests for the list: running now, most at once, all; and delays each.
COUNTED = (
    "window.asked = {now: 0, most: 0, all: 0}; const fetched = window.fetch;"
    "window.fetch = async (address, ...rest) => {"
    " if (!String(address).startsWith('/series/search')) return fetched(address, ...rest);"
    " const {asked} = window; asked.all += 1; asked.now += 1; asked.most = Math.max(asked.most, asked.now);"
    " try { await new Promise((done) => setTimeout(done, window.slow ?? 0)); return await fetched(address, ...rest); }"
    " finally { asked.now -= 1; } };"
)
HIDE = (
    "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    "document.dispatchEvent(new Event('visibilitychange'))"
)


def entered(browser: Browser, demo_server: DemoServer) -> Browser:
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    browser.until(LISTED)
    return browser


def row_of(browser: Browser, text: str) -> Any:
    """Search for one series, and return its row's parts."""
    browser.search(text)
    browser.until(
        "const rows = document.querySelectorAll('#series li:not(.loading)');"
        "return rows.length === 1 && rows[0].innerText.includes(arguments[0])",
        text,
    )
    return browser.run(
        "const {parts} = document.querySelector('#series li');"
        "return {value: parts.value.innerText, state: parts.state.textContent.trim(), dot: parts.dot.className,"
        " ahead: parts.ahead.innerText, aheadTitle: parts.ahead.title, age: parts.age.innerText}"
    )


def now_ms() -> int:
    return int(time.time() * 1000)


def level(value: Any, ts: int, **also: Any) -> dict[str, Any]:
    return {"sensorType": "level", "value": value, "ts": ts, "seq": 0, **also}


def test_a_reading_ahead_of_now_neither_mutes_its_series_nor_is_its_newest(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    now = now_ms()
    demo_server.send("ahead-1", [level(1, now - 5000), level(99, now + 3_600_000)])
    found = row_of(logged_in, "ahead-1")
    assert (found["value"], found["ahead"]) == ("1", "ahead")
    assert found["aheadTitle"].startswith("99, dated ahead of now")
    for value in (2, 3):
        demo_server.send("ahead-1", [level(value, now_ms())])
        logged_in.until("return document.querySelector('#series .value').innerText === arguments[0]", str(value))
    demo_server.send("ahead-1", [level(98, now_ms() + 7_200_000)])
    logged_in.until("return document.querySelector('#series .mark-ahead').title.startsWith('98')")
    assert row_of(logged_in, "ahead-1")["value"] == "3"


def test_what_comes_late_is_not_shown_as_the_newest(logged_in: Browser, demo_server: DemoServer) -> None:
    demo_server.send("late-1", [level(5, now_ms())])
    assert row_of(logged_in, "late-1")["value"] == "5"
    demo_server.send("late-1", [level(4, now_ms() - 600_000)])
    demo_server.send("late-1", [level(6, now_ms())])
    logged_in.until("return document.querySelector('#series .value').innerText === '6'")
    logged_in.run(
        "window.seen = new Set(); setInterval(() => seen.add(document.querySelector('.value').innerText), 20)"
    )
    demo_server.send("late-1", [level(4, now_ms() - 500_000)])
    demo_server.send("late-1", [level(7, now_ms())])
    logged_in.until("return window.seen.has('7')")
    assert "4" not in logged_in.run("return [...window.seen]")


def test_a_device_that_posts_over_http_is_sending_and_not_online(logged_in: Browser, demo_server: DemoServer) -> None:
    assert logged_in.until("return document.getElementById('online').textContent") in {"–", "8"}
    assert row_of(logged_in, "sim-0001")["dot"] == "dot on"
    demo_server.send("poster-1", [level(1, now_ms())])
    assert row_of(logged_in, "poster-1")["state"] == "offline"
    demo_server.send("poster-1", [level(2, now_ms())])
    logged_in.until("return document.querySelector('#series .dot').classList.contains('sending')")
    found = row_of(logged_in, "poster-1")
    assert (found["state"], found["dot"]) == ("sending", "dot sending")
    assert logged_in.run("return document.getElementById('online').textContent") == "8"
    site_online = "return document.querySelectorAll('#series .dot.on').length"
    logged_in.search("offline poster-1")
    logged_in.until(f"{site_online} === 0 && document.querySelectorAll('#series li').length === 1")


def test_names_are_shown_and_places_and_states_are_found(logged_in: Browser, demo_server: DemoServer) -> None:
    body = {"sensorType": "temperature", "location": "cellar of the west wing", "name": "boiler-7"}
    status, made = demo_server.call("POST", "/devices", json=body)
    assert status == 201
    logged_in.search("west cellar offline")
    logged_in.until("return document.getElementById('count').innerText === '1 series found'")
    (row,) = logged_in.rows()
    assert "boiler-7" in row
    assert made["id"] not in row
    logged_in.search("west cellar online")
    logged_in.until("return !document.getElementById('nothing-found').hidden")
    assert logged_in.text("#nothing-found p") == "No match for “west cellar online”."
    logged_in.find("#clear-filter").click()
    logged_in.until("return document.getElementById('count').innerText.includes('devices')")
    assert not logged_in.find("#nothing-found").is_displayed()


def test_the_ninth_series_is_refused_by_a_message_that_stays(logged_in: Browser, demo_server: DemoServer) -> None:
    for name in "abcd":
        demo_server.send(f"more-{name}", [level(1, now_ms())])
    filled = (
        "return [...document.querySelectorAll('#series li:not(.loading)')]"
        ".filter(({parts}) => parts.value.innerText !== '–').map(({parts}) => parts.box)"
    )
    logged_in.until(f"{filled}.length > 8")
    logged_in.find("#clear-chosen").click()
    boxes = logged_in.run(filled)
    for box in boxes[:9]:
        box.click()
    assert [box.is_selected() for box in boxes[:9]] == [True] * 8 + [False]
    message = "At most 8 series are shown together"
    assert logged_in.text("#list-message").startswith(message)
    logged_in.run("performance.clearResourceTimings()")  # a browser keeps 250 of them
    logged_in.until("return performance.getEntriesByType('resource').length > 6")
    assert logged_in.text("#list-message").startswith(message)
    boxes[0].click()
    assert not logged_in.find("#list-message").is_displayed()
    boxes[8].click()
    assert boxes[8].is_selected()


async def _filled(demo_server: DemoServer) -> None:
    async with aiohttp.ClientSession(demo_server.url) as session:
        async with session.post("/user/login", json=demo_server.person) as answer:
            bearer = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
        for start in range(0, MANY, 1000):
            numbers = range(start, start + 1000)
            part = [{"sensorType": f"s{n:04}", "value": n, "ts": now_ms(), "seq": 0} for n in numbers]
            async with session.post("/readings", json=part, headers=bearer | {"X-Device-Id": "zz-many"}) as answer:
                assert (await answer.json())["accepted"] == 1000


@pytest.fixture(scope="module")
def many(demo_server: DemoServer) -> int:
    """Store a device with thousands of series; returns the number of rows of the list."""
    asyncio.run(_filled(demo_server))
    deadline = time.monotonic() + 30
    while True:
        _, answer = demo_server.call("GET", "/series/search", params={"device": "zz-many", "limit": "1"})
        if answer["total"] == MANY:
            _, answer = demo_server.call("GET", "/series/search", params={"limit": "1"})
            return int(answer["total"])
        assert time.monotonic() < deadline, "the series are not there"
        time.sleep(0.2)


def settled(browser: Browser, last: str) -> None:
    """Wait until the visible rows are filled, and one of them contains this text."""
    browser.until(
        "return document.querySelectorAll('#series li.loading').length === 0"
        " && document.getElementById('series').innerText.includes(arguments[0])",
        last,
    )


def test_thousands_of_series_are_a_few_rows_that_are_filled_where_one_looks(
    browser: Browser, demo_server: DemoServer, many: int
) -> None:
    entered(browser, demo_server)
    browser.until("return document.getElementById('count').innerText.endsWith(arguments[0])", f"{many:,} series")
    browser.run("document.getElementById('series-frame').scrollTop = 1e9")
    settled(browser, f"s{MANY - 1:04}")
    last = browser.run(
        "const row = document.querySelector(`#series li[aria-posinset='${arguments[0]}']`);"
        "return [row.getAttribute('aria-setsize'), row.innerText]",
        many,
    )
    assert last[0] == str(many)
    assert f"{MANY - 1:,}" in last[1]
    for place in (0.1, 0.9, 0.3, 0.7, 0.5):
        browser.run(
            "const at = document.getElementById('series-frame'); at.scrollTop = at.scrollHeight * arguments[0]", place
        )
        browser.until("return document.querySelectorAll('#series li.loading').length === 0")
    order = browser.until(
        "const order = [...document.querySelectorAll('#series li')].map((row) => Number(row.ariaPosInSet));"
        "return order.every((place, at) => place === order[0] + at) && order"
    )
    assert len(order) < 40
    browser.search("s2987")
    browser.until("return document.getElementById('count').innerText === '1 series found'")
    settled(browser, "s2987")


def test_the_focus_survives_scrolling_and_arrows_reach_every_row(
    browser: Browser, demo_server: DemoServer, many: int
) -> None:
    entered(browser, demo_server)
    browser.search("zz-many")
    browser.until("return document.getElementById('count').innerText === arguments[0]", f"{MANY:,} series found")
    settled(browser, "s0000")
    browser.run("document.querySelector('#series li[aria-posinset=\"1\"] input').focus()")
    place = "return Number(document.activeElement.closest('li')?.ariaPosInSet)"
    for key, expected in (("\ue015", 2), ("\ue015", 3), ("\ue013", 2), ("\ue010", MANY), ("\ue013", MANY - 1)):
        browser.driver.switch_to.active_element.send_keys(key)  # down, down, up, end, up
        assert browser.run(place) == expected
    settled(browser, f"s{MANY - 2:04}")
    assert f"s{MANY - 2:04}" in browser.run("return document.activeElement.closest('li').innerText")
    browser.run("document.getElementById('series-frame').scrollTop = 0")
    settled(browser, "s0003")
    assert browser.run(place) == MANY - 1
    browser.driver.switch_to.active_element.send_keys(" ")
    browser.until("return document.getElementById('legend').innerText.includes(arguments[0])", f"s{MANY - 2:04}")
    browser.driver.switch_to.active_element.send_keys("\ue011")  # home
    assert browser.run(place) == 1
    tabs = "return [...document.querySelectorAll('#series [tabindex=\"0\"]')].map((one) => one.tagName)"
    assert browser.run(tabs) == ["INPUT", "BUTTON"]


def test_one_question_at_a_time_and_none_while_hidden(demo_server: DemoServer, many: int) -> None:
    with Browser.opened(demo_server.url, before=COUNTED) as browser:
        entered(browser, demo_server)
        browser.run("window.slow = 700; window.asked.all = 0")
        for place in (0.9, 0.1, 0.5, 0.8, 0.2):
            browser.run(
                "const at = document.getElementById('series-frame'); at.scrollTop = at.scrollHeight * arguments[0]",
                place,
            )
            time.sleep(0.1)
        browser.until("return document.querySelectorAll('#series li.loading').length === 0")
        for text in ("s0", "s00", "s001"):
            browser.search(text)
        browser.until("return document.getElementById('count').innerText === '10 series found'")
        asked = browser.run("return window.asked")
        assert asked["most"] <= 2  # one that was given up while the next one is asked
        assert asked["all"] < 12
        browser.run("window.slow = 0")
        browser.run(HIDE, True)
        browser.until("return window.asked.now === 0")
        before = browser.run("return window.asked.all")
        time.sleep(6)  # longer than the list is asked for again
        assert browser.run("return window.asked.all") == before
        browser.run(HIDE, False)
        browser.until("return window.asked.all > arguments[0]", before, within_s=5)
        assert browser.console_errors() == []


@pytest.mark.parametrize("window", [{}, {"width": 390, "height": 844, "phone": True}])
def test_long_names_push_nothing_out_and_the_page_is_as_long_as_what_is_in_it(
    demo_server: DemoServer, many: int, window: dict[str, Any]
) -> None:
    device, sensor = "n" * 63 + "1", "s" * 64
    demo_server.send(device, [{"sensorType": sensor, "value": "v" * 256, "ts": now_ms(), "unit": "u" * 32}])
    with Browser.opened(demo_server.url, **window) as browser:
        entered(browser, demo_server)
        browser.choose(device)
        browser.search(device)
        browser.until("return document.getElementById('count').innerText === '1 series found'")
        wide = browser.run(
            "const list = document.querySelector('.list').getBoundingClientRect();"
            "return [...document.querySelectorAll('.list *')].map((one) => [one, one.getBoundingClientRect()])"
            ".filter(([, box]) => box.width && (box.right > list.right || box.left < list.left))"
            ".map(([one]) => one.outerHTML)"
        )
        assert wide == []
        assert browser.run("return document.querySelector('#series .name').title") == device
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        browser.search("")
        browser.until("return document.getElementById('count').innerText.includes('devices')")
        bottom, height = browser.run(
            "const cards = [...document.querySelectorAll('#app .card')].map((one) => one.getBoundingClientRect());"
            "return [Math.max(...cards.map((box) => box.bottom)) + scrollY, document.documentElement.scrollHeight]"
        )
        assert height <= max(bottom + 40, browser.run("return innerHeight"))
