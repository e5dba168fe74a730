"""API keys over HTTP: what one permits, and what ends it. Two owners where rights are concerned."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert, update
from structlog.testing import capture_logs

from auth.devices import Device
from auth.errors import ExpiredKeyError
from auth.tokens.issuer import IssuingKey, TokenIssuer
from auth.tokens.keys import KeyRing, Keys
from database.ids import new_id
from database.tables import api_keys, devices, users
from runtime.times import rfc3339
from runtime.token_bucket import KeyedTokenBuckets
from tests.auth.http.keys import ALL, listed, new_key
from tests.auth.rows import change
from tests.auth.service import PASSWORD, Answer, Client, accounts, claims_of, is_active, listed_revocations

YEAR_S = 366 * 86400
GONE = "0190b5a0-0000-7000-8000-000000000000"


def ahead(**by: float) -> str:
    return rfc3339(round((datetime.now(UTC) + timedelta(**by)).timestamp() * 1000))


async def test_a_key_is_shown_once_listed_by_its_owner_alone_and_deleted_by_its_owner_alone(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    device = await client.new_device(ada)
    limited = await new_key(client, ada, devices=[device["id"], device["id"]], scope=["readings:read"] * 2)
    free = await new_key(client, ada, name="Ada's scripts", expiresAt=ahead(days=30))
    assert set(free) == {"id", "name", "scope", "createdAt", "expiresAt", "key"}
    assert (limited["scope"], limited["devices"]) == (["readings:read"], [device["id"]])
    shown = [{name: value for name, value in key.items() if name != "key"} for key in (limited, free)]
    assert await listed(client, ada) == shown
    assert await listed(client, bob) == []
    assert client.metric("tidegate_auth_tokens_issued_total", kind="key") == 2

    for key_id in (limited["id"], GONE, "x"):
        answer = await client.call("DELETE", f"/keys/{key_id}", token=bob)
        assert (answer.status, answer.json["code"]) == (404, "no_such_key")
    assert await is_active(client, limited["key"])
    assert (await client.call("DELETE", f"/keys/{limited['id']}", token=ada)).status == 204
    assert not await is_active(client, limited["key"])
    assert await is_active(client, free["key"])
    assert await listed(client, ada) == shown[1:]
    assert (await client.call("DELETE", f"/keys/{limited['id']}", token=ada)).status == 404
    assert client.metric("tidegate_auth_endings_total", what="key") == 1


async def test_a_keys_claims_are_those_of_its_row_and_no_session(client: Client) -> None:
    ada = await client.new_user()
    device = await client.new_device(ada)
    made = await new_key(client, ada, devices=[device["id"]])
    claims = claims_of(made["key"])
    owner = claims_of(ada)["sub"]
    assert (
        claims
        | {
            "sub": owner,
            "owner": owner,
            "key": made["id"],
            "jti": made["id"],
            "client_id": made["id"],
            "devices": [device["id"]],
            "scope": " ".join(ALL),
            "gen": 0,
        }
        == claims
    )
    assert {"sid", "device", "issuingKey"}.isdisjoint(claims)
    assert claims["exp"] - claims["iat"] == YEAR_S
    assert made["expiresAt"] == rfc3339(claims["exp"] * 1000)
    assert (await client.get("/user/token", token=made["key"])).json == claims


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scope": []}, "scope"),
        ({"scope": "readings:read"}, "scope"),
        ({"scope": ["readings:read", "keys:manage"]}, "scope[1]"),
        ({"scope": ["readings:read devices:manage"]}, "scope[0]"),
        ({"devices": []}, "devices"),
        ({"devices": None}, "devices"),
        ({"devices": ["x" * 36] * 101}, "devices"),
        ({"devices": [GONE]}, "devices[0]"),
        ({"devices": ["%"]}, "devices[0]"),
        ({"expiresAt": 1}, "expiresAt"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
        ({"expiresAt": "2027-01-01T00:00:00"}, "expiresAt"),
        ({"expiresAt": lambda: ahead(seconds=-1)}, "expiresAt"),
        ({"expiresAt": lambda: ahead(days=366, seconds=10)}, "expiresAt"),
        ({"sid": "x"}, "sid"),
    ],
)
async def test_a_wrong_field_is_named(sqlite_client: Client, changes: dict[str, Any], field: str) -> None:
    given = {name: value() if callable(value) else value for name, value in changes.items()}
    body = {"name": "export", "scope": ["readings:read"]} | given
    answer = await sqlite_client.post("/keys", body, token=await sqlite_client.new_user())
    assert (answer.status, list(answer.fields)) == (422, [field])


async def test_another_owners_device_is_none_that_a_key_can_be_limited_to_and_neither_is_what_is_no_id(
    client: Client,
) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    mine, others = (await client.new_device(ada))["id"], (await client.new_device(bob))["id"]
    named = [mine, mine, others, "é", mine.upper(), f"{mine}\x00"]
    answer = await client.post("/keys", {"name": "export", "scope": ALL, "devices": named}, token=ada)
    assert (answer.status, answer.fields) == (422, {f"devices[{number}]": "unknown" for number in range(2, 6)})
    assert await listed(client, ada) == []


async def test_a_key_may_live_for_366_days_and_a_device_list_may_have_100_ids(
    sqlite_client: Client, sqlite_url: str
) -> None:
    ada = await sqlite_client.new_user()
    ids = [new_id() for _ in range(100)]
    row = {"owner_id": claims_of(ada)["sub"], "sensor_type": "t", "location": '""', "gen": 0, "created_at_ms": 0}
    await change(sqlite_url, insert(devices).values([row | {"id": one, "name": one} for one in ids]))
    made = await new_key(sqlite_client, ada, devices=ids, expiresAt=ahead(days=366, seconds=-5))
    assert made["devices"] == ids
    found = (await sqlite_client.get("/devices", token=made["key"])).json
    assert [device["id"] for device in found["items"]] == ids


async def test_an_owner_has_at_most_100_keys_and_expired_ones_make_place(
    sqlite_client: Client, sqlite_url: str
) -> None:
    ada, bob = await sqlite_client.new_user(), await sqlite_client.new_user("bob@example.org")
    row = {"owner_id": claims_of(ada)["sub"], "scope": "readings:read", "kid": "x", "created_at_ms": 0}
    valid = row | {"expires_at_ms": 2**42}
    await change(sqlite_url, insert(api_keys).values([valid | {"id": new_id(), "name": str(n)} for n in range(99)]))
    await new_key(sqlite_client, ada)
    refused = await sqlite_client.post("/keys", {"name": "x", "scope": ALL}, token=ada)
    assert (refused.status, refused.json["code"], refused.json["limit"]) == (422, "too_many_keys", 100)
    await new_key(sqlite_client, bob)
    past = update(api_keys).where(api_keys.c.name.in_(["0", "7"])).values(expires_at_ms=1)
    await change(sqlite_url, past)
    assert len(await listed(sqlite_client, ada)) == 100, "they are still listed"
    await new_key(sqlite_client, ada)
    names = [key["name"] for key in await listed(sqlite_client, ada)]
    assert (names[:7], len(names)) == (["1", "2", "3", "4", "5", "6", "8"], 99)


async def test_a_user_who_makes_and_deletes_keys_without_end_has_to_wait(
    sqlite_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await sqlite_client.new_user(), await sqlite_client.new_user("bob@example.org")
    await new_key(sqlite_client, ada)
    monkeypatch.setattr(KeyedTokenBuckets, "wait_s", lambda _, key: 7.5 if key == claims_of(ada)["sub"] else 0.0)
    refused = await sqlite_client.post("/keys", {"name": "x", "scope": ALL}, token=ada)
    assert (refused.status, refused.json["code"], refused.headers["Retry-After"]) == (429, "rate_limited", "8")
    assert len(await listed(sqlite_client, ada)) == 1
    await new_key(sqlite_client, bob)


async def test_no_key_makes_lists_or_deletes_keys_or_reads_or_changes_the_account(sqlite_client: Client) -> None:
    ada = await sqlite_client.new_user()
    made = await new_key(sqlite_client, ada)
    device = await sqlite_client.new_device(ada)
    for token in (made["key"], (await token_of(sqlite_client, device["id"], ada)).json["token"]):
        answers = [
            await sqlite_client.post("/keys", {"name": "more", "scope": ALL}, token=token),
            await sqlite_client.get("/keys", token=token),
            await sqlite_client.call("DELETE", f"/keys/{made['id']}", token=token),
            await sqlite_client.get("/user/me", token=token),
            await sqlite_client.call("PATCH", "/user/me", json={"name": "Eve"}, token=token),
            await sqlite_client.call("DELETE", "/user/me", token=token),
            await sqlite_client.post("/user/logout", token=token),
        ]
        assert [(answer.status, answer.json["code"]) for answer in answers] == [(403, "forbidden")] * len(answers)
    assert await is_active(sqlite_client, made["key"])


async def test_a_key_does_what_its_scopes_permit_and_nothing_else(sqlite_client: Client) -> None:
    ada = await sqlite_client.new_user()
    device = (await sqlite_client.new_device(ada))["id"]
    for scope, may_list, may_manage in (
        ("readings:read", True, False),
        ("readings:write", False, False),
        ("devices:manage", True, True),
    ):
        token = (await new_key(sqlite_client, ada, scope=[scope]))["key"]
        read = [await sqlite_client.get(path, token=token) for path in ("/devices", f"/devices/{device}")]
        assert [answer.status == 200 for answer in read] == [may_list, may_list]
        manage = [
            await sqlite_client.post("/devices", {"sensorType": "t", "location": ""}, token=token),
            await sqlite_client.call("PATCH", f"/devices/{device}", json={"location": "roof"}, token=token),
            await token_of(sqlite_client, device, token),
            await sqlite_client.get(f"/devices/{device}/commands", token=token),
            await sqlite_client.call("DELETE", f"/devices/{device}/tokens", token=token),
        ]
        assert [answer.status in (200, 201, 204) for answer in manage] == [may_manage] * len(manage)
        for answer in (*read, *manage):
            assert answer.status < 300 or (answer.status, answer.json["code"]) == (403, "forbidden")


async def token_of(client: Client, device: str, token: str) -> Answer:
    return await client.post(f"/devices/{device}/token", token=token)


async def test_a_key_that_is_limited_to_devices_meets_no_other_and_registers_none(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    mine, other = await client.new_device(ada, name="mine"), await client.new_device(ada, name="other")
    bobs = await client.new_device(bob)
    key = (await new_key(client, ada, devices=[mine["id"]]))["key"]

    assert (await client.get("/devices", token=key)).json == {"items": [mine]}
    assert (await client.get("/devices?name=other", token=key)).json == {"items": []}
    assert (await client.get("/devices?limit=1", token=key)).json == {"items": [mine]}
    made = await client.post("/devices", {"sensorType": "t", "location": ""}, token=key)
    assert (made.status, made.json["code"]) == (403, "forbidden")
    for device in (other["id"], bobs["id"], GONE, "x"):
        answers = [
            await client.get(f"/devices/{device}", token=key),
            await client.call("PATCH", f"/devices/{device}", json={"location": "x"}, token=key),
            await client.call("DELETE", f"/devices/{device}", token=key),
            await token_of(client, device, key),
            await client.call("DELETE", f"/devices/{device}/tokens", token=key),
            await client.post(f"/devices/{device}/commands", {"name": "x"}, token=key),
            await client.get(f"/devices/{device}/commands", token=key),
        ]
        assert {(answer.status, answer.json["detail"]) for answer in answers} == {
            (403, "This token is for other devices.")
        }, "alike, whether it exists or not"
    assert (await client.get(f"/devices/{mine['id']}", token=key)).status == 200
    assert (await client.call("DELETE", f"/devices/{mine['id']}", token=key)).status == 204
    assert len((await client.get("/devices", token=ada)).json["items"]) == 1


async def test_what_a_key_issued_and_its_renewals_carry_its_id_and_end_with_it(client: Client) -> None:
    ada = await client.new_user()
    device = (await client.new_device(ada))["id"]
    made = await new_key(client, ada)
    first = (await token_of(client, device, made["key"])).json["token"]
    renewed = (await token_of(client, device, first)).json["token"]
    again = (await token_of(client, device, renewed)).json["token"]
    apart = (await token_of(client, device, ada)).json["token"]
    assert {claims_of(token)["issuingKey"] for token in (first, renewed, again)} == {made["id"]}
    assert "issuingKey" not in claims_of(apart)
    assert claims_of(again)["exp"] - claims_of(again)["iat"] == 30 * 86400

    assert (await client.call("DELETE", f"/keys/{made['id']}", token=ada)).status == 204
    for token in (first, renewed, again):
        assert not await is_active(client, token)
        assert (await token_of(client, device, token)).json["code"] == "revoked"
    assert await is_active(client, apart)
    assert ("jti", made["id"]) in await listed_revocations(client)


async def test_no_token_outlives_the_key_that_issued_it(sqlite_client: Client, sqlite_url: str) -> None:
    ada = await sqlite_client.new_user()
    device = (await sqlite_client.new_device(ada))["id"]
    made = await new_key(sqlite_client, ada, expiresAt=ahead(hours=1))
    issued = (await token_of(sqlite_client, device, made["key"])).json
    renewed = (await token_of(sqlite_client, device, issued["token"])).json["token"]
    expires_at = claims_of(made["key"])["exp"]
    assert claims_of(issued["token"])["exp"] == claims_of(renewed)["exp"] == expires_at
    assert 3590 <= issued["expiresIn"] <= 3600
    await change(sqlite_url, update(api_keys).values(expires_at_ms=int(time.time() * 1000) - 1))
    for token in (made["key"], issued["token"], renewed):
        assert not await is_active(sqlite_client, token), "by the database's clock, whatever this host's"


async def test_a_key_that_has_just_expired_is_revoked_with_its_deletion_for_services_whose_clocks_are_behind(
    sqlite_client: Client, sqlite_url: str
) -> None:
    ada = await sqlite_client.new_user()
    just, long_ago = [(await new_key(sqlite_client, ada))["id"] for _ in range(2)]
    for key_id, ago_s in ((just, 60), (long_ago, 3 * 3600)):
        past = update(api_keys).where(api_keys.c.id == key_id)
        await change(sqlite_url, past.values(expires_at_ms=int((time.time() - ago_s) * 1000)))
        assert (await sqlite_client.call("DELETE", f"/keys/{key_id}", token=ada)).status == 204
    assert await listed_revocations(sqlite_client) == [("jti", just)]


def test_a_key_issues_nothing_at_the_very_second_of_its_end() -> None:
    ring = KeyRing(Keys("kid", Ed25519PrivateKey.generate(), {}))
    issuer = TokenIssuer(ring, issuer="tidegate", access_s=60, device_s=3600)
    device = Device("device", "owner", "name", "temperature", "", 0, 0)
    now = int(time.time())
    with pytest.raises(ExpiredKeyError):
        issuer.for_device(device, IssuingKey("key", now))
    assert issuer.for_device(device, IssuingKey("key", now + 50)).claims.exp == now + 50
    assert issuer.for_device(device, IssuingKey("key", now + 9999)).expires_in == 3600


async def test_a_new_password_ends_keys_if_it_is_asked_to(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    device = (await client.new_device(ada))["id"]
    made, bobs = await new_key(client, ada), await new_key(client, bob)
    issued = (await token_of(client, device, made["key"])).json["token"]
    body: dict[str, Any] = {"password": "another good one", "currentPassword": PASSWORD}
    alone = await client.call("PATCH", "/user/me", json={"name": "Ada", "endKeys": True}, token=ada)
    assert (alone.status, alone.fields) == (422, {"endKeys": "invalid"})

    await client.call("PATCH", "/user/me", json=body, token=ada)
    assert not await is_active(client, ada)
    assert await is_active(client, made["key"])
    assert await is_active(client, issued)
    ada = (await client.log_in(password="another good one")).json["accessToken"]
    body = {"password": PASSWORD, "currentPassword": "another good one", "endKeys": True}
    await client.call("PATCH", "/user/me", json=body, token=ada)
    assert not await is_active(client, made["key"])
    assert not await is_active(client, issued)
    assert await is_active(client, bobs["key"])
    assert await listed(client, (await client.log_in()).json["accessToken"]) == []
    assert ("jti", made["id"]) in await listed_revocations(client)


async def test_a_deleted_account_ends_its_keys_for_as_long_as_they_would_have_lived(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    made, bobs = await new_key(client, ada), await new_key(client, bob)
    assert (await client.call("DELETE", "/user/me", token=ada)).status == 204
    assert not await is_active(client, made["key"])
    assert await is_active(client, bobs["key"])
    (item,) = (await client.get("/revocations")).json["items"]
    assert (item["kind"], item["id"]) == ("user", claims_of(made["key"])["owner"])
    assert item["until"] >= made["expiresAt"]


async def test_a_disabled_account_has_no_keys_even_when_it_is_enabled_again(
    sqlite_client: Client, sqlite_url: str
) -> None:
    ada = await sqlite_client.new_user()
    made = await new_key(sqlite_client, ada)
    device = (await sqlite_client.new_device(ada))["id"]
    issued = (await token_of(sqlite_client, device, made["key"])).json["token"]
    owner = claims_of(made["key"])["owner"]
    async with accounts(sqlite_url) as operator:
        await operator.disable(owner)
        await operator.enable(owner)
    assert not await is_active(sqlite_client, made["key"])
    assert not await is_active(sqlite_client, issued)
    assert ("jti", made["id"]) in await listed_revocations(sqlite_client)
    assert await listed(sqlite_client, (await sqlite_client.log_in()).json["accessToken"]) == []


async def test_an_account_that_is_disabled_by_hand_has_no_keys(sqlite_client: Client, sqlite_url: str) -> None:
    made = await new_key(sqlite_client, await sqlite_client.new_user())
    await change(sqlite_url, update(users).values(disabled_at_ms=1))
    assert not await is_active(sqlite_client, made["key"])


async def test_what_happens_to_a_key_is_recorded_without_the_key(sqlite_client: Client) -> None:
    ada = await sqlite_client.new_user()
    device = (await sqlite_client.new_device(ada))["id"]
    with capture_logs() as logs:
        made = await new_key(sqlite_client, ada, devices=[device], scope=["devices:manage"])
        await token_of(sqlite_client, device, made["key"])
        await sqlite_client.call("DELETE", f"/keys/{made['id']}", token=ada)
        change = {"password": "another good one", "currentPassword": PASSWORD, "endKeys": True}
        await new_key(sqlite_client, ada)
        await sqlite_client.call("PATCH", "/user/me", json=change, token=ada)
    audit = [line for line in logs if "address" in line]
    assert [(line["event"], line.get("key"), line.get("by")) for line in audit[:4]] == [
        ("An API key was made.", made["id"], None),
        ("A token was issued.", None, claims_of(ada)["sub"]),
        ("A token was issued.", None, made["id"]),
        ("An API key was deleted.", made["id"], None),
    ]
    assert (audit[0]["scope"], audit[0]["devices"], audit[0]["name"]) == ("devices:manage", [device], "export")
    assert (audit[-1]["event"], audit[-1]["keys_ended"]) == ("An account was changed.", 1)
    assert made["key"] not in str(logs)
