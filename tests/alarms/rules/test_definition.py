"""Rules as owners write them: each wrong field gets its own error."""

from typing import Any

import msgspec
import pytest

from alarms.rules.definition import changed_definition, checked_definition
from runtime.http.problems import Problem
from tests.alarms.making import GIVEN, definition

HOURS = {"zone": "Europe/Berlin", "days": ["mon"], "from": "08:00", "to": "18:00"}
SILENT = {"when": {"op": "silent"}}
HUGE = 10**400


def fields_of(problem: Problem) -> dict[str, str]:
    assert problem.status == 422
    return {error.field: error.code for error in problem.errors}


def wrong_fields(**changes: Any) -> dict[str, str]:
    """Return the wrong fields, with their codes; a change to None removes the field."""
    given = {name: value for name, value in (GIVEN | changes).items() if value is not None}
    with pytest.raises(Problem) as raised:
        checked_definition(given)
    return fields_of(raised.value)


def webhook(url: str) -> dict[str, Any]:
    return {"notify": [{"kind": "webhook", "url": url}]}


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"name": None}, "name", "missing"),
        ({"name": ""}, "name", "invalid"),
        ({"name": "a\nb"}, "name", "invalid"),
        ({"severity": "bad"}, "severity", "invalid"),
        ({"devices": None}, "devices", "missing"),
        ({"devices": "some"}, "devices", "invalid"),
        ({"devices": {}}, "devices", "invalid"),
        ({"devices": {"ids": ["a"], "name": "a*"}}, "devices", "invalid"),
        ({"devices": {"ids": []}}, "devices.ids", "invalid"),
        ({"devices": {"ids": ["ok", "not ok"]}}, "devices.ids[1]", "invalid"),
        ({"devices": {"name": "a?"}}, "devices.name", "invalid"),
        ({"sensorType": "a b"}, "sensorType", "invalid"),
        ({"when": None}, "when", "missing"),
        ({"when": {"op": "near"}}, "when.op", "invalid"),
        ({"when": {"op": "above"}}, "when.value", "missing"),
        ({"when": {"op": "above", "value": True}}, "when.value", "invalid"),
        ({"when": {"op": "above", "value": "80"}}, "when.value", "invalid"),
        ({"when": {"op": "above", "value": HUGE}}, "when.value", "invalid"),
        ({"when": {"op": "equals", "value": HUGE}}, "when.value", "invalid"),
        ({"when": {"op": "above", "value": 1, "low": 0}}, "when.low", "invalid"),
        ({"when": {"op": "outside", "low": 0}}, "when.high", "missing"),
        ({"when": {"op": "outside", "low": 3, "high": 1}}, "when.high", "invalid"),
        ({"when": {"op": "rate", "value": 1}}, "when.perSeconds", "missing"),
        ({"when": {"op": "rate", "value": 1, "perSeconds": 0}}, "when.perSeconds", "invalid"),
        ({"when": {"op": "changed", "value": 1}}, "when.value", "invalid"),
        ({"when": {"op": "equals", "value": "x" * 257}}, "when.value", "invalid"),
        ({"when": {"op": "equals", "value": [1]}}, "when.value", "invalid"),
        ({"forSeconds": -1}, "forSeconds", "invalid"),
        ({"forSeconds": 604_801}, "forSeconds", "invalid"),
        (SILENT, "forSeconds", "missing"),
        ({"hysteresis": -1}, "hysteresis", "invalid"),
        ({"when": {"op": "changed"}, "hysteresis": 1}, "hysteresis", "invalid"),
        # No value would end its alarms.
        ({"when": {"op": "outside", "low": 0, "high": 10}, "hysteresis": 5.1}, "hysteresis", "invalid"),
        ({"devices": {"ids": [f"{number:064}" for number in range(979)]}}, "devices", "invalid"),
        ({"notify": [{"kind": "email"}, {"kind": "feed"}, {"kind": "email"}]}, "notify[2]", "repeated"),
        ({"notify": 2 * webhook("https://example.org/hook")["notify"]}, "notify[1]", "repeated"),
        ({"schedule": HOURS | {"zone": "Mars"}}, "schedule.zone", "invalid"),
        ({"schedule": HOURS | {"zone": "../etc/passwd"}}, "schedule.zone", "invalid"),
        ({"schedule": HOURS | {"days": []}}, "schedule.days", "invalid"),
        ({"schedule": HOURS | {"days": ["Monday"]}}, "schedule.days[0]", "invalid"),
        ({"schedule": HOURS | {"from": "8"}}, "schedule.from", "invalid"),
        ({"schedule": HOURS | {"to": "24:01"}}, "schedule.to", "invalid"),
        ({"notify": [{"kind": "sms"}]}, "notify[0].kind", "invalid"),
        ({"notify": [{"kind": "webhook"}]}, "notify[0].url", "missing"),
        ({"notify": [{"kind": "feed"}, {"kind": "feed", "url": "https://a.org"}]}, "notify[1].url", "invalid"),
        ({"notify": [{"kind": "feed"}] * 11}, "notify", "invalid"),
        ({"message": "{device} {time}"}, "message", "invalid"),
        ({"message": "x" * 501}, "message", "invalid"),
        ({"bogus": 1}, "bogus", "unknown"),
        ({"when": {"op": "changed", "bogus": 1}}, "when.bogus", "unknown"),
    ],
    ids=lambda part: str(part)[:60],
)
def test_a_wrong_field_has_an_error_of_its_own(changes: dict[str, Any], field: str, code: str) -> None:
    assert wrong_fields(**changes) == {field: code}


def test_all_that_makes_no_sense_is_named_at_once() -> None:
    changes = {"devices": {}, "when": {"op": "outside", "value": 1}, "message": "{x}", "schedule": HOURS | {"to": "x"}}
    assert set(wrong_fields(**changes)) == {
        "devices", "when.value", "when.low", "when.high", "schedule.to", "message",
    }  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "//example.org/",
        "example.org",
        "https://",
        "https:///path",
        "https://ada@example.org/",
        "https://ada:secret@example.org/",
        "https://example.org/#part",
        "https://example.org:0/",
        "https://example.org:70000/",
        "https://example.org/a b",
        "https://exämple.org/",
        "https://[::1/",
        "https://example.org/" + "x" * 2000,
    ],
)
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    assert wrong_fields(**webhook(url)) == {"notify[0].url": "invalid"}


@pytest.mark.parametrize("url", ["https://example.org", "http://example.org:8080/a?b=c", "https://[2600::1]/hook"])
def test_addresses_of_webhooks(url: str) -> None:
    assert definition(**webhook(url)).webhooks == [url]


def test_a_change_replaces_what_it_names_and_null_is_the_default() -> None:
    more = {"hysteresis": 2, "forSeconds": 5, "message": "hot", "schedule": HOURS, "severity": "critical"}
    stored = msgspec.json.encode(definition(**more))
    assert changed_definition(stored, {}) == definition(**more)
    changed = changed_definition(stored, {"forSeconds": None, "schedule": None, "message": None, "severity": None})
    assert changed == definition(hysteresis=2)
    other = changed_definition(stored, {"when": {"op": "outside", "low": 1, "high": 5}})
    assert other == definition(**more, when={"op": "outside", "low": 1, "high": 5}), "not merged with the one before"


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"name": None}, "name", "invalid"),
        ({"when": None}, "when", "invalid"),
        ({"bogus": None}, "bogus", "unknown"),
        ({"when": {"op": "gap"}}, "hysteresis", "invalid"),
        ([], "", "invalid"),
        (None, "", "invalid"),
    ],
    ids=str,
)
def test_a_change_to_what_makes_no_sense_is_refused(changes: Any, field: str, code: str) -> None:
    with pytest.raises(Problem) as raised:
        changed_definition(msgspec.json.encode(definition(hysteresis=2)), changes)
    assert fields_of(raised.value) == {field: code}
