"""The dashboard in a real browser: 20,000 series in its list, and one of 10 readings a second in its chart.

A onebox on this machine, Chromium without a screen, its frames drawn by the processor; both take from the same
processors. The series are registered and sent over HTTP first. The first values are timed from the navigation, with a
session in place, to the frame after the first row in sight has a value: once with nothing in the browser's cache and a
server that has just started, then reloaded. The list is scrolled by the wheel. Then a device sends, over Socket.IO;
what it sent in the five minutes before fills the chart to begin with, so that what grows afterwards grows for no
reason. A point counts as shown when it is in what plotly has drawn; from when its acknowledgement was at the device.

Memory is the PSS (/proc/PID/smaps_rollup) of the process that runs the tab, the most that was seen; what is held is
looked at after garbage collections, in the first and in the last minute.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from selenium.common.exceptions import WebDriverException

from bench.load import percentile
from bench.processes import BenchError, Speaking
from bench.report import Figure, progress
from bench.results import Kept, finish
from bench.site import Site
from bench.tab import Held, Scrolled, Tab, pss_of
from testing.browser import Browser
from testing.servers.ports import free_port

MIB = 1024 * 1024
RELOADS = 5
SCROLLS, SCROLL_S, SCROLL_PX_S = 3, 5.0, 3000
DEVICE, SENSOR, RATE = "press-1", "pressure", 10
# As much as the chart shows while it is live.
BEFORE_S = 300.0
# A point that is drawn later than this after its time counts as never drawn.
HORIZON_MS = 20_000
LOOK_S = 5.0
LOGGED_IN_WITHIN_S = 120.0
MINUTE_S = 60.0
# What a collected heap, the nodes and the listeners of a page differ by from one look to the next: the marks of the
# axis come and go, the rows' texts get longer and shorter.
MOST_GROWN = 1.05


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    series: int = 20_000
    live_s: float = 600.0
    reloads: int = RELOADS
    scrolls: int = SCROLLS
    before_s: float = BEFORE_S

    @property
    def looked_s(self) -> float:
        """How long the first and the last stretch are that are compared."""
        return min(MINUTE_S, self.live_s / 3)


QUICK = Size(live_s=60.0, reloads=3, scrolls=1)
SMOKE = Size(series=200, live_s=6.0, reloads=1, scrolls=1, before_s=5.0)


class Looks:
    """What was seen of a tab's memory."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.pid = tab.renderer()
        self.most_bytes = 0

    def look(self) -> None:
        """Note its memory as it stands, nothing collected."""
        self.most_bytes = max(self.most_bytes, pss_of(self.pid))

    def held(self) -> Held:
        """Note its memory, then collect garbage and see what is left."""
        self.look()
        return self.tab.held(self.pid)


def first_values(tab: Tab, site: Site, size: Size) -> list[Figure]:
    """Measure the time to the first values."""
    cold = tab.first_value_s(site.url, cached=False)
    progress(f"  first values, nothing cached: {cold:.2f} s")
    warm = [tab.first_value_s(site.url, cached=True) for _ in range(size.reloads)]
    progress(f"  first values, reloaded: {', '.join(f'{one:.2f}' for one in warm)} s")
    return [
        Figure("first values, nothing cached, by browser or server", cold, "s", 2),
        Figure(f"first values, reloaded: median of {size.reloads}", statistics.median(warm), "s", 2),
        Figure("  the slowest", max(warm), "s"),
    ]


def scrolling(tab: Tab, looks: Looks, size: Size) -> list[Figure]:
    """Measure frames while the list is scrolled."""
    found: list[Scrolled] = []
    for _ in range(size.scrolls):
        found.append(tab.scroll(SCROLL_S, SCROLL_PX_S))
        looks.look()
        progress(f"  scrolled: {found[-1]}")
    if min(one.pixels for one in found) <= 0:
        raise BenchError("the list did not move")
    rates = [one.frames_a_second for one in found]
    return [
        Figure(f"scrolling, {SCROLL_PX_S:,} px a second", statistics.median(rates), "frames/s", at_least=50),
        Figure("  the slowest", min(rates), "frames/s"),
        Figure("  the longest frame", max(one.longest_frame_ms for one in found), "ms"),
        Figure(
            "  looks at which a row had not been loaded yet", statistics.mean(one.loading for one in found) * 100, "%"
        ),
    ]


def live(tab: Tab, looks: Looks, site: Site, size: Size) -> list[Figure]:
    """Measure what of a live series is shown, and when; and what is held at the beginning and at the end."""
    log = site.folder / "paced.log"
    with Speaking([sys.executable, "-m", "bench.paced", site.url], log=log) as device:
        device.say({"token": site.token(), "device": DEVICE, "sensorType": SENSOR, "rate": RATE})
        device.ask({"before": size.before_s})
        choose(tab)
        device.say({"run": size.live_s})
        began_ms = device.hear()["fromMs"]
        tab.find_labels()
        tab.watch_points(DEVICE, began_ms, HORIZON_MS)
        drawn: dict[int, int] = {}
        first, last = watched(tab, looks, drawn, size)
        ran = device.hear()
    # Those of the last moment have the time that all others have.
    deadline = time.monotonic() + HORIZON_MS / 1000
    while time.monotonic() < deadline and len(drawn) < len(ran["acknowledged"]):
        time.sleep(0.5)
        drawn |= tab.points()
    progress(f"  {len(drawn):,} of {len(ran['acknowledged']):,} points were drawn")
    return shown(ran["acknowledged"], drawn, size) + grown(first, last)


def choose(tab: Tab) -> None:
    """Show the live series alone."""
    rows = "[...document.querySelectorAll('#series li:not(.loading)')]"
    browser = tab.browser
    type_in = (
        "const field = document.getElementById('filter'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input'))"
    )
    browser.run(
        "for (const box of document.querySelectorAll('#series input:checked')) box.click();"
        "document.getElementById('clear-chosen')?.click()"
    )
    browser.run(type_in, DEVICE)
    browser.until(f"return {rows}.some((row) => row.innerText.includes(arguments[0]))", DEVICE)
    browser.run(
        f"{rows}.find((row) => row.innerText.includes(arguments[0])).querySelector('input').click()",
        DEVICE,
    )
    browser.run(type_in, "")
    named = "(document.getElementById('chart').data ?? []).filter((trace) => trace.name)"
    browser.until(f"const found = {named}; return found.length === 1 && found[0].name.includes(arguments[0])", DEVICE)


def watched(tab: Tab, looks: Looks, drawn: dict[int, int], size: Size) -> tuple[list[Held], list[Held]]:
    """Take the points as they are drawn; return what was held in the first and in the last stretch."""
    first, last = [], []
    began = time.monotonic()
    while (at := time.monotonic() - began) < size.live_s:
        if at < size.looked_s:
            first.append(looks.held())
        elif at > size.live_s - size.looked_s:
            last.append(looks.held())
        else:
            looks.look()
        drawn |= tab.points()
        time.sleep(min(LOOK_S, size.looked_s / 3))
    return first, last


def shown(acknowledged: Sequence[tuple[int, float]], drawn: dict[int, int], size: Size) -> list[Figure]:
    """Return how long after its acknowledgement each point was drawn, and how many never were."""
    waits = sorted((drawn[ts] - at) / 1000 for ts, at in acknowledged if ts in drawn)
    minutes = f"{size.live_s / 60:g} minutes"
    return [
        Figure(f"{RATE} readings a second for {minutes}: accepted", len(acknowledged), "readings"),
        Figure("  never shown", len(acknowledged) - len(waits), "readings", 0),
        Figure("  shown after their acknowledgement: p50", percentile(waits, 0.5), "s"),
        Figure("  p99", percentile(waits, 0.99), "s"),
        Figure("  the slowest", max(waits, default=HORIZON_MS / 1000), "s", 1),
    ]


def grown(first: list[Held], last: list[Held]) -> list[Figure]:
    """Return the last stretch beside the first: the least of each, for some of what is no longer needed is not always
    collected at once."""

    def beside(name: str, most: float | None) -> Figure:
        before, after = (min(getattr(held, name) for held in stretch) for stretch in (first, last))
        progress(f"  {name}: {before:,.0f}, then {after:,.0f}")
        return Figure(f"  {NAMES[name]}: the last minute of the first", after / before, "x", most)

    figures = [beside(name, None if name == "pss_bytes" else MOST_GROWN) for name in NAMES]
    labels = sum(held.labels for held in (first + last)[1:])
    return [*figures, Figure("  labels whose sizes plotly kept meanwhile, 10,000 at most", labels, "labels")]


NAMES = {
    "heap_bytes": "JavaScript's heap, collected",
    "nodes": "nodes",
    "listeners": "listeners",
    "pss_bytes": "the process's memory, collected",
}


def memory(browser: Browser, most_bytes: int, held: Held) -> list[Figure]:
    """Return the tab's memory, beside that of an empty tab and of plotly by itself."""
    tab = Tab(browser)
    browser.driver.switch_to.new_window("tab")
    browser.driver.get("about:blank")
    pid = tab.renderer()
    empty = tab.held(pid)
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text()
    tab.cdp("Runtime.evaluate", expression=plotly)
    with_plotly = tab.held(pid)
    return [
        Figure("memory of the tab's process at most", most_bytes / MIB, "MiB", 200e6 / MIB),
        Figure("  after a garbage collection", held.pss_bytes / MIB, "MiB"),
        Figure("    of it JavaScript's heap", held.heap_bytes / MIB, "MiB"),
        Figure("  an empty tab's process", empty.pss_bytes / MIB, "MiB"),
        Figure("  what plotly adds to one, with nothing drawn", (with_plotly.pss_bytes - empty.pss_bytes) / MIB, "MiB"),
    ]


def measure(folder: Path, size: Size) -> list[Figure]:
    """Run all of it."""
    site = Site(folder, free_port())
    with ExitStack() as stack:
        with site.running():
            site.fill(size.series, progress)
            browser = stack.enter_context(Browser.opened(site.url))
            browser.log_in(**site.person)
            browser.until("return document.querySelectorAll('#series li').length > 0", within_s=LOGGED_IN_WITHIN_S)
            browser.driver.get("about:blank")
        tab = Tab(browser)
        with site.running():  # with nothing in its memory
            figures = first_values(tab, site, size)
            looks = Looks(tab)
            figures += scrolling(tab, looks, size)
            figures += live(tab, looks, site, size)
            return figures + memory(browser, looks.most_bytes, looks.held())


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench dashboard", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute of the live series in place of ten")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    size = SMOKE if asked.smoke else QUICK if asked.quick else Size()
    progress(f"{size.series:,} series, and one of {RATE} readings a second for {size.live_s:g} s")
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures = measure(Path(folder), size)
        except (BenchError, WebDriverException) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
    title = f"The dashboard with {size.series:,} series"
    keep = size == Size()
    return finish("dashboard", title, figures, Kept(), as_json=asked.json, keep=keep)


if __name__ == "__main__":
    sys.exit(main())
