"""The cost of repeated drawing in a real browser: a drawing leaves nothing behind."""

import pytest

from testing.browser import Browser

DRAWINGS = 200

# Draws a line of 10 readings a second over five minutes, moving by a quarter of a second with each drawing.
DRAW = """
const [count, done] = arguments;
const loaded = () => new Promise((ran, failed) => {
  const script = document.createElement("script");
  Object.assign(script, { src: "/dashboard/plotly.min.js", onload: ran, onerror: failed });
  document.head.append(script);
});
const begin = async () => {
  const [{ Chart }, { Zone }, { partsOf }] = await Promise.all(
    ["chart", "zone", "parts"].map((name) => import(`/dashboard/${name}.js`)),
  );
  await loaded();
  [document.getElementById("login").hidden, document.getElementById("app").hidden] = [true, false];
  const chart = new Chart(document.getElementById("chart"), { labelOf: () => "press-1" });
  const [span, zone] = [300_000, new Zone("UTC")];
  window.toMs = Date.UTC(2026, 0, 1, 0, 0, 30);
  window.draw = () => {
    window.toMs += 250;
    const fromMs = window.toMs - span;
    const pointAt = (at) => ({ t: fromMs + at * 100, seq: 0, v: Math.sin(at / 100) });
    const points = Array.from({ length: span / 100 }, (_, at) => pointAt(at));
    const line = { number: 1, device: "press-1", sensorType: "pressure", everyMs: 0, points, last: points.at(-1) };
    chart.draw(partsOf(line), { fromMs, toMs: window.toMs, spanMs: span, zone });
  };
};
(async () => {
  if (!window.draw) await begin();
  for (let drawn = 0; drawn < count; drawn += 1) {
    window.draw();
    window.afterDrawing?.();
    if (drawn % 10 === 0) await new Promise(requestAnimationFrame);
  }
  done("drawn");
})().catch((error) => done(String(error)));
"""
# Plotly measures a new text with a copy of it, and caches its size.
MEASURED = """
window.measured = { all: 0, kept: 0 };
const measure = Element.prototype.getBoundingClientRect;
Element.prototype.getBoundingClientRect = function () {
  window.measured.all += 1;
  window.measured.kept += Number(Boolean(this.closest("#js-plotly-tester")) && !this.matches(".js-reference-point"));
  return measure.call(this);
};
"""
# Records how far visible labels extend beyond the chart.
CUT_OFF = """
window.cutOff = -Infinity;
window.afterDrawing = () => {
  const frame = document.getElementById("chart").getBoundingClientRect();
  for (const text of document.querySelectorAll("#chart .xtick text, #chart .ytick text")) {
    const { left, right, top, bottom } = text.getBoundingClientRect();
    const out = Math.max(frame.left - left, right - frame.right, frame.top - top, bottom - frame.bottom);
    window.cutOff = Math.max(window.cutOff, out);
  }
};
"""


def draw(browser: Browser, times: int) -> None:
    assert browser.driver.execute_async_script(DRAW, times) == "drawn"


def held(browser: Browser) -> tuple[int, int]:
    """Return the number of nodes and listeners after a garbage collection."""
    browser.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    counted = browser.driver.execute_cdp_cmd("Memory.getDOMCounters", {})
    return counted["nodes"], counted["jsEventListeners"]


def least_held(browser: Browser, looks: int = 10) -> tuple[int, int]:
    """Return the minimum of several measurements: replaced nodes are not always collected at once."""
    found = []
    for _ in range(looks):
        found.append(held(browser))
        browser.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 50))")
    return min(found)


def test_a_live_chart_holds_no_more_the_longer_it_is_drawn(page: str) -> None:
    with Browser.opened(page) as browser:
        browser.driver.set_script_timeout(120)
        draw(browser, 20)
        browser.run(MEASURED)
        nodes, listeners = least_held(browser)
        draw(browser, DRAWINGS)
        measured = browser.run("return window.measured")
        nodes_after, listeners_after = least_held(browser)
        # Ticks come and go, one or two at a time; a drawing that is not freed would be more than 100 nodes.
        assert nodes_after < nodes + 50
        assert listeners_after == listeners
        # Ticks move with each drawing: text sizes are not cached for each position.
        assert measured["kept"] < DRAWINGS / 10
        assert measured["all"] / DRAWINGS < 20, "drawing measures every label for every label"
        assert browser.console_errors() == []


@pytest.mark.parametrize("locale", ["en-GB", "pt-BR", "lv-LV"])
def test_a_label_is_left_out_where_it_would_be_cut_off(page: str, locale: str) -> None:
    """The page fits labels itself. Dates are long in some languages, and a phone's window is narrow."""
    with Browser.opened(page, width=390, height=844, phone=True) as browser:
        browser.driver.set_script_timeout(120)
        browser.driver.execute_cdp_cmd("Emulation.setLocaleOverride", {"locale": locale})
        draw(browser, 1)
        browser.run(CUT_OFF)
        draw(browser, DRAWINGS)
        assert browser.run("return document.querySelectorAll('#chart .xtick text').length") > 1
        assert browser.run("return window.cutOff") < 1
