"""Many tabs in one real browser: they share one live feed, and hidden ones hold none."""

import asyncio
import re
import time
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from testing.browser import Browser
from testing.servers.ports import free_port
from tests.e2e.demo_server import DemoServer

TABS = 8
WITHOUT_WORKERS = "delete window.SharedWorker"
LISTED = "return document.querySelectorAll('#series li:not(.loading)').length > 0"
LIVE = "return document.getElementById('feed-text').innerText === 'live'"
VALUES = "return [...document.querySelectorAll('#series .value')].map((one) => one.innerText).join()"
HIDE = (
    "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});"
    "document.dispatchEvent(new Event('visibilitychange'))"
)


@pytest.fixture(scope="module")
def ops_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory, ops_port: int) -> Iterator[DemoServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPS_PORT", str(ops_port))
        folder = tmp_path_factory.mktemp("tabs") / "data"
        with DemoServer.opened(folder, "--devices", "2", "--rate", "1") as opened:
            yield opened


@pytest.fixture
def feeds(ops_port: int, demo_server: DemoServer) -> Callable[[], int]:
    """Return the number of live feeds on the server."""

    async def count_feeds() -> int:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{ops_port}/metrics") as answer:
            found = re.search(r"^tidegate_reader_live_feeds (\d+)", await answer.text(), re.MULTILINE)
            assert found
            return int(found[1])

    return lambda: asyncio.run(count_feeds())


def become(feeds: Callable[[], int], wanted: int, *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while (found := feeds()) != wanted:
        assert time.monotonic() < deadline, f"the server has {found} live feeds, and not {wanted}"
        time.sleep(0.1)


def copies(browser: Browser, count: int) -> list[str]:
    """Open windows that are all visible, each with the session of the first; return their handles."""
    first = browser.driver.current_window_handle
    for _ in range(count - 1):
        browser.driver.switch_to.window(first)
        known = set(browser.driver.window_handles)
        browser.run("window.open(location.href, '_blank', 'popup,width=500,height=400')")
        (new,) = set(browser.driver.window_handles) - known
        browser.driver.switch_to.window(new)
        browser.until(LISTED)
    return browser.driver.window_handles


def live(browser: Browser, handle: str, *, changes: int = 2) -> None:
    """Wait until a tab shows new values, as often as told."""
    browser.driver.switch_to.window(handle)
    browser.until(LIVE)
    for _ in range(changes):
        shown = browser.run(VALUES)
        browser.until(f"return ({VALUES.removeprefix('return ')}) !== arguments[0]", shown)


def test_eight_tabs_share_one_live_feed_and_hidden_ones_hold_none(logged_in: Browser, feeds: Callable[[], int]) -> None:
    logged_in.until(LISTED)
    tabs = copies(logged_in, TABS)
    assert len(tabs) == TABS
    for handle in tabs:
        live(logged_in, handle, changes=1)
        assert not logged_in.run("return document.hidden")
    assert feeds() == 1
    for handle in tabs[:-1]:
        logged_in.driver.switch_to.window(handle)
        logged_in.run(HIDE, True)
    live(logged_in, tabs[-1])
    assert feeds() == 1
    logged_in.run(HIDE, True)
    become(feeds, 0)
    logged_in.driver.switch_to.window(tabs[2])
    logged_in.run(HIDE, False)
    become(feeds, 1)
    live(logged_in, tabs[2])
    for handle in tabs[1:]:
        logged_in.driver.switch_to.window(handle)
        logged_in.driver.close()
    become(feeds, 0)
    logged_in.driver.switch_to.window(tabs[0])
    logged_in.run(HIDE, False)
    live(logged_in, tabs[0])
    logged_in.find("#logout").click()
    logged_in.until("return document.getElementById('login-notice').innerText === 'You are logged out.'")
    become(feeds, 0)


def test_the_feed_goes_on_with_the_token_of_a_tab_that_is_left(
    logged_in: Browser, demo_server: DemoServer, feeds: Callable[[], int]
) -> None:
    """Two sessions of one user: the one whose token the feed was opened with logs out."""
    logged_in.until(LISTED)
    first = logged_in.driver.current_window_handle
    logged_in.driver.switch_to.new_window("window")
    second = logged_in.driver.current_window_handle
    logged_in.driver.get(demo_server.url)
    logged_in.log_in(demo_server.person["email"], demo_server.person["password"])
    live(logged_in, second)
    assert feeds() == 1
    logged_in.driver.switch_to.window(first)
    logged_in.find("#logout").click()
    logged_in.until("return document.getElementById('login-notice').innerText === 'You are logged out.'")
    live(logged_in, second)
    become(feeds, 1)


def test_a_browser_without_shared_workers_has_a_feed_of_its_own_while_it_is_seen(
    demo_server: DemoServer, feeds: Callable[[], int]
) -> None:
    with Browser.opened(demo_server.url, before=WITHOUT_WORKERS) as browser:
        assert browser.run("return typeof SharedWorker") == "undefined"
        browser.log_in(demo_server.person["email"], demo_server.person["password"])
        browser.until(LISTED)
        live(browser, browser.driver.current_window_handle)
        assert feeds() == 1
        browser.run(HIDE, True)
        become(feeds, 0)
        browser.run(HIDE, False)
        live(browser, browser.driver.current_window_handle)
        assert feeds() == 1
        assert browser.console_errors() == []
    become(feeds, 0)


def test_a_feed_that_is_cut_before_its_first_reading_goes_on_from_where_it_began(browser: Browser) -> None:
    resumed = browser.driver.execute_async_script(
        """
        const done = arguments[0];
        const parts = ["retry: 2000\\nid: 7-7-7\\n: li", "ve\\nevent: reading\\nid: 8-8-8\\n"];
        const asked = [];  // the answer ends in the midst of an event
        window.fetch = async (path, { headers }) => {
          asked.push(headers["Last-Event-ID"] ?? null);
          if (asked.length > 1) done(asked);
          return new Response(new Blob(parts).stream());
        };
        import("/dashboard/feed.js").then(({ Feed }) => {
          const feed = new Feed({ token: async () => "one", onReadings() {}, onState() {} });
          feed.run();
        });
        """
    )
    assert resumed == [None, "7-7-7"]
