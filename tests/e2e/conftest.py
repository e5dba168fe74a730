"""Fixtures of the dashboard's tests: a onebox with simulated devices per file, a browser window per test."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web

from reader.http.dashboard import Dashboard
from testing.browser import Browser
from tests.e2e.demo_server import DemoServer


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """One for all tests of a file; each test uses its own device names."""
    with DemoServer.opened(tmp_path_factory.mktemp("dashboard") / "data", "--devices", "8", "--rate", "4") as opened:
        yield opened


@pytest.fixture
def browser(demo_server: DemoServer) -> Iterator[Browser]:
    with Browser.opened(demo_server.url) as opened:
        yield opened
        assert opened.console_errors() == []


@pytest.fixture
def logged_in(browser: Browser, demo_server: DemoServer) -> Browser:
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    return browser


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """Serve the page without a backend; yields its URL."""
    loop = asyncio.new_event_loop()
    app = web.Application()
    Dashboard().add_routes(app)
    runner = web.AppRunner(app)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(runner.cleanup())
    loop.close()
