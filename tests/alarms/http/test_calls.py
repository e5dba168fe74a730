"""Owners and their rules, alarms and notifications: each sees and changes their own, with the scope for it."""

import asyncio
import json
from typing import Any

from sqlalchemy import insert, select

from alarms.rules.store import MAX_REMOVED, MAX_RULES
from database.alarm_tables import alarm_deliveries, alarm_history, alarm_rules, alarms
from database.ids import new_id
from runtime.times import now_ms
from tests.alarms.http.conftest import SCOPE, Client
from tests.alarms.making import GIVEN
from tests.alarms.rows import rows
from tests.auth.rows import change

RULE = GIVEN | {"notify": [{"kind": "webhook", "url": "https://example.org/hook"}]}
GONE = "0190b5a0-0000-7000-8000-000000000000"


async def add_alarm(client: Client, rule: str, device: str = "press") -> str:
    alarm = new_id()
    row: dict[str, Any] = {"owner_id": "ada", "id": alarm, "rule_id": rule, "device": device}
    row |= {"sensor_type": "temperature", "rule_version": 1, "state": "firing", "since_ms": 1, "ts_ms": 1, "seq": 0}
    await change(client.database_url, insert(alarms).values(row | {"number": 1, "changed_at_ms": 1}))
    first: dict[str, Any] = {"owner_id": "ada", "alarm_id": alarm, "number": 1, "state": "firing", "cause": "reading"}
    first |= {"ts_ms": 1, "seq": 0, "value": "81.5", "unit": "Cel", "recorded_at_ms": 1}
    await change(client.database_url, insert(alarm_history).values(first))
    return alarm


async def add_delivery(client: Client, rule: str, state: str = "dead") -> str:
    delivery = new_id()
    row: dict[str, Any] = {"owner_id": "ada", "id": delivery, "rule_id": rule, "kind": "webhook", "attempts": 3}
    row |= {"target": "http://127.0.0.1:1/", "body": "{}", "state": state, "last_status": "500", "leased_until_ms": 0}
    row |= {"created_at_ms": 1, "give_up_at_ms": 2, "due_at_ms": 1, "finished_at_ms": None if state == "pending" else 2}
    await change(client.database_url, insert(alarm_deliveries).values(row))
    return delivery


def calls_of(rule: str, alarm: str, delivery: str) -> list[tuple[str, str, Any]]:
    """Return every call that names something of an owner."""
    return [
        ("GET", f"/alarms/rules/{rule}", None),
        ("PATCH", f"/alarms/rules/{rule}", {"name": "mine"}),
        ("POST", f"/alarms/rules/{rule}/secret", None),
        ("DELETE", f"/alarms/rules/{rule}", None),
        ("GET", f"/alarms/{alarm}/history", None),
        ("POST", f"/alarms/{alarm}/acknowledge", None),
        ("POST", f"/alarms/deliveries/{delivery}/replay", None),
    ]


LISTS = ("/alarms", "/alarms/rules", "/alarms/deliveries")


async def test_what_another_owner_has_is_not_there(client: Client) -> None:
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    ids = rule["id"], await add_alarm(client, rule["id"]), await add_delivery(client, rule["id"])
    before = [await client.call("GET", path) for path in LISTS]
    for names in (ids, (GONE, GONE, GONE), ("x", "x", "x")):
        for method, path, body in calls_of(*names):
            status, answer = await client.call(method, path, body, owner="bob")
            assert (status, answer["code"]) == (404, "not_found"), (method, path)
    for path in LISTS:
        assert (await client.call("GET", path, owner="bob"))[1]["items"] == []
    assert [await client.call("GET", path) for path in LISTS] == before
    assert all(len(answer["items"]) == 1 for _, answer in before)


async def test_without_the_scope_and_for_devices_nothing_is_there(client: Client) -> None:
    without = client.issuer.user(sub="ada", owner="ada", scope="readings:read readings:write devices:manage")
    device = client.issuer.device(owner="ada", scope=f"readings:write {SCOPE}")
    every = [*calls_of(GONE, GONE, GONE), *(("GET", path, None) for path in LISTS)]
    every += [("POST", "/alarms/rules", RULE), ("POST", "/alarms/rules/test", RULE)]
    for token in (without, device):
        for method, path, body in every:
            assert (await client.call(method, path, body, token=token))[0] == 403, (method, path)


async def test_a_key_that_is_limited_to_devices_sees_their_alarms_and_nothing_else(client: Client) -> None:
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    mine, other = await add_alarm(client, rule["id"], "mine"), await add_alarm(client, rule["id"], "other")
    key = client.issuer.api_key(sub="ada", owner="ada", scope=SCOPE, devices=["mine"])
    _, found = await client.call("GET", "/alarms", token=key)
    assert [one["id"] for one in found["items"]] == [mine]
    assert (await client.call("GET", f"/alarms/{mine}/history", token=key))[0] == 200
    assert (await client.call("POST", f"/alarms/{mine}/acknowledge", token=key))[0] == 200
    for method, path, body in calls_of(rule["id"], other, GONE):
        assert (await client.call(method, path, body, token=key))[0] == 403, (method, path)
    for path in ("/alarms?device=other", "/alarms/rules", "/alarms/deliveries"):
        assert (await client.call("GET", path, token=key))[0] == 403


async def test_the_1001st_rule_is_refused_and_others_have_theirs(client: Client) -> None:
    row: dict[str, Any] = {"owner_id": "ada", "definition": "{}", "version": 1, "created_at_ms": 1, "changed_at_ms": 1}
    row |= {"number": 0, "removed_at_ms": None}
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    _, stored = await client.call("GET", f"/alarms/rules/{rule['id']}")
    text = json.dumps({name: stored[name] for name in GIVEN})
    rows = [row | {"id": new_id(), "definition": text} for _ in range(MAX_RULES - 2)]
    await change(client.database_url, insert(alarm_rules).values(rows))
    status, last = await client.call("POST", "/alarms/rules", RULE)
    assert status == 201
    status, answer = await client.call("POST", "/alarms/rules", RULE)
    assert (status, answer["code"], answer["limit"]) == (429, "too_many_rules", MAX_RULES)
    assert (await client.call("POST", "/alarms/rules", RULE, owner="bob"))[0] == 201
    assert (await client.call("DELETE", f"/alarms/rules/{last['id']}"))[0] == 204
    assert (await client.call("POST", "/alarms/rules", RULE))[0] == 201


async def test_who_has_removed_ten_thousand_rules_within_a_day_makes_no_more(client: Client) -> None:
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    (stored,) = await rows(client.database_url, select(alarm_rules))
    removed = stored | {"removed_at_ms": now_ms()}
    many = [removed | {"id": new_id()} for _ in range(MAX_REMOVED)]
    await change(client.database_url, insert(alarm_rules).values(many))
    status, answer = await client.call("POST", "/alarms/rules", RULE)
    assert (status, answer["code"]) == (429, "too_many_rules")
    removed_ones = alarm_rules.update().where(alarm_rules.c.id != rule["id"])
    await change(client.database_url, removed_ones.values(removed_at_ms=now_ms() - 27 * 3_600_000))
    assert (await client.call("POST", "/alarms/rules", RULE))[0] == 201
    assert len(await rows(client.database_url, select(alarm_rules.c.id))) == 2, "they are gone"


async def test_lists_have_pages(client: Client) -> None:
    rules = [(await client.call("POST", "/alarms/rules", RULE))[1]["id"] for _ in range(3)]
    found = [await add_alarm(client, rule) for rule in rules]
    sent = [await add_delivery(client, rules[0]) for _ in range(3)]
    for path, expected in zip(LISTS, (found, rules, sent[::-1]), strict=True):
        ids, cursor = [], ""
        while True:
            _, page = await client.call("GET", f"{path}?limit=2{cursor}")
            ids += [one["id"] for one in page["items"]]
            if "nextCursor" not in page:
                break
            cursor = f"&cursor={page['nextCursor']}"
        assert ids == expected, path
        assert (await client.call("GET", f"{path}?cursor=x"))[0] == 422
        assert (await client.call("GET", f"{path}?limit=1001"))[0] == 422


async def test_the_secret_is_shown_once(client: Client) -> None:
    status, rule = await client.call("POST", "/alarms/rules", GIVEN)
    assert (status, "secret" in rule) == (201, False), "it has no webhook"
    _, changed = await client.call("PATCH", f"/alarms/rules/{rule['id']}", {"notify": RULE["notify"]})
    assert changed["secret"].startswith("whsec_")
    _, again = await client.call("PATCH", f"/alarms/rules/{rule['id']}", {"name": "hotter", "notify": RULE["notify"]})
    assert (again["name"], "secret" in again) == ("hotter", False)
    assert "secret" not in (await client.call("GET", f"/alarms/rules/{rule['id']}"))[1]
    _, rotated = await client.call("POST", f"/alarms/rules/{rule['id']}/secret")
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != changed["secret"]


async def test_a_dead_notification_is_delivered_again_under_its_id(client: Client) -> None:
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    dead, delivered = await add_delivery(client, rule["id"]), await add_delivery(client, rule["id"], "delivered")
    status, answer = await client.call("POST", f"/alarms/deliveries/{dead}/replay")
    assert (status, answer["id"], answer["state"]) == (200, dead, "pending")
    for one in (dead, delivered):
        status, answer = await client.call("POST", f"/alarms/deliveries/{one}/replay")
        assert (status, answer["code"]) == (409, "not_dead")


async def test_filters_that_name_nothing_are_refused(client: Client) -> None:
    for query in ("rule=%C3%A9", "device=%C3%A9", "rule=x", "device=" + "x" * 500):
        status, answer = await client.call("GET", f"/alarms?{query}")
        assert status == 422, (query, answer)
    assert (await client.call("GET", f"/alarms?rule={GONE}&device=press&state=ok"))[1] == {"items": []}


async def test_calls_that_change_other_fields_at_the_same_time_all_count(client: Client) -> None:
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    changes = ({"name": "a"}, {"severity": "info"}, {"message": "b"}, {"hysteresis": 1}, {"forSeconds": 2})
    path = f"/alarms/rules/{rule['id']}"
    answers = await asyncio.gather(*(client.call("PATCH", path, one) for one in changes))
    assert [status for status, _ in answers] == [200] * 5
    _, found = await client.call("GET", path)
    for one in changes:
        assert found | one == found


async def test_a_cursor_of_a_history_is_a_number_that_there_may_be(client: Client) -> None:
    _, rule = await client.call("POST", "/alarms/rules", RULE)
    path = f"/alarms/{await add_alarm(client, rule['id'])}/history?cursor="
    assert (await client.call("GET", f"{path}{2**31 - 1}"))[1]["items"] == []
    for cursor in (0, 2**31, 10**30):
        assert (await client.call("GET", f"{path}{cursor}"))[0] == 422
