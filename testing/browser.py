"""A real browser: Debian's Chromium, headless, with a temporary profile."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
# No requests to the internet; Chromium has no sandbox when run as root.
ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--lang=en-GB",
)
WITHIN_S = 60.0
# Plotly sets an inline style on a hidden element; the policy blocks it without any visible effect.
HARMLESS = "Applying inline style violates the following Content Security Policy directive"


class Browser:
    """A browser window showing one address."""

    def __init__(self, driver: webdriver.Chrome, url: str, downloads: Path) -> None:
        self.driver = driver
        self.url = url
        self.downloads = downloads

    @classmethod
    @contextmanager
    def opened(
        cls,
        url: str,
        *,
        width: int = 1400,
        height: int = 900,
        dark: bool = False,
        phone: bool = False,
        zone: str | None = None,
        before: str | None = None,
    ) -> Iterator["Browser"]:
        """Open a window on a page and wait until it is loaded.

        `zone`: the browser's time zone; `before`: a script that runs before any of the page's.
        """
        with tempfile.TemporaryDirectory(prefix="tidegate-browser-") as folder:
            options = Options()
            options.binary_location = CHROMIUM
            for argument in (*ARGUMENTS, f"--window-size={width},{height}", f"--user-data-dir={folder}/profile"):
                options.add_argument(argument)
            if phone:
                metrics = {"width": width, "height": height, "pixelRatio": 2.0, "mobile": True, "touch": True}
                options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
            downloads = Path(folder, "downloads")
            options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            driver = webdriver.Chrome(service=Service(DRIVER), options=options)
            try:
                driver.set_script_timeout(WITHIN_S)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
                if zone is not None:
                    driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": zone})
                if before is not None:
                    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": before})
                driver.get(url)
                yield cls(driver, url, downloads)
            finally:
                driver.quit()

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any, within_s: float = WITHIN_S) -> Any:
        """Wait until a script returns something true, and return it."""
        return WebDriverWait(self.driver, within_s, 0.1).until(lambda _: self.run(script, *arguments), script)

    def log_in(self, email: str, password: str) -> None:
        self.find("#email").send_keys(email)
        self.find("#password").send_keys(password)
        self.find("#login-form button").click()

    def search(self, text: str) -> None:
        """Type into the field above the list, in place of what is there."""
        self.run(
            "const field = document.getElementById('filter'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('input'))",
            text,
        )

    def rows(self) -> list[str]:
        """Return the texts of the list's rows."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll('#series li:not(.loading)')].map((row) => row.innerText)"
        )
        return found

    def choose(self, text: str) -> None:
        """Show only the series whose row contains this text."""
        rows = "[...document.querySelectorAll('#series li:not(.loading)')]"
        self.search(text)
        self.until(
            f"const rows = {rows}; return rows.length && rows.every((row) => row.innerText.includes(arguments[0]))",
            text,
        )
        self.run(
            "const clear = document.getElementById('clear-chosen'); if (!clear.hidden) clear.click();"
            f"for (const row of {rows}) row.querySelector('input').click()"
        )
        self.search("")

    def curves(self) -> list[dict[str, Any]]:
        """Return name and points of each line in the chart, without the edges of ranges.

        `x` is in milliseconds since 1970. A band of states has `base`, where each begins, and `text`, its name.
        """
        found: list[dict[str, Any]] = self.run(
            "return (document.getElementById('chart').data ?? []).filter((trace) => trace.name)"
            ".map(({name, type, mode, line, x, y, base, text}) =>"
            " ({name, type, mode, shape: line?.shape, x: Array.from(x), y: Array.from(y), base, text}))"
        )
        return found

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        found: str = self.run("return document.querySelector(arguments[0]).innerText", selector)
        return found

    def figures(self) -> list[list[str]]:
        """Return the cells of the table below the chart, row by row."""
        found: list[list[str]] = self.run(
            "return [...document.getElementById('legend').rows].map((row) =>"
            " [...row.cells].filter((cell) => !cell.hidden).map((cell) => cell.innerText.trim()))"
        )
        return found

    def console_errors(self) -> list[str]:
        """Return the errors in the browser's console, except a harmless one."""
        logged = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in logged if entry["level"] == "SEVERE" and HARMLESS not in entry["message"]]
