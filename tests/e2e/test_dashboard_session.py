"""Sessions in a real browser: signing up, sessions that end, and logging out while the server is down."""

import asyncio
import json
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from testing.browser import Browser
from testing.servers.ports import free_port
from tests.e2e.demo_server import DemoServer
from tests.e2e.onebox_process import start_onebox, wait_until_ready

KEPT = "return JSON.parse(sessionStorage.getItem('tidegate.session'))"
VIEW = "return JSON.parse(sessionStorage.getItem('tidegate.view'))"
LISTED = "return document.querySelectorAll('#series li:not(.loading)').length > 0"
NOTICE = "return document.getElementById('login-notice').innerText"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status_of(url: str, token: str) -> int:
    async with aiohttp.ClientSession(url) as session, session.get("/user/token", headers=bearer(token)) as answer:
        return answer.status


async def ended(url: str, token: str) -> None:
    """Wait until a token is no longer valid."""
    async with asyncio.timeout(20):
        while await status_of(url, token) != 401:
            await asyncio.sleep(0.1)


def test_an_expired_session_says_so_and_comes_back_to_the_same_view(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    logged_in.until(LISTED)
    logged_in.choose("sim-0003")
    logged_in.find("[data-span='1h']").click()
    logged_in.until("return location.hash.includes('span=1h')")
    shown = logged_in.run("return location.hash")
    access = logged_in.run(KEPT)["access"]

    async def elsewhere() -> None:
        async with (
            aiohttp.ClientSession(demo_server.url) as session,
            session.post("/user/logout", json={}, headers=bearer(access)) as answer,
        ):
            assert answer.status == 204

    asyncio.run(elsewhere())
    logged_in.until("return !document.getElementById('login').hidden")
    assert logged_in.run(NOTICE).startswith("Your session has expired or was ended.")
    assert logged_in.run("return document.getElementById('email').value") == demo_server.person["email"]
    assert logged_in.text("#legend") == ""
    assert logged_in.find_all("#series li") == []
    logged_in.find("#password").send_keys(demo_server.person["password"])
    logged_in.find("#login-form [type=submit]").click()
    logged_in.until("return document.getElementById('legend').innerText.includes('sim-0003')")
    assert logged_in.run("return location.hash") == shown
    assert logged_in.find("[data-span='1h']").get_attribute("aria-pressed") == "true"
    assert all(" 401 " in line for line in logged_in.console_errors())


def test_logging_out_ends_the_session_in_its_other_tabs_too(logged_in: Browser, demo_server: DemoServer) -> None:
    logged_in.until(LISTED)
    access = logged_in.run(KEPT)["access"]
    first = logged_in.driver.current_window_handle
    logged_in.run("window.open(location.href)")
    logged_in.driver.switch_to.window(next(handle for handle in logged_in.driver.window_handles if handle != first))
    logged_in.until(LISTED)
    logged_in.find("#logout").click()
    logged_in.until("return document.getElementById('login-notice').innerText === 'You are logged out.'")
    assert logged_in.run("return sessionStorage.length") == 0
    assert logged_in.run("return location.hash") == ""
    assert asyncio.run(status_of(demo_server.url, access)) == 401
    logged_in.driver.switch_to.window(first)
    logged_in.until("return !document.getElementById('login').hidden")
    assert logged_in.run(NOTICE) == "You have logged out in another tab."
    assert logged_in.run("return sessionStorage.length") == 0


async def delete_key(url: str, person: dict[str, str], key_id: str) -> None:
    async with aiohttp.ClientSession(url, raise_for_status=True) as session:
        async with session.post("/user/login", json=person) as answer:
            token = (await answer.json())["accessToken"]
        await session.delete(f"/keys/{key_id}", headers=bearer(token))


def test_a_link_with_a_key_shows_its_devices_read_only_until_the_key_is_deleted(
    browser: Browser, demo_server: DemoServer
) -> None:
    listed = demo_server.call("GET", "/devices?name=sim-0003")[1]["items"]
    body = {"name": "a colleague", "scope": ["readings:read"], "devices": [listed[0]["id"]]}
    made = demo_server.call("POST", "/keys", json=body)[1]
    # In the page that is open: the same as in a new tab.
    browser.run("location.hash = arguments[0]", f"#span=1h&key={made['key']}")
    browser.until(LISTED)
    assert browser.run("return location.hash.includes('key') || document.referrer.includes('key')") is False
    browser.until("return location.hash.includes('span=1h')")
    assert browser.run(VIEW) == {"access": made["key"], "key": made["id"]}
    assert browser.run("return localStorage.length") == 0
    browser.until("return document.getElementById('feed-text').innerText === 'live'")
    assert all("sim-0003" in row for row in browser.rows())
    assert browser.text("#user") == "Shared view, read-only"
    assert [button.is_displayed() for button in browser.find_all("[data-add-device]")] == [False, False]
    browser.run("document.querySelector('#series li:not(.loading) button').click()")
    browser.until("return document.getElementById('device').open")
    browser.until("return document.getElementById('device-latest').innerText !== 'none yet'")
    fetched = "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/devices/'))"
    browser.until(f"return {fetched}.some(({{ responseEnd }}) => responseEnd)")
    assert not browser.find("#registered").is_displayed()
    browser.find("#device [data-close]").click()

    browser.driver.refresh()
    browser.until(LISTED)
    asyncio.run(delete_key(demo_server.url, demo_server.person, made["id"]))
    browser.until("return !document.getElementById('login').hidden")
    assert browser.run(NOTICE).startswith("This view has expired or is no longer shared.")
    assert browser.run("return sessionStorage.length") == 0
    assert all(" 401 " in line for line in browser.console_errors())


def test_the_selected_series_are_shared_by_a_link_and_its_key_is_listed_and_ended(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    logged_in.until(LISTED)
    logged_in.choose("sim-0004")
    logged_in.until("return location.hash.includes('series=')")
    logged_in.find("#share").click()
    logged_in.until("return document.getElementById('keys-message').innerText === 'None yet.'")
    assert logged_in.text("#share-what") == "The link shows 1 device."
    logged_in.run("document.getElementById('share-days').value = '0'")
    logged_in.find("#share-name").send_keys("<b>Bob</b>")
    logged_in.find("#share-form [type=submit]").click()
    logged_in.until("return document.getElementById('share-days-error').innerText !== ''")
    logged_in.run("document.getElementById('share-days').value = '30'")
    logged_in.find("#share-form [type=submit]").click()
    logged_in.until("return !document.getElementById('share-done').hidden")
    link = logged_in.text("#share-link")
    (made,) = demo_server.call("GET", "/keys")[1]["items"]
    (device,) = demo_server.call("GET", "/devices?name=sim-0004")[1]["items"]
    assert (made["name"], made["scope"], made["devices"]) == ("<b>Bob</b>", ["readings:read"], [device["id"]])
    assert timedelta(days=29.9) < datetime.fromisoformat(made["expiresAt"]) - datetime.now(UTC) < timedelta(days=30.1)
    logged_in.until("return document.querySelectorAll('#keys li').length === 1")
    assert logged_in.text("#keys li span").startswith("<b>Bob</b>: reads, 1 device, until ")

    with Browser.opened(link) as colleague:
        colleague.until("return document.getElementById('legend').innerText.includes('sim-0004')")
        assert not colleague.find("#share").is_displayed()
        assert colleague.console_errors() == []
    logged_in.find("#keys button").click()
    logged_in.find("#confirm-yes").click()
    logged_in.until("return document.getElementById('keys-message').innerText === 'None yet.'")
    assert demo_server.call("GET", "/keys")[1]["items"] == []
    logged_in.find("#sharing [data-close]").click()
    assert logged_in.run("return document.getElementById('share-link').textContent") == ""

    answered = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/keys')).length"
    logged_in.find("#share").click()
    logged_in.until("return document.getElementById('keys-message').innerText === 'None yet.'")
    logged_in.find("#share-name").send_keys("closed too early")
    before = logged_in.run(f"return {answered}")
    logged_in.run("document.getElementById('share-form').requestSubmit(); document.getElementById('sharing').close()")
    logged_in.until(f"return {answered} > arguments[0]", before)
    assert logged_in.run("return document.getElementById('share-link').textContent") == ""
    assert [key["name"] for key in demo_server.call("GET", "/keys")[1]["items"]] == ["closed too early"]

    logged_in.run("location.hash = '#series=removed/t'; document.getElementById('share').click()")
    logged_in.find("#share-name").send_keys("x")
    logged_in.find("#share-form [type=submit]").click()
    refused = "removed is not registered and cannot be shared."
    logged_in.until("return document.querySelector('#share-form .error').innerText === arguments[0]", refused)
    found = logged_in.console_errors()
    assert all(" 422 " in line or "device=removed" in line for line in found), found


def test_a_shared_view_leaves_the_session_of_its_tab_as_it_was_and_what_is_no_key_opens_nothing(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    logged_in.until(LISTED)
    browser, session = logged_in, logged_in.run(KEPT)
    made = demo_server.call("POST", "/keys", json={"name": "a colleague", "scope": ["readings:read"]})[1]
    for notice in ("", "You have left the shared view."):
        browser.driver.get("about:blank")
        browser.driver.get(f"{demo_server.url}/#key={made['key']}")
        browser.driver.refresh()
        browser.until(LISTED)
        browser.until("return document.getElementById('rate').innerText !== '–'")
        assert browser.text("#user") == "Shared view, read-only"
        browser.find("#logout").click()
        if not notice:
            browser.until("return document.getElementById('user').innerText === arguments[0]", session["email"])
            assert browser.run(KEPT) == session
            assert browser.run(VIEW) is None
            browser.run("sessionStorage.clear()")
        else:
            browser.until("return document.getElementById('login-notice').innerText === arguments[0]", notice)
            assert browser.run("return sessionStorage.length") == 0
    asyncio.run(delete_key(demo_server.url, demo_server.person, made["id"]))
    _, sending = demo_server.call("POST", "/keys", json={"name": "a device", "scope": ["readings:write"]})
    token, no_claims = made["key"], made["key"].split(".")[0] + ".bnVsbA.x"  # null
    for text in (
        "key=nonsense",
        "key=",
        f"key={sending['key']}",
        f"key={no_claims}",
        token,
        f"view={token}",
        "k%65y=x",
    ):
        browser.driver.get("about:blank")
        browser.driver.get(f"{demo_server.url}/#{text}")
        browser.until("return document.getElementById('login-notice').innerText !== ''")
        assert browser.run(NOTICE).startswith("This link has no API key")
        assert browser.run("return sessionStorage.length") == 0
        assert browser.run("return location.hash") == ""
    asyncio.run(delete_key(demo_server.url, demo_server.person, sending["id"]))


class Restarting:
    """A onebox that is restarted on the same port and folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._runner = asyncio.Runner()
        self._process: Process | None = None

    def start(self) -> None:
        async def started() -> Process:
            process = await start_onebox("--port", str(self.port), "--devices", "0", data=self.data)
            await wait_until_ready(process, self.url)
            return process

        self._process = self._runner.run(started())

    def end(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._runner.run(self._process.communicate())
            self._process = None

    def close(self) -> None:
        self.end()
        self._runner.close()


@pytest.fixture
def restarting(tmp_path: Path) -> Iterator[Restarting]:
    server = Restarting(tmp_path / "data")
    try:
        server.start()
        yield server
    finally:
        server.close()


def sign_up(browser: Browser, name: str, email: str, password: str) -> None:
    browser.find("#to-signup").click()
    for field, text in (("#new-name", name), ("#new-email", email), ("#new-password", password)):
        browser.find(field).clear()
        browser.find(field).send_keys(text)
    browser.find("#signup-form [type=submit]").click()


def test_logging_out_while_the_server_is_away_says_so_and_ends_the_session_when_it_is_back(
    restarting: Restarting,
) -> None:
    with Browser.opened(restarting.url) as browser:
        sign_up(browser, "Ada", "ada@example.org", "correct horse battery staple")
        browser.until("return !document.getElementById('no-series').hidden")
        session = browser.run(KEPT)
        restarting.end()
        browser.find("#logout").click()
        browser.until("return document.getElementById('login-notice').innerText.includes('cannot be reached')")
        assert browser.run("return sessionStorage.length") == 0
        assert browser.find("#login-form").is_displayed()
        restarting.start()
        assert asyncio.run(status_of(restarting.url, session["access"])) in {200, 401}
        asyncio.run(ended(restarting.url, session["access"]))
        browser.until("return document.getElementById('login-notice').innerText === 'You are logged out.'")
        refreshed = browser.driver.execute_async_script(
            "const done = arguments[1];"
            "fetch('/user/refresh', {method: 'POST', headers: {'Content-Type': 'application/json'},"
            " body: JSON.stringify({refreshToken: arguments[0]})}).then(({status}) => done(status))",
            session["refresh"],
        )
        assert refreshed == 401


@pytest.mark.alone  # the page waits 5 s for the server
def test_logging_out_with_an_access_token_that_has_expired_ends_the_session_as_well(logged_in: Browser) -> None:
    logged_in.until(LISTED)
    kept = logged_in.run(KEPT)
    # As after a night's sleep: the access token has expired, the refresh token is valid for weeks.
    broken = {**kept, "access": kept["access"][:-8] + "AAAAAAAA"}
    logged_in.run("sessionStorage.setItem('tidegate.session', arguments[0])", json.dumps(broken))
    logged_in.run(
        "window.fetch = ((fetched) => (address, ...rest) => String(address).startsWith('/user/')"
        " ? fetched(address, ...rest) : new Promise(() => {}))(window.fetch)"
    )
    left = logged_in.driver.execute_async_script(
        "const done = arguments[0]; const {logOut} = await import('/dashboard/logout.js');"
        "const credentials = await import('/dashboard/credentials.js');"
        "Object.assign(credentials.current(), JSON.parse(sessionStorage.getItem('tidegate.session')));"
        "logOut(done);"
    )
    assert left == "ended"
    logged_in.driver.refresh()
    used = logged_in.driver.execute_async_script(
        "const done = arguments[1];"
        "fetch('/user/token', {headers: {Authorization: `Bearer ${arguments[0]}`}}).then(({status}) => done(status))",
        kept["access"],
    )
    assert used == 401
    assert all(" 401 " in line for line in logged_in.console_errors())


def test_a_sign_up_shows_errors_next_to_their_fields(browser: Browser, demo_server: DemoServer) -> None:
    sign_up(browser, "Ada", "not an address", "correct horse battery staple")
    assert browser.until("return document.getElementById('new-email-error').innerText")
    assert browser.run("return document.activeElement.id") == "new-email"
    browser.find("#to-login").click()
    sign_up(browser, "Ada", "grace@example.org", "password")
    assert "attackers try" in browser.until("return document.getElementById('new-password-error').innerText")
    assert browser.text("#new-email-error") == ""
    browser.find("#to-login").click()
    sign_up(browser, "Ada", demo_server.person["email"], "correct horse battery staple")
    assert "has an account" in browser.until("return document.getElementById('new-email-error').innerText")
    browser.find("#to-login").click()
    sign_up(browser, "Grace", "grace@example.org", "correct horse battery staple")
    browser.until("return !document.getElementById('no-series').hidden")
    assert browser.text("#user") == "grace@example.org"
    assert all(" 409 " in line or " 422 " in line for line in browser.console_errors())


def test_a_server_that_takes_no_sign_ups_says_so(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNUP", "closed")
    folder = tmp_path_factory.mktemp("closed") / "data"
    with DemoServer.opened(folder, "--devices", "1") as closed, Browser.opened(closed.url) as browser:
        sign_up(browser, "Ada", "ada@example.org", "correct horse battery staple")
        error = browser.until("return document.querySelector('#signup-form .error').innerText")
        assert error == "Sign-up is closed on this server; ask its operator."
        assert browser.find("#signup-form").is_displayed()


def test_a_temporary_refusal_is_shown_and_the_form_stays(browser: Browser, demo_server: DemoServer) -> None:
    browser.run("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    began = time.monotonic()
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    error = browser.until("return document.getElementById('login-error').innerText")
    assert error == "The server cannot be reached; try again."
    assert browser.find("#login-form [type=submit]").is_enabled()
    assert time.monotonic() - began < 30
