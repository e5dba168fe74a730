"""The dashboard in a real browser, on a onebox with simulated devices."""

import csv
import functools
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Int64
from pymongo import MongoClient

from testing.browser import Browser
from tests.e2e.accessibility import axe, breaches
from tests.e2e.demo_server import DemoServer
from tests.e2e.screenshots import PICTURES, take
from tests.faults.onebox import socket_url

HERE = Path(__file__).parent
FORGED = '<img src=x onerror="window.pwned=1">'


@functools.cache
def readings_sent() -> list[dict[str, Any]]:
    """A reading every ten seconds for a day, a week ago, of a device of the user's own naming."""
    week_ago_ms = (int(time.time()) - 7 * 86_400) * 1000
    return [
        {"sensorType": "level", "ts": week_ago_ms + 10_000 * n, "seq": n % 3, "value": n / 8, "unit": "m"}
        for n in range(8640)
    ]


@pytest.fixture(scope="module")
def history(demo_server: DemoServer) -> str:
    """A device with a day of readings, a week ago."""
    demo_server.send("tank-1", readings_sent())
    return "tank-1"


def test_a_wrong_password_is_reported_and_opens_nothing(browser: Browser, demo_server: DemoServer) -> None:
    browser.log_in(demo_server.person["email"], "not the password")
    assert "Wrong e-mail or password" in browser.until("return document.getElementById('login-error').textContent")
    assert browser.run("return document.getElementById('app').hidden")
    assert [entry for entry in browser.console_errors() if "401" not in entry] == []


def test_values_do_not_wait_for_the_charts_script_and_it_is_tried_again(logged_in: Browser) -> None:
    logged_in.until("return document.querySelectorAll('#series .value').length > 0")
    logged_in.driver.execute_cdp_cmd("Network.enable", {})
    logged_in.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/plotly.min.js"]})
    logged_in.driver.refresh()
    logged_in.until(
        "return [...document.querySelectorAll('#series .value')].some((value) => /[0-9]/.test(value.textContent))"
    )
    logged_in.until("return document.getElementById('chart-message').textContent.includes('trying again')")
    logged_in.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    logged_in.until("return (document.getElementById('chart').data ?? []).some((trace) => trace.y.length > 3)")
    assert "trying again" not in logged_in.text("#chart-message")
    assert all("plotly.min.js" in line for line in logged_in.console_errors())


@pytest.mark.alone
def test_curves_move_within_five_seconds_and_values_change(logged_in: Browser) -> None:
    began = time.monotonic()
    logged_in.until(
        "return (document.getElementById('chart').data ?? []).some((trace) => trace.y.length > 3)", within_s=5
    )
    first = max(curve["x"][-1] for curve in logged_in.curves())
    value = logged_in.find("#series .value").text
    logged_in.until(
        "return Math.max(...document.getElementById('chart').data.map((trace) => trace.x.at(-1))) > arguments[0]",
        first,
        within_s=5,
    )
    assert time.monotonic() - began < 5
    logged_in.until("return document.querySelector('#series .value').innerText !== arguments[0]", value, within_s=5)
    assert logged_in.until("return Number(document.getElementById('rate').textContent) > 20")
    assert logged_in.until("return document.getElementById('lag').textContent.endsWith('ms')")
    assert logged_in.until("return document.getElementById('online').textContent") == "8"
    assert logged_in.find("#feed-text").text == "live"


def test_history_is_zoomed_into_bucket_by_bucket_until_single_readings_show(logged_in: Browser, history: str) -> None:
    logged_in.choose(history)
    logged_in.find("[data-span='7d']").click()
    logged_in.find("[data-span='all']").click()
    logged_in.until(
        "return document.getElementById('resolution').textContent.startsWith('8,640 readings, mean and range')"
    )
    (curve,) = logged_in.curves()
    assert 100 < len(curve["y"]) < 1000
    assert min(curve["y"]) < 5
    assert max(curve["y"]) > 1070
    # Drag over a twentieth of the chart.
    box = logged_in.run(
        "const {x, y, width} = document.querySelector('.nsewdrag').getBoundingClientRect(); return [x, y, width]"
    )
    for kind, part in (("mousePressed", 0.50), ("mouseMoved", 0.52), ("mouseMoved", 0.55), ("mouseReleased", 0.55)):
        place = {"type": kind, "x": box[0] + box[2] * part, "y": box[1] + 60, "button": "left", "clickCount": 1}
        logged_in.driver.execute_cdp_cmd("Input.dispatchMouseEvent", place)
    logged_in.until("return !document.getElementById('resolution').textContent.includes('mean')")
    (curve,) = logged_in.curves()
    assert 350 < len(curve["y"]) < 520
    assert all(value in {reading["value"] for reading in readings_sent()} for value in curve["y"])
    assert logged_in.find("[data-span='all']").get_attribute("aria-pressed") == "false"
    logged_in.find("[data-move='out']").click()
    logged_in.until(
        "return document.getElementById('chart').data.at(-1).y.length > arguments[0]", len(curve["y"]) + 200
    )


def test_the_csv_of_what_is_shown_is_what_was_sent(logged_in: Browser, history: str) -> None:
    logged_in.choose(history)
    logged_in.find("[data-span='all']").click()
    logged_in.until("return document.getElementById('resolution').textContent.startsWith('8,640')")
    logged_in.find("#download").click()
    file = logged_in.downloads / "tank-1_level.csv"
    deadline = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < deadline, "nothing was downloaded"
        time.sleep(0.1)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    found = [
        (row["device"], row["sensorType"], row["ts"], int(row["seq"]), float(row["value"]), row["unit"]) for row in rows
    ]
    assert found == [
        ("tank-1", "level", time_text(one["ts"]), one["seq"], one["value"], "m") for one in readings_sent()
    ]


def time_text(ms: Any) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_markup_cannot_be_registered_and_shows_as_text_where_somebody_put_it(
    demo_server: DemoServer, browser: Browser
) -> None:
    body = {"sensorType": "temperature", "location": "x", "name": FORGED}
    assert demo_server.call("POST", "/devices", json=body)[0] == 422
    assert demo_server.call("POST", "/devices", json=body | {"name": "ok", "sensorType": FORGED})[0] == 422
    _, claims = demo_server.call("GET", "/user/token")
    key = {"owner": claims["owner"], "device": FORGED, "sensorType": FORGED}
    with MongoClient[dict[str, Any]](socket_url(demo_server.data)) as client:
        now = datetime.now(UTC)
        client["tidegate"]["series"].insert_one({"_id": key, "firstSeenAt": now})
        client["tidegate"]["readings"].insert_one(
            {"_id": key | {"ts": now, "seq": Int64(0)}, "value": FORGED, "receivedAt": now, "unit": FORGED}
        )
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    browser.choose(FORGED)
    browser.find("[data-span='1h']").click()
    browser.until("return document.getElementById('legend').innerText.includes(arguments[0])", FORGED)
    browser.until("return document.querySelector('#chart svg').textContent.includes(arguments[0])", FORGED)
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return document.querySelectorAll('[onerror]').length") == 0
    assert browser.run("return window.pwned") is None


def test_nothing_comes_from_another_origin_and_the_token_is_in_no_lasting_place(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    logged_in.until("return document.querySelectorAll('#series li').length > 0")
    loaded = logged_in.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert any("plotly" in name for name in loaded)
    assert all(name.startswith((demo_server.url, "blob:")) for name in loaded)
    assert not any("token" in name or "ey" in name.rpartition("?")[2] for name in loaded)
    assert logged_in.run("return document.cookie + JSON.stringify(localStorage)") == "{}"


def test_a_session_is_renewed_and_survives_a_reload_and_logging_out_ends_it(logged_in: Browser) -> None:
    logged_in.until("return document.querySelectorAll('#series li').length > 0")
    before = json.loads(logged_in.run("return sessionStorage.getItem('tidegate.session')"))
    logged_in.run("sessionStorage.setItem('tidegate.session', JSON.stringify({...arguments[0], until: 0}))", before)
    logged_in.driver.refresh()
    logged_in.until("return document.querySelectorAll('#series li').length > 0")
    after = json.loads(logged_in.run("return sessionStorage.getItem('tidegate.session')"))
    assert after["refresh"] != before["refresh"]
    assert after["until"] > time.time() * 1000
    logged_in.find("#logout").click()
    logged_in.until("return !document.getElementById('login').hidden")
    assert logged_in.run("return sessionStorage.getItem('tidegate.session')") is None


KEPT = "return JSON.parse(sessionStorage.getItem('tidegate.session'))"
LISTED = "return document.querySelectorAll('#series li').length > 0"
LOGGED_OUT = "return !document.getElementById('login').hidden"


def differs(window: Browser, refresh_token: str) -> None:
    """Wait until the tab has new tokens."""
    window.until(f"{KEPT}.refresh !== arguments[0]", refresh_token)


def expire(window: Browser, session: dict[str, Any], in_ms: int = 0) -> None:
    """Reload the page with these tokens, the access token expiring soon."""
    window.run(
        "const until = Date.now() + arguments[1];"
        "sessionStorage.setItem('tidegate.session', JSON.stringify({...arguments[0], until}))",
        session,
        in_ms,
    )
    window.driver.refresh()


def duplicated(window: Browser) -> tuple[str, str]:
    """Duplicate the tab with its tokens and switch to the copy; return both tabs' handles."""
    driver = window.driver
    first = driver.current_window_handle
    window.run("window.open(location.href)")
    window.driver.switch_to.window(next(handle for handle in driver.window_handles if handle != first))
    window.until(LISTED)
    return first, driver.current_window_handle


@pytest.mark.alone  # a tab waits 150 ms for the others before it renews by itself
def test_a_duplicated_tab_goes_on_with_what_the_other_has_renewed(logged_in: Browser) -> None:
    logged_in.until(LISTED)
    old = logged_in.run(KEPT)
    first, copy = duplicated(logged_in)
    assert logged_in.run(KEPT)["refresh"] == old["refresh"]
    logged_in.driver.switch_to.window(first)
    expire(logged_in, old)
    differs(logged_in, old["refresh"])
    renewed = logged_in.run(KEPT)
    logged_in.driver.switch_to.window(copy)
    logged_in.until(f"{KEPT}.refresh === arguments[0]", renewed["refresh"])  # broadcast by the other tab
    expire(logged_in, old)  # as a tab that was asleep
    logged_in.until(LISTED)
    assert logged_in.run(KEPT)["refresh"] == renewed["refresh"]  # it has asked
    for handle in (first, copy):
        logged_in.driver.switch_to.window(handle)
        logged_in.driver.refresh()
        logged_in.until(LISTED)


def test_two_tabs_that_renew_at_once_both_go_on(logged_in: Browser) -> None:
    logged_in.until(LISTED)
    old = logged_in.run(KEPT)
    first, copy = duplicated(logged_in)
    logged_in.driver.switch_to.window(first)
    # Both load with an expired token at the same time: the second gets `refresh_used`.
    logged_in.run(
        "sessionStorage.setItem('tidegate.session', JSON.stringify({...arguments[0], until: 0}));"
        "setTimeout(() => location.reload(), 300)",
        old,
    )
    logged_in.driver.switch_to.window(copy)
    logged_in.run(
        "sessionStorage.setItem('tidegate.session', JSON.stringify({...arguments[0], until: 0}));"
        "setTimeout(() => location.reload(), 200)",
        old,
    )
    for handle in (first, copy):
        logged_in.driver.switch_to.window(handle)
        logged_in.until(LISTED)
        differs(logged_in, old["refresh"])
    copies = logged_in.run(KEPT)
    logged_in.driver.switch_to.window(first)
    logged_in.until(f"{KEPT}.refresh === arguments[0]", copies["refresh"])
    # Where one was refused, and nothing else.
    assert all("/user/refresh" in line and " 401 " in line for line in logged_in.console_errors())


def test_a_refresh_token_that_somebody_else_has_used_logs_out_after_its_second_use(logged_in: Browser) -> None:
    logged_in.until(LISTED)
    old = logged_in.run(KEPT)
    thief = logged_in.driver.execute_async_script(
        "const done = arguments[1];"
        "fetch('/user/refresh', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({refreshToken: arguments[0]})}).then((answer) => answer.json()).then(done)",
        old["refresh"],
    )
    expire(logged_in, old, in_ms=40_000)
    logged_in.until(LISTED)
    assert logged_in.run(KEPT)["refresh"] == old["refresh"], "refused, and the access token serves on"
    logged_in.until(LOGGED_OUT, within_s=30)
    ended = logged_in.driver.execute_async_script(
        "const done = arguments[1];"
        "fetch('/user/token', {headers: {Authorization: `Bearer ${arguments[0]}`}}).then(({status}) => done(status))",
        thief["accessToken"],
    )
    assert ended == 401
    assert all(" 401 " in line for line in logged_in.console_errors())


def test_it_is_used_by_keyboard(logged_in: Browser) -> None:
    logged_in.until("return document.querySelectorAll('#series li').length > 0")
    reached: list[str] = []
    for _ in range(40):
        logged_in.driver.switch_to.active_element.send_keys("\ue004")  # Tab
        name = logged_in.run(
            "const at = document.activeElement; return at.dataset.span ?? at.dataset.move ?? (at.id || at.type)"
        )
        if name is None:  # behind the last one, the page itself
            continue
        reached.append(name)
        outline = logged_in.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or reached[-1] == "checkbox"  # its row is outlined
    assert {"theme", "logout", "filter", "checkbox", "live", "1h", "all", "earlier", "in", "download"} <= set(reached)
    logged_in.run("document.querySelector('#series input').focus()")
    was = logged_in.run("return document.activeElement.checked")
    logged_in.driver.switch_to.active_element.send_keys(" ")
    assert logged_in.run("return document.activeElement.checked") is not was


@pytest.mark.parametrize("window", [{}, {"dark": True}, {"width": 390, "height": 844, "phone": True}])
def test_axe_finds_nothing(demo_server: DemoServer, window: dict[str, Any]) -> None:
    with Browser.opened(demo_server.url, before=axe(), **window) as browser:
        assert breaches(browser) == []
        browser.find("#to-signup").click()
        assert breaches(browser) == []
        browser.find("#to-login").click()
        browser.log_in(demo_server.person["email"], demo_server.person["password"])
        browser.until("return document.querySelectorAll('#legend tr').length > 0")
        assert breaches(browser) == []
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        browser.search("no such thing")
        browser.until("return !document.getElementById('nothing-found').hidden")
        assert breaches(browser) == []
        browser.search("sim-")  # registered ones, whatever other tests have sent in names of their own
        browser.until("return document.querySelectorAll('#series li:not(.loading)').length > 3")
        browser.until("return document.querySelector('#series li').innerText.includes('sim-')")
        browser.find("[data-add-device]").click()
        assert breaches(browser) == []
        browser.find("#add-device [data-close]").click()
        browser.find("#series .more").click()
        browser.until("return !document.getElementById('registered').hidden")
        browser.find("#new-token").click()
        browser.until("return document.getElementById('snippet').innerText !== ''")
        browser.find("#change-device summary").click()
        assert breaches(browser) == []
        browser.find("#remove-device").click()
        assert breaches(browser) == []


async def test_the_pictures_in_the_docs_are_made_by_a_command(tmp_path: Path) -> None:
    files = await take(tmp_path, streamed_s=2)
    assert [file.name for file in files] == list(PICTURES)
    for file in files:
        assert file.stat().st_size > 20_000
        assert (HERE.parent.parent / "docs" / "images" / file.name).exists(), "run: make screenshots"
