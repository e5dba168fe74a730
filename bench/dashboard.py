"""The dashboard in a real browser: 20,000 series in its list, and one of 10 readings a second in its chart.

A onebox on this machine and headless Chromium with software rendering, on the same processors. The series are first
registered and sent over HTTP. The first values are timed from the navigation, with an open session, to the frame after
the first visible row has a value: once with an empty browser cache and a server that has just started, then reloaded.
The list is scrolled with the wheel. Then a device sends over Socket.IO; its readings of the five minutes before fill
the chart from the start, so that any later growth is a leak. A point counts as drawn when it is in plotly's data; its
latency starts when the device received the acknowledgement.

Memory is the peak PSS (/proc/PID/smaps_rollup) of the process that runs the tab; retained memory is sampled after
garbage collections, in the first and in the last minute.
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
from bench.processes import BenchError, LineProcess
from bench.report import Figure, progress
from bench.results import Details, finish
from bench.site import Site
from bench.tab import MemoryUsage, ScrollStats, Tab, pss_of
from testing.browser import Browser
from testing.servers.ports import free_port

MIB = 1024 * 1024
RELOADS = 5
SCROLLS, SCROLL_S, SCROLL_PX_S = 3, 5.0, 3000
DEVICE, SENSOR, RATE = "press-1", "pressure", 10
# The time range of the live chart.
BEFORE_S = 300.0
# A point drawn later than this after its timestamp counts as never drawn.
HORIZON_MS = 20_000
POLL_S = 5.0
LOGGED_IN_WITHIN_S = 120.0
MINUTE_S = 60.0
# Normal variation of a collected heap, the nodes and the listeners of a page between samples: axis ticks come and go,
# row texts change length.
MAX_GROWTH = 1.05


@dataclass(frozen=True)
class Size:
    """The extent of a measurement."""

    series: int = 20_000
    live_s: float = 600.0
    reloads: int = RELOADS
    scrolls: int = SCROLLS
    before_s: float = BEFORE_S

    @property
    def window_s(self) -> float:
        """The length of the first and of the last window, which are compared."""
        return min(MINUTE_S, self.live_s / 3)


QUICK = Size(live_s=60.0, reloads=3, scrolls=1)
SMOKE = Size(series=200, live_s=6.0, reloads=1, scrolls=1, before_s=5.0)


class MemoryWatch:
    """Samples a tab's memory and keeps the peak."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.pid = tab.renderer()
        self.peak_bytes = 0

    def sample(self) -> None:
        """Sample its memory without a garbage collection."""
        self.peak_bytes = max(self.peak_bytes, pss_of(self.pid))

    def retained(self) -> MemoryUsage:
        """Sample its memory, then collect garbage and return what is retained."""
        self.sample()
        return self.tab.retained(self.pid)


def first_value_figures(tab: Tab, site: Site, size: Size) -> list[Figure]:
    """Measure the time to the first value."""
    cold = tab.first_value_s(site.url, cached=False)
    progress(f"  first values, nothing cached: {cold:.2f} s")
    warm = [tab.first_value_s(site.url, cached=True) for _ in range(size.reloads)]
    progress(f"  first values, reloaded: {', '.join(f'{one:.2f}' for one in warm)} s")
    return [
        Figure("first values, nothing cached, by browser or server", cold, "s", 2),
        Figure(f"first values, reloaded: median of {size.reloads}", statistics.median(warm), "s", 2),
        Figure("  the slowest", max(warm), "s"),
    ]


def scroll_figures(tab: Tab, memory: MemoryWatch, size: Size) -> list[Figure]:
    """Measure the frame rate while the list is scrolled."""
    found: list[ScrollStats] = []
    for _ in range(size.scrolls):
        found.append(tab.scroll(SCROLL_S, SCROLL_PX_S))
        memory.sample()
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


def measure_live(tab: Tab, memory: MemoryWatch, site: Site, size: Size) -> list[Figure]:
    """Measure the draw latency of a live series, and retained memory at the beginning and at the end."""
    log = site.folder / "paced.log"
    with LineProcess([sys.executable, "-m", "bench.paced", site.url], log=log) as device:
        device.send({"token": site.token(), "device": DEVICE, "sensorType": SENSOR, "rate": RATE})
        device.request({"before": size.before_s})
        select_series(tab)
        device.send({"run": size.live_s})
        began_ms = device.receive()["fromMs"]
        tab.find_labels()
        tab.watch_points(DEVICE, began_ms, HORIZON_MS)
        drawn: dict[int, int] = {}
        first, last = watch_chart(tab, memory, drawn, size)
        ran = device.receive()
    # The last points get as much time as all others.
    deadline = time.monotonic() + HORIZON_MS / 1000
    while time.monotonic() < deadline and len(drawn) < len(ran["acknowledged"]):
        time.sleep(0.5)
        drawn |= tab.points()
    progress(f"  {len(drawn):,} of {len(ran['acknowledged']):,} points were drawn")
    return draw_latency_figures(ran["acknowledged"], drawn, size) + growth_figures(first, last)


def select_series(tab: Tab) -> None:
    """Select only the live series."""
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


def watch_chart(
    tab: Tab, memory: MemoryWatch, drawn: dict[int, int], size: Size
) -> tuple[list[MemoryUsage], list[MemoryUsage]]:
    """Collect the points as they are drawn; return memory samples of the first and of the last window."""
    first, last = [], []
    began = time.monotonic()
    while (at := time.monotonic() - began) < size.live_s:
        if at < size.window_s:
            first.append(memory.retained())
        elif at > size.live_s - size.window_s:
            last.append(memory.retained())
        else:
            memory.sample()
        drawn |= tab.points()
        time.sleep(min(POLL_S, size.window_s / 3))
    return first, last


def draw_latency_figures(acknowledged: Sequence[tuple[int, float]], drawn: dict[int, int], size: Size) -> list[Figure]:
    """Return the latencies from acknowledgement to drawing, and the number of points never drawn."""
    waits = sorted((drawn[ts] - at) / 1000 for ts, at in acknowledged if ts in drawn)
    minutes = f"{size.live_s / 60:g} minutes"
    return [
        Figure(f"{RATE} readings a second for {minutes}: accepted", len(acknowledged), "readings"),
        Figure("  never shown", len(acknowledged) - len(waits), "readings", 0),
        Figure("  shown after their acknowledgement: p50", percentile(waits, 0.5), "s"),
        Figure("  p99", percentile(waits, 0.99), "s"),
        Figure("  the slowest", max(waits, default=HORIZON_MS / 1000), "s", 1),
    ]


def growth_figures(first: list[MemoryUsage], last: list[MemoryUsage]) -> list[Figure]:
    """Compare the last window to the first: the minimum of each, since garbage is not always collected at once."""

    def ratio(name: str, most: float | None) -> Figure:
        before, after = (min(getattr(retained, name) for retained in window) for window in (first, last))
        progress(f"  {name}: {before:,.0f}, then {after:,.0f}")
        return Figure(f"  {NAMES[name]}: the last minute of the first", after / before, "x", most)

    figures = [ratio(name, None if name == "pss_bytes" else MAX_GROWTH) for name in NAMES]
    labels = sum(retained.labels for retained in (first + last)[1:])
    return [*figures, Figure("  labels whose sizes plotly kept meanwhile, 10,000 at most", labels, "labels")]


NAMES = {
    "heap_bytes": "JavaScript's heap, collected",
    "nodes": "nodes",
    "listeners": "listeners",
    "pss_bytes": "the process's memory, collected",
}


def memory_figures(browser: Browser, peak_bytes: int, retained: MemoryUsage) -> list[Figure]:
    """Return the tab's memory, compared to an empty tab and to plotly alone."""
    tab = Tab(browser)
    browser.driver.switch_to.new_window("tab")
    browser.driver.get("about:blank")
    pid = tab.renderer()
    empty = tab.retained(pid)
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text()
    tab.cdp("Runtime.evaluate", expression=plotly)
    with_plotly = tab.retained(pid)
    return [
        Figure("memory of the tab's process at most", peak_bytes / MIB, "MiB", 200e6 / MIB),
        Figure("  after a garbage collection", retained.pss_bytes / MIB, "MiB"),
        Figure("    of it JavaScript's heap", retained.heap_bytes / MIB, "MiB"),
        Figure("  an empty tab's process", empty.pss_bytes / MIB, "MiB"),
        Figure("  what plotly adds to one, with nothing drawn", (with_plotly.pss_bytes - empty.pss_bytes) / MIB, "MiB"),
    ]


def measure(folder: Path, size: Size) -> list[Figure]:
    """Run the whole benchmark."""
    site = Site(folder, free_port())
    with ExitStack() as stack:
        with site.running():
            site.fill(size.series, progress)
            browser = stack.enter_context(Browser.opened(site.url))
            browser.log_in(**site.credentials)
            browser.until("return document.querySelectorAll('#series li').length > 0", within_s=LOGGED_IN_WITHIN_S)
            browser.driver.get("about:blank")
        tab = Tab(browser)
        with site.running():  # restarted, with cold caches
            figures = first_value_figures(tab, site, size)
            memory = MemoryWatch(tab)
            figures += scroll_figures(tab, memory, size)
            figures += measure_live(tab, memory, site, size)
            return figures + memory_figures(browser, memory.peak_bytes, memory.retained())


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench dashboard", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one minute of the live series instead of ten")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    size = SMOKE if options.smoke else QUICK if options.quick else Size()
    progress(f"{size.series:,} series, and one of {RATE} readings a second for {size.live_s:g} s")
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            figures = measure(Path(folder), size)
        except (BenchError, WebDriverException) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return 2
    title = f"The dashboard with {size.series:,} series"
    save = size == Size()
    return finish("dashboard", title, figures, Details(), as_json=options.json, save=save)


if __name__ == "__main__":
    sys.exit(main())
