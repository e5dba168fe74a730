"""The first ten minutes of a new user: `make run`, the dashboard, a device, its snippets, its curve, an export.

What a person reads is read here where it stands: address and user in the terminal, the snippets in the clipboard.
"""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testing.browser import Browser
from testing.servers.ports import free_port
from tests.e2e.onebox_process import ROOT

WELCOME = re.compile(r"Dashboard: (\S+) +log in as (\S+) / (\S+)")
STARTED_WITHIN_S = 60.0
NAME, SENSOR, PLACE = "press-1", "temperature", "hall 3"
# Both snippets send this.
VALUE, UNIT = 20.5, "C"


class Terminal:
    """A command in a terminal, its output, and Ctrl-C."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def output(self) -> str:
        """Return the output so far."""
        return self._log.read_text()

    def wait_for(self, pattern: re.Pattern[str], within_s: float) -> re.Match[str]:
        """Wait for a pattern in the output; fail if the command ends first."""
        deadline = time.monotonic() + within_s
        while (found := pattern.search(self.output())) is None:
            assert self._process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)
        return found

    def interrupt(self, within_s: float = 60.0) -> None:
        """Press Ctrl-C, which signals everything in this terminal, and wait until it has ended."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(within_s)

    def end(self) -> None:
        """Kill it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def terminal(command: list[str], log: Path) -> Iterator[Terminal]:
    opened = Terminal(command, log)
    try:
        yield opened
    finally:
        opened.end()


@pytest.mark.skipif(not all(map(shutil.which, ("make", "curl"))), reason="make or curl is missing")
def test_from_make_run_to_an_export_of_ones_own_device(tmp_path: Path) -> None:
    # Like `make run`, with the packages of this test's environment.
    arguments = f"--devices 0 --port {free_port()} --data {tmp_path / 'data'}"
    run = ["make", "-o", ".venv/onebox.done", "run", f"BIN={Path(sys.executable).parent}", f"ARGS={arguments}"]
    with terminal(run, tmp_path / "onebox.log") as onebox:
        url, email, password = onebox.wait_for(WELCOME, STARTED_WITHIN_S).groups()
        with Browser.opened(url) as browser:
            may_paste(browser)
            browser.log_in(email, password)
            device = device_added(browser)
            posted_with_curl(browser)
            sent = streamed_with_python(browser, tmp_path)
            rows = exported(browser)
            assert browser.console_errors() == []
        onebox.interrupt()
    assert {(row["device"], row["sensorType"], float(row["value"]), row["unit"]) for row in rows} == {
        (device, SENSOR, VALUE, UNIT)
    }
    assert {row["location"] for row in rows} == {PLACE}
    # One of curl, the rest of Python; the last may be stored without its acknowledgement printed.
    assert len(rows) in (1 + sent, 2 + sent)
    assert f"{len(rows)} stored, 0 were stored already, 0 rejected: nothing was lost" in onebox.output()


def device_added(browser: Browser) -> str:
    """Add a device from the empty page; return its id."""
    browser.until("return !document.getElementById('no-series').hidden")
    browser.find("#no-series [data-add-device]").click()
    for field, text in (("#add-name", NAME), ("#add-sensor", SENSOR), ("#add-location", PLACE)):
        browser.find(field).send_keys(text)
    browser.find("#add-device-form [type=submit]").click()
    browser.until("return document.getElementById('device').open && !document.getElementById('connect').hidden")
    assert browser.text("#device-title") == NAME
    assert "Waiting" in browser.text("#arrived")
    return browser.text("#device-id")


def may_paste(browser: Browser) -> None:
    """Let this test read the clipboard, as a paste does."""
    granted = {"origin": browser.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", granted)


def copied(browser: Browser, language: str) -> str:
    """Choose a language, press Copy, and return what is in the clipboard."""
    browser.find(f"[data-language={language}]").click()
    browser.find("#copy-snippet").click()
    browser.until("return document.getElementById('copy-snippet').textContent === 'Copied'")
    pasted: str = browser.driver.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](String(error)))"
    )
    assert browser.run("return arguments[0].includes(document.getElementById('token').textContent)", pasted)
    return pasted


def posted_with_curl(browser: Browser) -> None:
    """Paste the snippet of curl into a shell."""
    pasted = copied(browser, "curl")
    done = subprocess.run(["sh"], input=pasted, capture_output=True, text=True, timeout=30, check=False)
    assert '"accepted":1' in done.stdout, done.stdout + done.stderr
    browser.until("return document.getElementById('arrived').textContent.startsWith('Received: 20.5 C')")


def streamed_with_python(browser: Browser, folder: Path) -> int:
    """Paste the snippet of Python into a file, run it, and see the curve move; return how many were accepted."""
    file = folder / "device.py"
    file.write_text(copied(browser, "python"))
    browser.find("#device [data-close]").click()
    with terminal([sys.executable, str(file)], folder / "device.log") as device:
        device.wait_for(re.compile("accepted"), within_s=30)
        first = last_of(browser, at_least=3)
        later = last_of(browser, after=first["x"][-1])
        assert later["x"][-1] > first["x"][-1]
        assert set(later["y"]) - {None} == {VALUE}
        browser.until("return document.querySelector('#series .dot.on') !== null")
        assert [row.split("\n")[0] for row in browser.rows()] == [NAME]
        device.interrupt()
        return len(re.findall("'accepted'", device.output())) // 2


def last_of(browser: Browser, *, at_least: int = 2, after: float = 0.0) -> dict[str, Any]:
    """Wait until the device's curve has this many points, the last of them later than that."""
    named = "(document.getElementById('chart').data ?? []).filter((trace) => trace.name === arguments[0])"
    browser.until(
        f"const found = {named}; return found.length === 1 && found[0].x.length >= arguments[1]"
        " && found[0].x.at(-1) > arguments[2]",
        NAME,
        at_least,
        after,
    )
    (curve,) = (curve for curve in browser.curves() if curve["name"] == NAME)
    return curve


def exported(browser: Browser) -> list[dict[str, str]]:
    """Download the chart's readings, and parse them."""
    browser.find("#download").click()
    deadline = time.monotonic() + 20
    while not (files := list(browser.downloads.glob("*.csv"))):
        assert time.monotonic() < deadline, "nothing was downloaded"
        time.sleep(0.1)
    with io.StringIO(files[0].read_text(), newline="") as text:
        return list(csv.DictReader(text))
