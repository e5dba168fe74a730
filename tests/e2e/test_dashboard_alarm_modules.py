"""The dashboard's modules for alarms, in a real browser, with answers that a server would give."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testing.browser import Browser

# Logged in, with answers by path; `sent` has what was asked.
STUB = """
const { keep } = await import("/dashboard/credentials.js");
keep({ accessToken: `x.${btoa('{"scope":"readings:read alarms:manage"}')}.x`, expiresIn: 1e6 }, "ada@example.org");
const sent = [];
const refuse = (status, problem) => ({ status, problem });
const answering = (answers) => {
  window.fetch = async (path, { method = "GET", body } = {}) => {
    const [name, query] = path.split("?");
    const asked = { method, name, query: Object.fromEntries(new URLSearchParams(query)) };
    if (body) asked.body = JSON.parse(body);
    sent.push(asked);
    const found = answers(asked);
    return new Response(JSON.stringify(found?.problem ?? found), { status: found?.status ?? 200 });
  };
};
"""
RULES: list[dict[str, Any]] = [
    {"when": {"op": "above", "value": 80.5}, "hysteresis": 0.5, "severity": "info", "message": "{device} at {ts}"},
    {"when": {"op": "below", "value": -3}, "devices": {"name": "press-*"}, "forSeconds": 90},
    {"when": {"op": "outside", "low": 1, "high": 2.5}, "notify": [{"kind": "feed"}], "severity": "critical"},
    {"when": {"op": "equals", "value": "heating"}},
    {"when": {"op": "equals", "value": "1"}},
    {"when": {"op": "equals", "value": '"quoted"'}},
    {"when": {"op": "equals", "value": " "}},
    {"when": {"op": "equals", "value": True}},
    {"when": {"op": "equals", "value": 9007199254740993}},
    {"when": {"op": "changed"}, "schedule": {"zone": "UTC", "days": ["mon", "sun"], "from": "22:00", "to": "24:00"}},
    {"when": {"op": "rate", "value": 5, "perSeconds": 60}, "notify": [{"kind": "feed"}, {"kind": "email"}]},
    {"when": {"op": "silent"}, "forSeconds": 30, "devices": {"ids": ["gone-1", "gone-2"]}},
    {"when": {"op": "gap"}, "notify": [{"kind": "webhook", "url": f"http://127.0.0.1/{n}"} for n in range(2)]},
]
TEXTS = [
    "t of all devices: above 80.5 (ends 0.5 lower) · notifies nobody",
    "t of press-*: below -3, for 90 s · notifies nobody",
    "t of all devices: outside 1 to 2.5 · notifies live feed",
    "t of all devices: equals heating · notifies nobody",
    't of all devices: equals "1" · notifies nobody',
    't of all devices: equals "\\"quoted\\"" · notifies nobody',
    't of all devices: equals " " · notifies nobody',
    "t of all devices: equals true · notifies nobody",
    "t of all devices: equals 9007199254740993 · notifies nobody",
    "t of all devices: changes · Mon, Sun 22:00–24:00 (UTC) · notifies nobody",
    "t of all devices: changes by more than 5 in 1 min · notifies live feed, e-mail",
    "t of 2 devices: silent for 30 s · notifies nobody",
    "t of all devices: numbers are missing · notifies 2 webhooks",
]
FIELDS = {
    "above": ["value", "hysteresis"],
    "below": ["value", "hysteresis"],
    "outside": ["low", "high", "hysteresis"],
    "equals": ["value"],
    "changed": [],
    "rate": ["value", "perSeconds"],
    "silent": [],
    "gap": [],
}


@pytest.fixture(scope="module")
def window(page: str) -> Iterator[Browser]:
    with Browser.opened(page) as opened:
        yield opened


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The page, loaded anew."""
    window.driver.get(window.url)
    window.run("sessionStorage.clear()")
    window.driver.refresh()
    return window


def ran(browser: Browser, script: str, *arguments: Any) -> Any:
    """Run the body of an asynchronous function in the page; return what it returns."""
    found = browser.driver.execute_async_script(
        f"const done = arguments[arguments.length - 1]; const given = arguments;"
        f"(async () => {{ {STUB} {script} }})().then((value) => done({{ value }}), (error) => done({{ error:"
        " String(error.stack ?? JSON.stringify(error)) }))",
        *arguments,
    )
    assert "error" not in found, found
    return found.get("value")


def test_a_rule_of_every_operation_is_the_same_after_its_form(browser: Browser) -> None:
    rules = [{"name": "r", "devices": "all", "sensorType": "t", "notify": [], **rule} for rule in RULES]
    defaults = {"severity": "warning", "forSeconds": 0, "hysteresis": 0, "schedule": None}
    found = ran(
        browser,
        """
        const [{ parse, stringify }, { RuleFields }, { ruleText }] = await Promise.all(
          ["exact-json", "rule-fields", "rule-text"].map((name) => import(`/dashboard/${name}.js`)),
        );
        document.getElementById("rule-zone").append(new Option("UTC"));
        const picker = { ids: [], show(ids) { this.ids = ids; } };
        const fields = new RuleFields(document.getElementById("rule-form"), picker);
        return parse(given[0]).map((rule) => {
          fields.fill(rule, { zone: "UTC" });
          return [stringify(fields.body()), ruleText(rule)];
        });
        """,
        json.dumps([defaults | rule for rule in rules]),
    )
    for rule, text, (body, shown) in zip(rules, TEXTS, found, strict=True):
        assert json.loads(body) == {"severity": "warning"} | rule
        assert shown == text


def test_the_fields_are_those_of_the_operation(browser: Browser) -> None:
    found = ran(
        browser,
        """
        const { RuleFields } = await import("/dashboard/rule-fields.js");
        const form = document.getElementById("rule-form");
        new RuleFields(form, { ids: [], show() {} }).fill(undefined, { zone: "UTC" });
        return given[0].map((op) => {
          form.elements["when.op"].value = op;
          form.elements["when.op"].dispatchEvent(new Event("change"));
          const shown = [...form.querySelectorAll("[data-part]:not([hidden])")].map((one) => one.dataset.part);
          return [op, shown, form.querySelector("[for=rule-for]").textContent];
        });
        """,
        list(FIELDS),
    )
    assert {op: shown for op, shown, _ in found} == FIELDS
    assert {op for op, _, label in found if label == "After how many seconds"} == {"silent"}


def test_late_readings_and_what_ends_are_spans_of_their_own(browser: Browser) -> None:
    found = ran(
        browser,
        """
        const at = (second) => new Date(second * 1000).toISOString();
        const rows = [
          [1, "pending", "reading", 5], [2, "firing", "reading", 10], [3, "firing", "late", 4], [4, "ok", "late", 4],
          [5, "acknowledged", "owner", 12], [6, "ok", "reading", 20], [7, "firing", "silence", 30],
        ].map(([number, state, cause, second]) => ({ number, state, cause, ts: at(second) }));
        const series = { device: "d", sensorType: "t" };
        const alarm = { id: "a", name: "", severity: "info", ...series, state: "firing", changedAt: at(31) };
        answering(({ name, query: { cursor = 0 } }) => {
          if (name === "/alarms") return { items: [alarm, { ...alarm, id: "b", sensorType: "other" }] };
          const items = rows.filter(({ number }) => number > cursor).slice(0, 4);
          return { items, nextCursor: items.at(-1).number < 7 ? String(items.at(-1).number) : undefined };
        });
        const { AlarmSpans } = await import("/dashboard/alarm-spans.js");
        let changes = 0;
        const spans = new AlarmSpans({ onChanged: () => (changes += 1) });
        spans.keys = new Set(["d\\nt", "<no device>\\nt"]);
        await spans.refresh();
        await spans.refresh();
        spans.try({ name: "tried", severity: "critical", items: [{ ...series, from: 1, to: 2 }] });
        return { shaded: spans.within([{ key: "d\\nt" }], 0, 1e9), sent, changes };
        """,
    )
    shaded, tried = found["shaded"]
    assert (shaded["name"], tried["name"], tried["trial"]) == ("a removed rule", "tried", True)
    spans = [(one["from"], one["to"]) for one in shaded["spans"]]
    assert spans == [(4_000, 4_000), (10_000, 20_000), (30_000, None)]  # Infinity
    histories = [one["query"].get("cursor") for one in found["sent"] if one["name"] == "/alarms/a/history"]
    assert histories == [None, "4"], "what is known is not asked for again"
    assert {one["query"]["device"] for one in found["sent"] if one["name"] == "/alarms"} == {"d"}
    assert {one["name"] for one in found["sent"]} == {"/alarms", "/alarms/a/history"}
    assert found["changes"] == 2


def test_an_alarm_of_the_feed_is_delivered_beside_its_readings(browser: Browser) -> None:
    found = ran(
        browser,
        """
        const kinds = ["reading", "alarm", "other", "reading"];
        const events = kinds.map((kind, n) => `event: ${kind}\\ndata: {"n":${n}}\\n\\n`);
        window.fetch = async () => new Response(new Blob(events).stream());
        const { Feed } = await import("/dashboard/feed.js");
        const got = { readings: [], alarms: [] };
        const both = new Promise((delivered) => {
          const feed = new Feed({
            token: async () => "one",
            onReadings: (readings) => got.readings.push(...readings),
            onAlarms(alarms) {
              got.alarms.push(...alarms);
              feed.stop();
              delivered();
            },
            onState() {},
          });
          feed.run();
        });
        await both;
        return got;
        """,
    )
    assert found == {"readings": [{"n": 0}, {"n": 3}], "alarms": [{"n": 1}]}


def test_e_mail_is_offered_once_its_address_is_confirmed(browser: Browser) -> None:
    steps = ran(
        browser,
        """
        const state = { available: true, email: "ada@example.org", confirmed: false };
        answering(({ name, body }) => {
          if (name === "/alarms/email") return given[0].includes("no such call") ? refuse(404, {}) : state;
          if (name.endsWith("confirmation")) {
            if (state.sentAt) return refuse(429, { detail: "A code can be mailed again in 60 s." });
            state.sentAt = new Date().toISOString();
            return { ...state, status: 202 };
          }
          if (body.code !== "123456") return refuse(422, { errors: [{ field: "code", message: "Not the code." }] });
          state.confirmed = true;
          return state;
        });
        const $ = (id) => document.getElementById(id);
        const { AlarmEmail } = await import("/dashboard/alarm-email.js");
        const email = new AlarmEmail();
        $("rule").showModal();
        const steps = [];
        const look = () => steps.push([
          !$("rule-email-part").hidden, $("rule-email").disabled, $("rule-email").checked,
          $("email-code").checkVisibility(), $("email-message").textContent, document.activeElement.id,
        ]);
        const settled = async (call) => {
          const before = sent.length;
          call();
          while (sent.length === before) await new Promise((done) => setTimeout(done, 5));
          await new Promise((done) => setTimeout(done, 50));
          look();
        };
        const enter = (code) => {
          $("email-code").value = code;
          const pressed = { key: "Enter", cancelable: true, bubbles: true };
          $("email-code").dispatchEvent(new KeyboardEvent("keydown", pressed));
        };
        await settled(() => email.load());
        await settled(() => $("email-send").click());
        await settled(() => $("email-send").click());
        await settled(() => enter("000000"));
        await settled(() => enter(" 123456 "));
        state.available = false;
        await settled(() => email.load());
        given[0].push("no such call");
        await settled(() => email.load());
        return { steps, label: $("rule-email-label").textContent, submitted: location.href };
        """,
        [],
    )
    assert steps["label"] == "E-mail to ada@example.org"
    offered, mailed, again, wrong, confirmed, off, missing = steps["steps"]
    assert offered[:5] == [True, True, False, False, ""]
    assert mailed == [True, True, False, True, "A code is on its way to your address.", "email-code"]
    assert again[4] == "A code can be mailed again in 60 s."
    assert wrong[:5] == [True, True, False, True, "Not the code."]
    assert confirmed == [True, False, True, False, "Your address is confirmed.", "rule-email"]
    assert off[0] is missing[0] is False


def test_the_ledger_goes_on_page_by_page_and_keeps_what_is_shown(browser: Browser) -> None:
    found = ran(
        browser,
        """
        const rows = Array.from({ length: 45 }, (_, n) => ({
          id: String(n), rule: "r", kind: "webhook", target: `https://example.org/${n}`, attempts: n,
          state: n % 2 ? "dead" : "delivered", createdAt: "2026-06-01T12:00:00Z", lastStatus: n % 2 ? "timeout" : "200",
        }));
        answering(({ query: { state, cursor = -1, limit } }) => {
          const all = rows.filter((row) => (!state || row.state === state) && Number(row.id) > cursor);
          const items = all.slice(0, limit);
          return { items, nextCursor: all.length > items.length ? items.at(-1).id : undefined };
        });
        const $ = (id) => document.getElementById(id);
        const { Deliveries } = await import("/dashboard/deliveries.js");
        const ledger = new Deliveries({ nameOf: () => "a rule" });
        const looks = [];
        const look = () => {
          const { children, textContent } = $("deliveries");
          looks.push([children.length, $("deliveries-more").hidden, textContent.includes("Given up")]);
        };
        const until = async (there) => {
          while (!there()) await new Promise((done) => setTimeout(done, 5));
          look();
        };
        await ledger.load();
        look();
        for (const count of [40, 45]) {
          $("deliveries-more").click();
          await until(() => $("deliveries").children.length === count);
        }
        await ledger.load();
        look();
        $("delivery-state").value = "delivered";
        $("delivery-state").dispatchEvent(new Event("change"));
        await until(() => $("deliveries").children.length === 23);
        return { looks, first: $("deliveries").children[0].textContent };
        """,
    )
    assert found["looks"] == [
        [20, False, True],
        [40, False, True],
        [45, True, True],
        [45, True, True],
        [23, True, False],
    ]
    assert found["first"].startswith("Delivered · a rule")
    assert "https://example.org/0 · 0 attempts · answer 200" in found["first"]
