"""The time range in a real browser: moving, kept in the URL, selected, downloaded."""

import csv
import io
import time
from datetime import UTC, datetime

import pytest
from selenium.webdriver.common.keys import Keys

from testing.browser import Browser
from tests.e2e.charts import ago, every, looking
from tests.e2e.demo_server import DemoServer

RESOLUTION = "document.getElementById('resolution').textContent"


def downloaded(browser: Browser, name: str) -> str:
    """Wait for a file saved by the browser, and return its content."""
    file = browser.downloads / name
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline, "nothing was downloaded"
        time.sleep(0.1)
    return file.read_bytes().decode()


def test_spans_move_on_by_themselves_and_say_as_of_when(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("moves-1", every(1, [1.0, 2.0], "level"))
    looking(browser, demo_server, ("moves-1", "level"), also="span=1h")
    assert browser.text("#chart-title") == "The last hour"
    first = browser.until(f"return {RESOLUTION}.includes('as of') && {RESOLUTION}")
    low = browser.run("return document.getElementById('chart').layout.xaxis.range[0]")
    demo_server.send("moves-1", [{"sensorType": "level", "ts": ago(0), "seq": 0, "value": 3}])
    browser.until("return document.getElementById('chart').data.some((trace) => trace.y.at(-1) === 3)", within_s=40)
    assert browser.run(f"return {RESOLUTION}") != first
    assert browser.run("return document.getElementById('chart').layout.xaxis.range[0]") > low + 2000


@pytest.mark.parametrize(("span", "title"), [("24h", "The last 24 hours"), ("7d", "The last 7 days"), ("all", None)])
def test_every_span_says_as_of_when(browser: Browser, demo_server: DemoServer, span: str, title: str | None) -> None:
    demo_server.send("moves-2", every(1, [1.0, 2.0], "level"))
    looking(browser, demo_server, ("moves-2", "level"), also=f"span={span}")
    assert browser.until(f"return {RESOLUTION}.includes('as of')")
    assert title is None or browser.text("#chart-title") == title


@pytest.mark.parametrize(("begin", "end"), [("-271821-04-20", "2026-01-01"), ("2026-01-01", "%2B275760-09-13")])
def test_an_address_of_all_times_is_shown_and_can_be_left(
    browser: Browser, demo_server: DemoServer, begin: str, end: str
) -> None:
    device = f"ages{begin[:5]}"
    demo_server.send(device, every(1, [1.0], "level"))
    browser.driver.get(f"{demo_server.url}/#series={device}/level&span=range&from={begin}T00:00:00Z&to={end}T00:00:00Z")
    browser.driver.refresh()
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    browser.until("return document.getElementById('chart-title').textContent.includes('2026')")
    for _ in range(3):
        browser.find("[data-move='out']").click()
    browser.find("[data-move='earlier']").click()
    browser.find("[data-span='1h']").click()
    browser.until("return document.getElementById('chart').data?.some((trace) => trace.y.length === 1)")
    assert browser.until(f"return {RESOLUTION}.includes('as of') && {RESOLUTION}").startswith("1 reading · as of")


def test_choice_range_and_zone_are_in_the_address_and_survive_a_reload(
    browser: Browser, demo_server: DemoServer
) -> None:
    for number in (1, 2):
        demo_server.send(f"kept-{number}", every(1, [1.0, 2.0], "level"))
    looking(browser, demo_server, ("kept-1", "level"), ("kept-2", "level"), also="span=24h&zone=UTC")
    browser.find("[data-move='in']").click()
    browser.until("return location.hash.includes('span=range')")
    half_a_day = (
        "const [low, high] = document.getElementById('chart').layout.xaxis.range; return high - low === 43200000"
    )
    browser.until(half_a_day)
    address = browser.run("return location.hash")
    seen = browser.run("return document.getElementById('chart').layout.xaxis.range")
    browser.driver.refresh()
    browser.until("return document.getElementById('legend').rows.length === 2")
    assert browser.run("return location.hash") == address
    browser.until(half_a_day)
    assert browser.run("return document.getElementById('chart').layout.xaxis.range") == pytest.approx(seen, abs=1)
    assert browser.run("return document.getElementById('zone').value") == "UTC"
    assert {row[0] for row in browser.figures()} == {"kept-1 · level", "kept-2 · level"}
    browser.find("[data-span='1h']").click()
    browser.until("return location.hash.includes('span=1h') && !location.hash.includes('from=')")
    # A link to another fragment of the same page, and to another series.
    browser.run("location.hash = arguments[0]", address.replace("series=kept-2/level&", ""))
    browser.until("return document.getElementById('legend').rows.length === 1")
    browser.until("return document.getElementById('zone').value === 'UTC'")
    browser.until("return !document.querySelector('[data-span][aria-pressed=true]')")


@pytest.mark.parametrize(
    "fragment",
    ["%", "span=range&from=x&to=y", "series=a&series=/&series=%E0/b", "zone=Mars%2FOlympus", "span=range&from=2&to=1"],
)
def test_an_address_that_makes_no_sense_opens_the_page_all_the_same(
    browser: Browser, demo_server: DemoServer, fragment: str
) -> None:
    browser.driver.get(f"{demo_server.url}/#{fragment}")
    browser.driver.refresh()
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    browser.until("return document.getElementById('chart').data?.length > 0")
    if "zone" in fragment:
        assert "Mars/Olympus" in browser.text("#chart-message")


def test_the_ninth_series_is_refused_by_a_message_that_stays(browser: Browser, demo_server: DemoServer) -> None:
    sensors = [f"sensor-{number}" for number in range(9)]
    for sensor in sensors:
        demo_server.send("nine-1", every(1, [1.0], sensor))
    looking(browser, demo_server, *(("nine-1", sensor) for sensor in sensors[:8]))
    browser.until("return document.getElementById('legend').rows.length === 8")
    browser.search("nine-1 sensor-8")
    browser.until("return document.querySelectorAll('#series li').length === 1")
    browser.until("return document.querySelector('#series li').innerText.includes('sensor-8')")
    browser.find("#series input").click()
    browser.until("return document.getElementById('list-message').innerText.includes('At most 8')")
    drawn = browser.run("window.draws = 0; const react = Plotly.react; Plotly.react = (...all) => {"
                        " window.draws += 1; return react(...all); }; return 0")  # fmt: skip
    assert drawn == 0
    browser.until("return window.draws > 0", within_s=40)  # it was reloaded meanwhile
    assert "At most 8" in browser.text("#list-message")
    assert len(browser.figures()) == 8


def test_from_and_to_are_picked_in_the_zone_that_is_chosen(demo_server: DemoServer) -> None:
    begin = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp() * 1000)
    demo_server.send(
        "picked-1", [{"sensorType": "level", "ts": begin + n * 600_000, "seq": 0, "value": n} for n in range(-12, 18)]
    )
    with Browser.opened(demo_server.url, zone="America/New_York") as browser:
        looking(browser, demo_server, ("picked-1", "level"), also="span=all&zone=Europe/Berlin")
        browser.find("#range").click()
        assert browser.text("#range-zone") == "Europe/Berlin"
        for name, value in (("from", "2026-10-25T02:00:00"), ("to", "2026-10-25T02:30:00")):
            browser.run("document.getElementById(arguments[0]).value = arguments[1]", name, value)
        browser.find("#range-form button").click()
        # From the first two o'clock to the second half past two.
        browser.until(
            "const {range} = document.getElementById('chart').layout.xaxis; return range[0] === arguments[0]"
            " && range[1] === arguments[1]",
            begin,
            begin + 5_400_000,
        )
        browser.until("return document.getElementById('chart').data[0].x.length === 9")
        assert "from=2026-10-25T00:00:00.000Z&to=2026-10-25T01:30:00.000Z" in browser.run("return location.hash")
        browser.find("#range").click()
        assert browser.run("return document.getElementById('from').value") == "2026-10-25T02:00"
        browser.run("document.getElementById('from').value = '2026-10-26T02:00'")
        browser.find("#range-form button").click()
        assert "before" in browser.text("#range-error")
        browser.find("#from").send_keys(Keys.ESCAPE)
        assert (
            browser.run("return document.getElementById('range-form').hidden && document.activeElement.id") == "range"
        )
        assert browser.console_errors() == []


def test_what_is_downloaded_is_whole_and_safe_to_open(browser: Browser, demo_server: DemoServer) -> None:
    readings = every(1, ['=HYPERLINK("https://example.org")', "plain", "-1+1"], "note")
    demo_server.send("file-1", readings)
    looking(browser, demo_server, ("file-1", "note"))
    browser.find("#download").click()
    text = downloaded(browser, "file-1_note.csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["value"] for row in rows] == ['\'=HYPERLINK("https://example.org")', "plain", "'-1+1"]
    assert "# end" not in text
    assert browser.until("return document.getElementById('download').innerText") == "Download CSV"


def test_a_download_that_is_cut_off_saves_nothing_and_says_so(browser: Browser, demo_server: DemoServer) -> None:
    """Also when a proxy makes a truncated response look complete."""
    demo_server.send("file-2", every(1, [1.0, 2.0], "level"))
    looking(browser, demo_server, ("file-2", "level"))
    browser.run(
        "const real = fetch; window.fetch = async (address, ...rest) => {"
        " if (!String(address).includes('format=csv')) return real(address, ...rest);"
        " const text = await (await real(address, ...rest)).text();"
        " return new Response(text.replace(/# end .*/s, '')); }"
    )
    browser.find("#download").click()
    browser.until("return document.getElementById('chart-message').innerText.includes('cut off')")
    assert not list(browser.downloads.glob("*"))


def test_a_large_download_says_how_far_it_is_and_can_be_cancelled(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("file-3", every(1, [1.0, 2.0], "level"))
    looking(browser, demo_server, ("file-3", "level"))
    browser.run(
        "const real = fetch; window.fetch = async (address, options) => {"
        " if (!String(address).includes('format=csv')) return real(address, options);"
        " const line = new TextEncoder().encode('a,b,2026-01-01T00:00:00.000Z,0,1,,,,\\r\\n');"
        " return new Response(new ReadableStream({async pull(controller) {"
        "  options.signal.throwIfAborted(); controller.enqueue(line);"
        "  await new Promise((done) => setTimeout(done, 20)); }})); }"
    )
    browser.find("#download").click()
    browser.until("return /: [1-9]\\d* readings/.test(document.getElementById('chart-message').innerText)")
    assert browser.text("#download") == "Cancel"
    browser.find("#download").click()
    browser.until("return document.getElementById('chart-message').innerText.includes('cancelled')")
    assert browser.text("#download") == "Download CSV"
    assert not list(browser.downloads.glob("*"))


def test_the_reading_under_the_pointer_is_shown_with_its_time_and_offset(
    browser: Browser, demo_server: DemoServer
) -> None:
    demo_server.send("pointed-1", every(10, [123456.78], "money", unit="€"))
    looking(browser, demo_server, ("pointed-1", "money"), also="span=1h&zone=Europe/Berlin")
    x, y = browser.run(
        "const {left, top, width, height} = document.querySelector('#chart .points path').getBoundingClientRect();"
        "return [left + width / 2, top + height / 2]"
    )
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x + 3, "y": y})
    told = browser.until("return document.getElementById('chart-hover').innerText")
    assert "pointed-1: 123,456.78 €" in told
    when, said = browser.run(
        "return [...document.querySelectorAll('#chart-hover > *')].map((line) => line.getBoundingClientRect().toJSON())"
    )
    assert said["top"] >= when["bottom"] - 1, "lines lie over each other"
    assert "GMT+" in told


def test_a_span_without_readings_says_so(browser: Browser, demo_server: DemoServer) -> None:
    demo_server.send("empty-1", every(1, [1.0], "level"))
    looking(browser, demo_server, ("empty-1", "level"), also="span=1h")
    browser.find("[data-span='live']").click()
    browser.until(
        "return document.getElementById('chart-message').innerText.startsWith('No readings in the last five')"
    )
    browser.search("empty-1")
    browser.until("return document.querySelectorAll('#series input:checked').length === 1")
    browser.run("document.querySelector('#series input:checked').click()")
    browser.until("return document.getElementById('chart-message').innerText.startsWith('Choose a series')")
    browser.run("document.querySelector('#series input').click()")
    browser.find("[data-span='all']").click()
    browser.until("return document.getElementById('chart-message').innerText === ''")
