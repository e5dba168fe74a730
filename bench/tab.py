"""Instruments a tab of a real browser: when values appear, its frame rate, its memory."""

import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.processes import BenchError, cpu_of
from testing.browser import Browser

BUSY_MS = 400
MAX_WAIT_S = 120.0

# Runs before any script of the page: records when the first visible row shows a value, in ms since navigation.
FIRST_VALUE = """
(() => {
  const look = () => {
    for (const row of document.querySelectorAll("#series li")) {
      const value = row.querySelector(".value")?.textContent.trim();
      const box = row.getBoundingClientRect();
      if (value && value !== "–" && box.height > 0 && box.top < innerHeight && box.bottom > 0) {
        // It is painted when the next frame begins.
        requestAnimationFrame(() => (window.firstValueMs = performance.now()));
        return;
      }
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""

# The scroll container of the rows: their nearest scrollable ancestor, else the page.
LIST = """
let list = document.querySelector("#series li");
const scrolls = (one) => one.scrollHeight > one.clientHeight + 1 && /auto|scroll/.test(getComputedStyle(one).overflowY);
while (list && !scrolls(list)) list = list.parentElement;
list ??= document.scrollingElement;
"""
MIDDLE = "return [box.left + box.width / 2, (Math.max(0, box.top) + Math.min(innerHeight, box.bottom)) / 2]"

# Counts frames, and checks in every tenth one whether the row in the middle of the list is loaded.
FRAMES = """
const [x, y] = arguments;
const found = (window.frames = { times: [], looks: 0, loading: 0, on: true });
const frame = (at) => {
  if (!found.on) return;
  found.times.push(at);
  if (found.times.length % 10 === 0) {
    found.looks += 1;
    found.loading += Number(Boolean(document.elementFromPoint(x, y)?.closest("li.loading")));
  }
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""

# Records when each point of a line from a given time on first appears in the chart's data. `x` is in milliseconds or a
# date. Points drawn later than `horizon` after their own time are ignored, to bound memory.
POINTS = """
const [name, fromMs, horizon] = arguments;
const chart = document.getElementById("chart");
const seen = (window.seen = { fresh: [], known: new Map(), timer: 0 });
let last;
seen.timer = setInterval(() => {
  if (chart.data === last) return;
  last = chart.data;
  const now = Date.now();
  for (const trace of last ?? []) {
    if (!trace.name?.includes(name)) continue;
    for (let at = trace.x.length - 1; at >= 0; at -= 1) {
      const t = typeof trace.x[at] === "number" ? trace.x[at] : Date.parse(trace.x[at]);
      if (t < fromMs || t < now - horizon) break;
      if (trace.y[at] === null || seen.known.has(t)) continue;
      seen.known.set(t, now);
      seen.fresh.push([t, now]);
    }
  }
  for (const t of seen.known.keys()) if (t < now - 2 * horizon) seen.known.delete(t);
}, 20);
"""


# An internal module of plotly. It caches a bounding box per label text and position, and clears the cache at the
# 10,001st (src/components/drawing/index.js, maxSavedBBoxes): not a leak, but that shows only after ten minutes.
DRAWING = "function () { window.drawing = this.find((one) => one.savedBBoxes && one.bBox) }"
FORGET = """
const count = Object.keys(window.drawing?.savedBBoxes ?? {}).length;
if (count) window.drawing.savedBBoxes = {};
return count;
"""


@dataclass(frozen=True)
class ScrollStats:
    """Frame statistics of a scroll gesture."""

    frames_a_second: float
    longest_frame_ms: float
    loading: float
    pixels: float


@dataclass(frozen=True)
class MemoryUsage:
    """A tab's memory after a garbage collection; `labels`: entries removed from plotly's label cache before it."""

    heap_bytes: float
    nodes: float
    listeners: float
    pss_bytes: float
    labels: float = 0


class Tab:
    """One tab."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    def cdp(self, command: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol."""
        found: dict[str, Any] = self.browser.driver.execute_cdp_cmd(command, parameters)
        return found

    def first_value_s(self, url: str, *, cached: bool) -> float:
        """Navigate, and return the seconds until the first row in sight shows a value."""
        script = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=FIRST_VALUE)["identifier"]
        self.cdp("Network.enable")
        self.cdp("Network.setCacheDisabled", cacheDisabled=not cached)
        self.browser.driver.get("about:blank")
        began = time.monotonic()
        try:
            self.browser.driver.get(url)
            while (found := self.browser.run("return window.firstValueMs ?? null")) is None:
                if time.monotonic() - began > MAX_WAIT_S:
                    return MAX_WAIT_S
                time.sleep(0.05)
        finally:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
            self.cdp("Network.setCacheDisabled", cacheDisabled=False)
        return float(found) / 1000

    def scroll(self, seconds: float, pixels_a_second: int) -> ScrollStats:
        """Scroll the list with the wheel for `seconds`."""
        x, y = self.browser.run(f"{LIST} const box = list.getBoundingClientRect(); {MIDDLE}")
        at = f"{LIST} return list.scrollTop"
        room = "if (list.scrollHeight - list.clientHeight - list.scrollTop < arguments[0]) list.scrollTop = 0"
        self.browser.run(f"{LIST} {room}", seconds * pixels_a_second)
        before = self.browser.run(at)
        self.browser.run(FRAMES, x, y)
        gesture = {"x": x, "y": y, "gestureSourceType": "mouse", "preventFling": True, "speed": pixels_a_second}
        self.cdp("Input.synthesizeScrollGesture", yDistance=-seconds * pixels_a_second, **gesture)
        found = self.browser.run("window.frames.on = false; return window.frames")
        times = found["times"]
        if len(times) < 2:
            raise BenchError("the page rendered no frame while it was scrolled")
        return ScrollStats(
            (len(times) - 1) / (times[-1] - times[0]) * 1000,
            max(after - before for before, after in pairwise(times)),
            found["loading"] / max(1, found["looks"]),
            self.browser.run(at) - before,
        )

    def watch_points(self, name: str, from_ms: float, horizon_ms: int) -> None:
        """Start recording when each point of a line is drawn."""
        self.browser.run(POINTS, name, from_ms, horizon_ms)

    def points(self) -> list[tuple[int, int]]:
        """Return the points recorded since the last call: timestamp and draw time, in ms since 1970."""
        found = self.browser.run("return JSON.stringify(window.seen.fresh.splice(0))")
        return [(int(ts), int(at)) for ts, at in json.loads(found)]

    def renderer(self) -> int:
        """Return the id of the process that runs the page: the one that is busy when the page is."""
        children = [pid for pid in _descendants(self.browser.driver.service.process.pid) if _is_renderer(pid)]
        before = {pid: cpu_of([pid]) for pid in children}
        self.browser.run(f"const end = performance.now() + {BUSY_MS}; while (performance.now() < end);")
        grown = {pid: cpu_of([pid]) - before[pid] for pid in children}
        busiest = max(grown, key=lambda pid: grown[pid], default=0)
        if not busiest:
            raise BenchError("the browser has no process that runs pages")
        return busiest

    def find_labels(self) -> None:
        """Find plotly's label cache, which is not reachable from the page's globals."""
        group = {"objectGroup": "bench"}
        every = self.cdp("Runtime.evaluate", expression="Object.prototype", **group)["result"]["objectId"]
        found = self.cdp("Runtime.queryObjects", prototypeObjectId=every, **group)["objects"]["objectId"]
        self.cdp("Runtime.callFunctionOn", objectId=found, functionDeclaration=DRAWING)
        self.cdp("Runtime.releaseObjectGroup", **group)

    def retained(self, pid: int) -> MemoryUsage:
        """Clear plotly's label cache, which plotly bounds itself; collect garbage, and return the memory retained."""
        labels = self.browser.run(FORGET)
        self.cdp("HeapProfiler.collectGarbage")
        counted = self.cdp("Memory.getDOMCounters")
        heap = self.cdp("Runtime.getHeapUsage")["usedSize"]
        nodes, listeners = counted["nodes"], counted["jsEventListeners"]
        return MemoryUsage(float(heap), float(nodes), float(listeners), float(pss_of(pid)), float(labels))


def pss_of(pid: int) -> int:
    """Return a process's proportional set size (PSS) in bytes."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    raise BenchError("the process of the page has ended")


def _descendants(pid: int) -> list[int]:
    """Return all descendants of a process."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(folder.name))
    found, ahead = [], [pid]
    while ahead:
        children = parents.get(ahead.pop(), [])
        found += children
        ahead += children
    return found


def _is_renderer(pid: int) -> bool:
    try:
        return b"--type=renderer" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
