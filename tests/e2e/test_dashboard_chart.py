"""The chart of unusual sensors in a real browser: every kind of value, exact and in place."""

import itertools
from typing import Any

import pytest

from testing.browser import Browser
from tests.e2e.charts import MINUTE_MS, ago, every, looking, runs
from tests.e2e.demo_server import DemoServer


def test_a_text_is_never_markup_and_every_state_has_its_name(browser: Browser, demo_server: DemoServer) -> None:
    link = '<a href="https://example.org/">Log in again</a>'
    texts = ["1", "10", "2", "error", link, "<b>idle</b>", "idle&amp;<br>more"]
    demo_server.send("texts-1", every(6, texts, "state"))
    looking(browser, demo_server, ("texts-1", "state"))
    (band,) = browser.curves()
    assert band["type"] == "bar"
    drawn = "return document.getElementById('chart').textContent"
    for text in ("1", "10", "2", "error", "Log in again"):
        assert text in browser.run(drawn)
    assert browser.run("return document.querySelectorAll('#chart a, #chart b, #legend a, #legend b').length") == 0
    (row,) = browser.figures()
    assert row[1] == texts[-1]
    box = browser.run(
        "const {left, top, width, height} = document.querySelector('#chart .nsewdrag').getBoundingClientRect();"
        "return [left + width * 0.57, top + height / 2]"
    )
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": box[0], "y": box[1]})
    assert link in browser.until("return document.getElementById('chart-hover').innerText")
    assert browser.run("return document.querySelectorAll('#chart-hover a').length") == 0


def test_texts_that_look_like_numbers_are_all_shown_as_they_are(browser: Browser, demo_server: DemoServer) -> None:
    texts = ["1", "10", "2", "error", "idle"]
    demo_server.send("texts-2", every(8, texts, "state"))
    looking(browser, demo_server, ("texts-2", "state"))
    (band,) = browser.curves()
    assert band["text"] == texts
    assert band["base"] == sorted(band["base"])
    browser.until(
        "const drawn = [...document.querySelectorAll('#chart .bartext')].map((text) => text.textContent);"
        "return arguments[0].every((text) => drawn.includes(text))",
        texts,
    )


def test_booleans_are_steps_with_the_share_that_was_on(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("booleans-1", every(5, [True, False, True, True], "door"))
    looking(browser, demo_server, ("booleans-1", "door"))
    (curve,) = browser.curves()
    assert (curve["y"], curve["shape"]) == ([1, 0, 1, 1], "hv")
    (row,) = browser.figures()
    assert row[1:3] == ["on", "on in 75% of the readings"]
    assert "off" in browser.text("#chart")


def test_a_state_sent_on_change_lasts_until_the_next_one(browser: Browser, demo_server: DemoServer) -> None:
    for sensor, values in (
        ("mode", ["idle", "run", "stop", "idle", "run"]),
        ("door", [True, False, True, False, True]),
    ):
        times = [50, 49, 20, 19.5, 18]
        demo_server.send(
            "changes-1",
            [
                {"sensorType": sensor, "ts": ago(back), "seq": 0, "value": value}
                for back, value in zip(times, values, strict=True)
            ],
        )
    looking(browser, demo_server, ("changes-1", "mode"), ("changes-1", "door"))
    band, steps = browser.curves()
    ends = [base + length for base, length in zip(band["base"], band["x"], strict=True)]
    assert ends[:-1] == band["base"][1:]
    assert len(runs(steps)) == 1


def test_a_series_of_several_kinds_shows_them_all(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("mixed-1", every(3, [1.5, True, "stop", 2.5, False, "go"], "mixed", back=30))
    looking(browser, demo_server, ("mixed-1", "mixed"))
    number, boolean, text = browser.curves()
    assert number["y"][0] == 1.5
    assert boolean["y"][0] == 1
    assert set(text["text"]) == {"stop", "go"}
    assert [row[1] for row in browser.figures()] == ["2.5", "off", "go"]


def test_figures_are_exact(browser: Browser, demo_server: DemoServer) -> None:
    values = {"money": 123456.78, "counter": 9007199254740993, "latitude": 48.1371543, "low": -9223372036854775808}
    for sensor, value in values.items():
        demo_server.send("exact-1", every(1, [value], sensor))
    looking(browser, demo_server, *(("exact-1", sensor) for sensor in values))
    written = ["123,456.78", "9,007,199,254,740,993", "48.1371543", "-9,223,372,036,854,775,808"]
    for row, text in zip(browser.figures(), written, strict=True):
        assert row[1:5] == [text] * 4


def test_units_have_an_axis_each_also_within_one_sensor(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("units-1", every(2, [20.0, 21.0, 22.0], "temperature", unit="°C"))
    demo_server.send("units-2", every(2, [68.0, 70.0, 72.0], "temperature", unit="°F"))
    changed = every(2, [1.0, 2.0], "pressure", unit="bar") + every(2, [1000.0, 2000.0], "pressure", back=20, unit="hPa")
    demo_server.send("units-3", changed)
    looking(browser, demo_server, ("units-1", "temperature"), ("units-2", "temperature"), ("units-3", "pressure"))
    axes = browser.run("return document.getElementById('chart').data.filter((one) => one.name).map((one) => one.yaxis)")
    assert len(axes) == len(set(axes)) == 4
    titles = browser.text("#chart")
    for title in ("temperature (°C)", "temperature (°F)", "pressure (bar)", "pressure (hPa)"):
        assert title in titles


def test_a_single_reading_is_drawn(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("single-1", every(1, [7.0], "level"))
    looking(browser, demo_server, ("single-1", "level"))
    browser.until("return document.querySelectorAll('#chart .points path').length === 1")


@pytest.mark.parametrize(
    ("device", "minutes", "pieces"),
    [
        ("regular", list(range(30)), 1),
        ("two-apart", [0, 40], 2),
        ("two-together", [0, 2], 1),
        ("asleep", [0, 0.2, 0.4, 20, 20.2, 20.4, 40, 40.2, 40.4], 3),
        ("asleep-in-pairs", [0, 0.5, 15, 15.5, 30, 30.5, 45, 45.5], 4),
        ("missed-some", [*range(15), *range(25, 40)], 2),
        ("irregular", [0, 1, 1.3, 4, 5, 9, 9.2, 12, 16, 17, 17.5, 22, 24, 24.4, 30, 33], 1),
    ],
)
def test_a_line_is_not_drawn_across_a_pause(
    browser: Browser, demo_server: DemoServer, device: str, minutes: list[float], pieces: int
) -> None:
    readings = [{"sensorType": "level", "ts": ago(50 - at), "seq": n, "value": n} for n, at in enumerate(minutes)]
    demo_server.send(f"pause-{device}", readings)
    looking(browser, demo_server, (f"pause-{device}", "level"))
    (curve,) = browser.curves()
    assert len(runs(curve)) == pieces
    assert [y for y in curve["y"] if y is not None] == list(range(len(minutes)))


AUTUMN_MS = 1_792_886_400_000  # 2026-10-25T00:00:00Z; Berlin's clocks go from 03:00 back to 02:00 an hour later


def test_the_hour_that_comes_twice_is_drawn_twice(demo_server: DemoServer) -> None:
    readings = [
        {"sensorType": "level", "ts": AUTUMN_MS + n * 10 * MINUTE_MS, "seq": 0, "value": n} for n in range(-6, 18)
    ]
    demo_server.send("autumn-1", readings)
    also = "span=range&from=2026-10-24T23:00:00Z&to=2026-10-25T03:00:00Z"
    with Browser.opened(demo_server.url, zone="Europe/Berlin") as browser:
        looking(browser, demo_server, ("autumn-1", "level"), also=also)
        (curve,) = browser.curves()
        assert curve["x"] == [one["ts"] for one in readings]
        labels = browser.run(
            "return [...document.querySelectorAll('#chart .xtick text')].map((text) => text.textContent)"
        )
        assert any(label.startswith("02:00 +02:00") for label in labels)
        assert any(label.startswith("02:00 +01:00") for label in labels)
        assert browser.console_errors() == []


def test_the_zone_is_chosen_and_stays_chosen(demo_server: DemoServer) -> None:
    demo_server.send(
        "zone-1", [{"sensorType": "level", "ts": AUTUMN_MS + n * MINUTE_MS, "value": n} for n in range(30)]
    )
    also = "span=range&from=2026-10-25T00:00:00Z&to=2026-10-25T00:30:00Z"
    first = "return document.querySelector('#chart .xtick text')?.textContent.slice(0, 5)"
    with Browser.opened(demo_server.url, zone="Asia/Tokyo") as browser:
        looking(browser, demo_server, ("zone-1", "level"), also=also)
        assert "Asia/Tokyo" in browser.text("#zone")
        browser.until(f"return ({first.removeprefix('return ')}) === '09:00'")
        for zone, time_there in (("UTC", "00:00"), ("America/New_York", "20:00"), ("Australia/Adelaide", "10:30")):
            browser.run(
                "const zone = document.getElementById('zone'); zone.value = arguments[0];"
                "zone.dispatchEvent(new Event('change'))",
                zone,
            )
            browser.until(f"return ({first.removeprefix('return ')}) === arguments[0]", time_there)
        browser.driver.refresh()
        browser.until(f"return ({first.removeprefix('return ')}) === '10:30'")
        assert browser.console_errors() == []


def test_long_figures_and_names_are_not_cut_off(demo_server: DemoServer) -> None:
    sensor = "a-very-long-name-of-a-sensor.that-goes-on-and-on-to-its-end-64-x"
    demo_server.send("long-1", every(2, [9007199254740980 + 2 * n for n in range(8)], sensor))
    for window in ({}, {"width": 390, "height": 844, "phone": True}):
        with Browser.opened(demo_server.url, **window) as browser:  # type: ignore[arg-type]
            looking(browser, demo_server, ("long-1", sensor))
            outside = browser.run(
                "const frame = document.getElementById('chart').getBoundingClientRect();"
                "return [...document.querySelectorAll('#chart .ytick text, #chart .annotation-text')]"
                ".filter((text) => { const box = text.getBoundingClientRect();"
                " return box.width === 0 || box.left < frame.left - 1 || box.right > frame.right + 1; })"
                ".map((text) => text.textContent)"
            )
            assert outside == []
            assert browser.run("return document.querySelectorAll('#chart .ytick text').length") > 1
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
            assert sensor in browser.text("#legend")


def many(sensor: str, values: list[Any], *, gap: range = range(0)) -> list[dict[str, Any]]:
    """Return 3,000 readings, two a second, enough to be drawn as buckets; none in the seconds of `gap`."""
    begin = ago(55)
    return [
        {"sensorType": sensor, "ts": begin + 500 * n, "seq": 0, "value": values[n % len(values)]}
        for n in range(3000)
        if n // 2 not in gap
    ]


def test_many_booleans_are_steps_and_shares(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("many-1", many("door", [True] * 900 + [False] * 300))
    looking(browser, demo_server, ("many-1", "door"))
    browser.until("return document.getElementById('resolution').textContent.startsWith('3,000 readings')")
    (curve,) = browser.curves()
    assert (set(curve["y"]), curve["shape"]) == ({0, 1}, "hv")
    assert browser.figures()[0][2] == "on in 80% of the readings"
    assert browser.text("#resolution").startswith("3,000 readings, share that was on of each ")


def test_many_texts_are_a_band_of_states(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("many-2", many("mode", ["idle"] * 900 + ["<i>run</i>"] * 300))
    looking(browser, demo_server, ("many-2", "mode"))
    browser.until("return document.getElementById('resolution').textContent.startsWith('3,000 readings')")
    (band,) = browser.curves()
    assert set(band["text"]) == {"idle", "&lt;i&gt;run&lt;/i&gt;"}
    assert len(band["text"]) < 10, "equal states that follow each other are one"
    assert browser.run("return document.querySelectorAll('#chart i, #legend i').length") == 0
    assert "idle 80%" in browser.figures()[0][2]
    assert "<i>run</i> 20%" in browser.figures()[0][2]


def test_many_of_several_kinds_are_all_shown(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("many-3", many("mixed", [9007199254740993, True, "stop"]))
    looking(browser, demo_server, ("many-3", "mixed"))
    browser.until("return document.getElementById('resolution').textContent.startsWith('3,000 readings')")
    assert [curve["type"] for curve in browser.curves()] == ["scatter", "scatter", "bar"]
    number, boolean, text = browser.figures()
    expected = "3,000 readings, mean and range, share that was on, most frequent text of each "
    assert browser.text("#resolution").startswith(expected)
    assert number[2:5] == ["9,007,199,254,740,993"] * 3
    assert boolean[2] == "on in 100% of the readings"
    assert text[2] == "stop 100%"


def test_the_range_of_buckets_does_not_reach_across_a_gap(browser: Browser, demo_server: DemoServer) -> None:
    gap = range(600, 1000)
    demo_server.send("many-4", many("level", [1, 5, 3], gap=gap))
    looking(browser, demo_server, ("many-4", "level"))
    browser.until("return document.getElementById('resolution').textContent.startsWith('2,200 readings')")
    (curve,) = browser.curves()
    assert len(runs(curve)) == 2
    areas = browser.run(
        "return document.getElementById('chart').data.filter((trace) => trace.fill && !trace.name).map(({x}) => x)"
    )
    begin, end = runs(curve)[0][-1], runs(curve)[1][0]
    assert end - begin > 300_000
    for area in areas:
        for before, after in itertools.pairwise(area):
            assert before is None or after is None or abs(after - before) < end - begin - 60_000


@pytest.mark.parametrize(("sensor", "step"), [("counted", 1), ("steps-of-two", 2)])
def test_a_line_is_not_drawn_across_missing_readings(
    browser: Browser, demo_server: DemoServer, sensor: str, step: int
) -> None:
    begin, late = ago(50), {200: 203.5}
    readings = [
        {"sensorType": sensor, "ts": int(begin + 1000 * late.get(n, n)), "seq": step * n, "value": n}
        for n in range(500)
        if n not in (100, 300, 301)
    ]
    demo_server.send(f"missing-{step}", readings)
    looking(browser, demo_server, (f"missing-{step}", sensor))
    browser.until("return document.getElementById('resolution').textContent.startsWith('497 readings')")
    (curve,) = browser.curves()
    # Numbers that do not count readings say nothing.
    assert [len(run) for run in runs(curve)] == ([100, 199, 198] if step == 1 else [497])


def test_a_range_says_how_many_of_its_readings_arrived(browser: Browser, demo_server: DemoServer) -> None:
    begin = ago(50)
    numbered = [
        {"sensorType": "counted", "ts": begin + 1000 * n, "seq": n, "value": n} for n in range(1000) if n % 100 != 50
    ]
    demo_server.send("many-5", numbered)
    looking(browser, demo_server, ("many-5", "counted"))
    # 0 to 999, of which ten are missing.
    browser.until("return document.getElementById('resolution').textContent.includes('99.0% arrived')")
