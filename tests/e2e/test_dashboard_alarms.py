"""Alarms on the dashboard, in a real browser on a onebox: rules, what fires, its spans in the chart, and the ledger."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from testing.browser import Browser
from tests.e2e.accessibility import axe, breaches
from tests.e2e.charts import ago, every, looking, shown
from tests.e2e.demo_server import DemoServer
from tests.e2e.webhook_receiver import WebhookReceiver

LISTED = "return document.querySelectorAll('#series li:not(.loading)').length > 0"
FOCUS = "return document.activeElement.id || document.activeElement.innerText"
SHAPES = "return document.getElementById('chart').layout?.shapes ?? []"
FIRING = "return [...document.querySelectorAll('#firing-list li')].map((row) => row.innerText)"
# Only the live feed tells then what has changed: alarms are asked for again every 5 s.
WITHOUT_POLLING = """
const later = window.setTimeout.bind(window);
window.setTimeout = (call, ms, ...rest) => (ms === 5000 ? 0 : later(call, ms, ...rest));
"""


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A onebox that may call this machine's webhooks."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8")
        data = tmp_path_factory.mktemp("alarms") / "data"
        with DemoServer.opened(data, "--devices", "2", "--rate", "2") as opened:
            yield opened


@pytest.fixture(autouse=True)
def without_rules(demo_server: DemoServer) -> Iterator[None]:
    """Remove the rules that a test has made: their alarms end."""
    yield
    for rule in demo_server.call("GET", "/alarms/rules")[1]["items"]:
        demo_server.call("DELETE", f"/alarms/rules/{rule['id']}")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver.opened() as opened:
        yield opened


@pytest.fixture
def browser(demo_server: DemoServer) -> Iterator[Browser]:
    with Browser.opened(demo_server.url) as opened:
        yield opened
        assert unexpected(opened) == []


def unexpected(browser: Browser) -> list[str]:
    """Return the console's errors, except refusals that tests provoke."""
    return [line for line in browser.console_errors() if " 422 " not in line]


def made(demo_server: DemoServer, sensor: str, **fields: Any) -> dict[str, Any]:
    """Make a rule of a sensorType: above 80, unless `fields` say otherwise."""
    body = {"name": f"{sensor} too high", "devices": "all", "sensorType": sensor, "when": {"op": "above", "value": 80}}
    status, rule = demo_server.call("POST", "/alarms/rules", json=body | fields)
    assert status == 201, rule
    found: dict[str, Any] = rule
    return found


def alarms(demo_server: DemoServer, rule: str, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = demo_server.call("GET", "/alarms", params={"rule": rule, "state": state})[1]["items"]
    return found


def fired(
    demo_server: DemoServer, device: str, sensor: str, rule: str, *, high: float = 90, state: str = "firing"
) -> None:
    """Send readings until the rule, which applies from a few seconds after it was made, has an alarm of that state."""
    deadline = time.monotonic() + 60
    for _ in itertools.takewhile(lambda _: not alarms(demo_server, rule, state), itertools.count()):
        assert time.monotonic() < deadline, f"no alarm is {state}"
        demo_server.send(device, [{"sensorType": sensor, "value": high, "unit": "Cel", "ts": ago(0)}])


def press(browser: Browser, *keys: str) -> None:
    """Press keys where the focus is."""
    for key in keys:
        browser.driver.switch_to.active_element.send_keys(key)


def tab_to(browser: Browser, target: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(60):
        if browser.run(FOCUS) == target:
            return
        press(browser, Keys.TAB)
    raise AssertionError(f"{target} is not reached by the keyboard")


def open_form(browser: Browser) -> None:
    """Open the form of a new rule."""
    browser.until(LISTED)
    browser.find("#alarms-open").click()
    browser.until("return document.getElementById('rules-message').innerText !== ''")
    browser.find("#new-rule").click()


def fill(browser: Browser, **fields: str) -> None:
    for name, text in fields.items():
        field = browser.find(f"#rule-{name}")
        if field.tag_name == "select":
            Select(field).select_by_value(text)
            continue
        field.clear()
        field.send_keys(text)


def test_a_rule_is_made_by_keyboard_and_its_alarm_fires_is_acknowledged_and_ends(
    browser: Browser, demo_server: DemoServer, receiver: WebhookReceiver
) -> None:
    values = [*[60.0] * 10, *[90.0] * 5, *[60.0] * 5]
    demo_server.send("oven-1", every(1, values, "heat", back=40, unit="Cel"))
    looking(browser, demo_server, ("oven-1", "heat"))
    assert not browser.find("#firing").is_displayed()
    browser.run("document.getElementById('chart-card').focus()")
    tab_to(browser, "alarms-open")
    press(browser, Keys.ENTER)
    browser.until("return document.getElementById('rules-message').innerText.startsWith('None yet.')")
    tab_to(browser, "new-rule")
    press(browser, Keys.ENTER)
    assert browser.run(FOCUS) == "rule-name"
    assert browser.find("#rule-sensor").get_attribute("value") == "heat"  # of the series in the chart
    press(browser, "oven too hot")
    for field, text in (("severity", "c"), ("which", "b"), ("pattern", "oven-*"), ("value", "80"), ("hysteresis", "2")):
        tab_to(browser, f"rule-{field}")
        press(browser, text)
    tab_to(browser, "rule-webhooks")
    press(browser, receiver.url)
    tab_to(browser, "rule-try")
    assert browser.text("#rule-save") == "Save without trying"
    press(browser, Keys.ENTER)
    browser.until("return !document.getElementById('trial').hidden")
    assert browser.text("#trial-result") == "It would have fired once in the last day, in 20 readings of 1 series."
    assert browser.text("#trial-list").startswith("oven-1: ")
    assert browser.run(FOCUS) == "trial-result"
    (shape,) = browser.run(SHAPES)
    assert shape["x1"] - shape["x0"] == 5 * 60_000  # from the first high reading to the first low one
    assert browser.text("#shaded").startswith("Critical")
    assert "Trial of oven too hot: oven-1 · heat" in browser.text("#shaded")
    tab_to(browser, "rule-save")
    assert browser.text("#rule-save") == "Save"
    press(browser, Keys.ENTER)
    browser.until("return document.getElementById('secret').innerText.startsWith('whsec_')")
    assert browser.run(FOCUS) == "copy-secret"
    assert "heat of oven-*: above 80 (ends 2 lower) · notifies live feed, webhook" in browser.text("#rules")
    assert browser.run(SHAPES) == []
    press(browser, Keys.ESCAPE)
    browser.until("return !document.getElementById('alarms').open")
    assert browser.run(FOCUS) == "alarms-open"
    assert browser.run("return document.getElementById('secret').textContent") == ""

    (rule,) = demo_server.call("GET", "/alarms/rules")[1]["items"]
    assert rule["notify"] == [{"kind": "feed"}, {"kind": "webhook", "url": receiver.url}]
    fired(demo_server, "oven-1", "heat", rule["id"])
    (row,) = browser.until(f"const rows = (() => {{ {FIRING} }})(); return rows.length && rows")
    for said in ("Critical", "oven too hot", "oven-1 · heat", "now 90 Cel", "since "):
        assert said in row
    assert browser.text("#firing-title") == "1 alarm firing"
    assert browser.run("return document.getElementById('firing-said').textContent") == (
        "Alarm firing: oven too hot, oven-1, heat."
    )
    browser.run("document.querySelector('#firing .name').focus()")
    press(browser, Keys.TAB)
    assert browser.run(FOCUS) == "Acknowledge"
    press(browser, Keys.ENTER)
    browser.until("return document.getElementById('firing-title').innerText === '1 alarm acknowledged'")
    browser.until("return document.activeElement.id === 'firing-title'")
    assert len(alarms(demo_server, rule["id"], "acknowledged")) == 1
    (shape,) = browser.until(f"const shapes = (() => {{ {SHAPES} }})(); return shapes.length && shapes")
    assert shape["line"]["dash"] == "solid"
    assert "oven too hot: oven-1 · heat, since " in browser.text("#shaded")

    fired(demo_server, "oven-1", "heat", rule["id"], high=60, state="ok")
    browser.until("return document.getElementById('firing').hidden")
    assert "Alarm ended: oven too hot" in browser.run("return document.getElementById('firing-said').textContent")
    browser.until("return !document.getElementById('shaded').innerText.includes('since ')")
    assert "oven too hot: oven-1 · heat, " in browser.text("#shaded")
    browser.find("#alarms-open").click()
    browser.find("[data-pane='ledger']").click()
    browser.until("return document.querySelectorAll('#deliveries .dot.on').length === 3")
    ledger = browser.text("#deliveries")
    assert "Delivered · oven too hot\n" in ledger
    assert f"{receiver.url} · 1 attempt · answer 200 · delivered " in ledger
    assert [body["type"] for _, body in receiver.received] == ["alarm.firing", "alarm.acknowledged", "alarm.ok"]


def test_where_a_rule_would_have_fired_is_looked_at_in_the_chart_before_it_is_saved(
    browser: Browser, demo_server: DemoServer
) -> None:
    demo_server.send("kiln-1", every(1, [10, 20, 10], "glow"))
    browser.log_in(demo_server.person["email"], demo_server.person["password"])
    open_form(browser)
    fill(browser, name="glows", sensor="glow", op="equals", value="20")
    browser.find("#rule-try").click()
    browser.until("return !document.getElementById('trial').hidden")
    browser.find("#trial-look").click()
    browser.until("return document.querySelectorAll('dialog[open]').length === 0")
    browser.until("return document.getElementById('shaded').innerText.includes('Trial of glows: kiln-1 · glow')")
    assert browser.run(FOCUS) == "trial-back"
    assert browser.find("[data-span='24h']").get_attribute("aria-pressed") == "true"
    assert len(browser.run(SHAPES)) == 1
    press(browser, Keys.ENTER)
    assert browser.find("#rule-name").get_attribute("value") == "glows"
    assert browser.run(FOCUS) == "rule-save"
    # Another rule is not the one that was tried.
    fill(browser, value="21")
    assert browser.text("#rule-save") == "Save without trying"
    assert not browser.find("#trial").is_displayed()
    assert browser.run(SHAPES) == []
    browser.find("#rule-try").click()
    browser.until("return !document.getElementById('trial').hidden")
    assert browser.text("#trial-result") == "It would not have fired in the last day, in 3 readings of 1 series."
    assert not browser.find("#trial-look").is_displayed()
    press(browser, Keys.ESCAPE)
    browser.until("return !document.getElementById('rule').open")
    assert browser.run(FOCUS) == "new-rule"
    assert demo_server.call("GET", "/alarms/rules")[1]["items"] == []


def test_errors_are_shown_at_their_fields_and_a_rule_is_changed(logged_in: Browser, demo_server: DemoServer) -> None:
    open_form(logged_in)
    fill(logged_in, op="outside", sensor="level", low="3", high="zwei")
    logged_in.find("#rule-try").click()
    logged_in.until("return document.activeElement.id === 'rule-high'")
    assert logged_in.text("#rule-high-error") == "Write a number, as in 80 or 0.5."
    fill(logged_in, name="x", high="2", webhooks="https://example.org/a\nftp://example.org/b", message="{nothing}")
    logged_in.run("document.querySelector('[name=scheduled]').click()")
    fill(logged_in, begin="22:00", end="25:00")
    fill(logged_in, which="ids")
    fill(logged_in, device="no such device")
    press(logged_in, Keys.ENTER)
    logged_in.until(
        "return document.getElementById('rule-device-error').innerText === 'No device has this name or id.'"
    )
    fill(logged_in, device="sim-0002")
    press(logged_in, Keys.ENTER)
    logged_in.until("return document.getElementById('rule-devices').innerText.includes('sim-0002')")
    logged_in.find("#rule-save").click()
    logged_in.until("return document.getElementById('rule-webhooks-error').innerText !== ''")
    assert logged_in.text("#rule-webhooks-error").startswith("Line 2: This must be an address")
    assert logged_in.text("#rule-high-error") == "This must be at least `low`."
    assert logged_in.text("#rule-end-error").startswith("This must be a time of day")
    assert logged_in.text("#rule-message-error").startswith("There is no {nothing}")
    assert logged_in.run(FOCUS) == "rule-high"
    # Nothing is put in their place, and the rule is saved once it makes sense.
    fill(logged_in, high="30", webhooks="https://example.org/a", message="{value}", end="06:00")
    logged_in.find("#rule-save").click()
    logged_in.until("return !document.getElementById('rule').open")
    logged_in.until("return document.getElementById('rules').innerText.includes('outside 3 to 30 · Mon, Tue, Wed')")
    (before,) = demo_server.call("GET", "/alarms/rules")[1]["items"]
    logged_in.find("#rules [aria-label='Change x']").click()
    assert logged_in.text("#rule-title") == "Change the rule"
    fill(logged_in, name="y")
    logged_in.find("#rule-save").click()
    logged_in.until("return document.activeElement.getAttribute('aria-label') === 'Change y'")
    (after,) = demo_server.call("GET", "/alarms/rules")[1]["items"]
    assert after == before | {"name": "y", "changedAt": after["changedAt"]}


def test_a_secret_is_replaced_and_a_rule_removed_once_that_is_confirmed(
    logged_in: Browser, demo_server: DemoServer
) -> None:
    rule = made(demo_server, "noise", notify=[{"kind": "webhook", "url": "https://example.org/a"}])
    logged_in.until(LISTED)
    logged_in.find("#alarms-open").click()
    logged_in.until("return document.querySelectorAll('#rules li').length === 1")
    logged_in.find("[aria-label='New secret for noise too high']").click()
    assert "signed with both" in logged_in.text("#confirm")
    logged_in.find("#confirm-yes").click()
    secret = logged_in.until("return document.getElementById('secret').innerText")
    assert secret.startswith("whsec_")
    assert secret != rule["secret"]
    logged_in.find("[aria-label='Remove noise too high']").click()
    logged_in.find("#confirm [data-close]").click()
    assert len(demo_server.call("GET", "/alarms/rules")[1]["items"]) == 1
    logged_in.find("[aria-label='Remove noise too high']").click()
    logged_in.find("#confirm-yes").click()
    logged_in.until("return document.querySelectorAll('#rules li').length === 0")
    assert logged_in.run("return document.getElementById('secret').textContent") == ""
    assert demo_server.call("GET", "/alarms/rules")[1]["items"] == []


def test_what_was_given_up_is_replayed_from_the_ledger(
    logged_in: Browser, demo_server: DemoServer, receiver: WebhookReceiver
) -> None:
    receiver.status = 410  # ends it at once
    rule = made(demo_server, "flap", notify=[{"kind": "webhook", "url": receiver.url}])
    fired(demo_server, "pump-1", "flap", rule["id"])
    logged_in.until(LISTED)
    logged_in.find("#alarms-open").click()
    logged_in.find("[data-pane='ledger']").click()
    Select(logged_in.find("#delivery-state")).select_by_value("dead")
    row = "document.querySelector('#deliveries li')"
    logged_in.until(f"return {row}?.innerText.startsWith('Given up · flap too high')")
    assert f"{receiver.url} · 1 attempt · answer 410 · given up " in logged_in.text("#deliveries li")
    receiver.status = 200
    key = logged_in.run(f"return {row}.dataset.key")
    logged_in.find("#deliveries button").send_keys(Keys.ENTER)
    logged_in.until("return document.getElementById('deliveries-message').innerText === 'It is delivered again.'")
    logged_in.until("return document.activeElement.id === 'delivery-state'")
    Select(logged_in.find("#delivery-state")).select_by_value("delivered")
    logged_in.until(f"return {row}?.dataset.key === arguments[0]", key)
    assert [one for one, _ in receiver.received] == [key, key]


def test_alarms_of_the_live_feed_are_shown_at_once_by_severity_and_one_shows_its_series(
    demo_server: DemoServer,
) -> None:
    feed = [{"kind": "feed"}]
    severities = ("info", "critical", "warning")
    rules = [made(demo_server, "sorted", name=one, severity=one, notify=feed) for one in severities]
    with Browser.opened(demo_server.url, before=WITHOUT_POLLING) as browser:
        browser.log_in(demo_server.person["email"], demo_server.person["password"])
        browser.until("return document.getElementById('feed-text').innerText === 'live'")
        for rule in rules:
            fired(demo_server, "vat-1", "sorted", rule["id"])
        names = "String([...document.querySelectorAll('#firing .name')].map((one) => one.innerText))"
        browser.until(f"return {names} === 'critical,warning,info'")
        alarm = alarms(demo_server, rules[1]["id"], "firing")[0]["id"]
        demo_server.call("POST", f"/alarms/{alarm}/acknowledge")
        browser.until(f"return {names} === 'warning,info,critical'")
        assert browser.text("#firing-title") == "2 alarms firing, 1 acknowledged"
        browser.find("#firing .name").click()
        browser.until("return location.hash.includes('series=vat-1/sorted')")
        browser.until(f"return (() => {{ {SHAPES} }})().length === 3")
        dashes = browser.run("return document.getElementById('chart').layout.shapes.map(({ line }) => line.dash)")
        assert sorted(dashes) == ["dash", "dot", "solid"]
        browser.until(
            "const { right, y, height } = document.querySelector('.nsewdrag').getBoundingClientRect();"
            "document.getElementById('chart').dispatchEvent(new PointerEvent('pointermove',"
            " { clientX: right - 2, clientY: y + height / 2 }));"
            "return document.getElementById('chart-hover').innerText.includes('Firing: critical (critical), vat-1')"
        )
        assert unexpected(browser) == []


def test_a_shared_view_offers_nothing_that_its_key_may_not_do(demo_server: DemoServer) -> None:
    rule = made(demo_server, "shared")
    fired(demo_server, "dam-1", "shared", rule["id"])
    for scope in (["readings:read"], ["readings:read", "alarms:manage"]):
        _, key = demo_server.call("POST", "/keys", json={"name": "a colleague", "scope": scope})
        with Browser.opened(f"{shown(demo_server, ('dam-1', 'shared'))}&key={key['key']}") as browser:
            browser.until("return document.getElementById('chart').data?.length > 0")
            assert not browser.find("#alarms-open").is_displayed()
            if "alarms:manage" in scope:
                browser.until("return document.getElementById('firing-list').innerText.includes('shared too high')")
                browser.until(f"return (() => {{ {SHAPES} }})().length === 1")
                assert [button.is_displayed() for button in browser.find_all("#firing .acknowledge")] == [False]
            else:
                asked = "performance.getEntriesByType('resource').some(({ name }) => name.includes('/alarms'))"
                assert browser.run(f"return {asked}") is False
                assert not browser.find("#firing").is_displayed()
            assert browser.console_errors() == []


# What is wider than its box, and which targets are smaller than WCAG 2.2 asks for.
FITS = """
const root = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.documentElement;
const visible = [...document.querySelectorAll("button, input, select, textarea, summary")].filter((one) => {
  const { width, height } = one.getBoundingClientRect();
  return width && height && (root === document.documentElement ? one.closest(".firing") : root.contains(one));
});
const small = visible.filter((one) => {
  const { height } = (one.closest("label") ?? one).getBoundingClientRect();
  return height < 24;
});
return [root.scrollWidth - root.clientWidth, small.map((one) => one.outerHTML), visible.length > 1];
"""


def test_axe_finds_nothing_and_nothing_overflows(demo_server: DemoServer, receiver: WebhookReceiver) -> None:
    receiver.status = 410
    hook = {"kind": "webhook", "url": f"{receiver.url}/{'x' * 90}"}
    rule = made(demo_server, "axe", severity="critical", notify=[hook])
    fired(demo_server, "mill-1", "axe", rule["id"])
    windows: tuple[dict[str, Any], ...] = ({"dark": True}, {"width": 360, "height": 740, "phone": True})
    for window in windows:
        with Browser.opened(shown(demo_server, ("mill-1", "axe")), before=axe(), **window) as browser:
            browser.log_in(demo_server.person["email"], demo_server.person["password"])
            look_everywhere(browser)
            assert unexpected(browser) == []


def look_everywhere(browser: Browser) -> None:
    """Look at every part of the page that is about alarms."""

    def is_fine() -> None:
        assert breaches(browser) == []
        assert browser.run(FITS) == [0, [], True]

    browser.until("return !document.getElementById('shaded').hidden && !document.getElementById('firing').hidden")
    is_fine()
    browser.find("#alarms-open").click()
    browser.until("return document.querySelectorAll('#rules li').length === 1")
    is_fine()
    browser.find("[data-pane='ledger']").click()
    browser.until("return document.querySelectorAll('#deliveries .dot.bad').length > 0")
    is_fine()
    browser.find("[data-pane='rules']").click()
    browser.find("#new-rule").click()
    browser.run("document.querySelector('[name=scheduled]').click()")
    fill(browser, name="x", which="ids", op="outside", low="1", high="70", begin="00:00", end="24:00")
    browser.until("return document.getElementById('rule-devices').innerText.includes('mill-1')")
    browser.run("for (const box of document.querySelectorAll('[name=\"schedule.days\"]')) box.checked = true")
    browser.find("#rule-try").click()
    browser.until("return !document.getElementById('trial').hidden")
    is_fine()
