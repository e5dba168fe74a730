"""What the dashboard's tests share: a onebox with simulated devices for each file, and a window on it for each test."""

from collections.abc import Iterator

import pytest

from testing.browser import Browser
from tests.e2e.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests of a file: what they add has names of its own."""
    with Site.opened(tmp_path_factory.mktemp("dashboard") / "data", "--devices", "8", "--rate", "4") as opened:
        yield opened


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    with Browser.opened(site.url) as opened:
        yield opened
        assert opened.console_errors() == []


@pytest.fixture
def inside(browser: Browser, site: Site) -> Browser:
    browser.log_in(site.person["email"], site.person["password"])
    return browser
