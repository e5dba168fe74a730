"""Provisioning keys and claims over HTTP. Two owners where rights are concerned."""

import asyncio
import random
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import insert, select, update
from structlog.testing import capture_logs

from auth.migrate import migrate
from auth.provisioning import MAX_PER_OWNER
from database.connection import open_database
from database.tables import device_claims, provisioning_keys
from runtime.times import rfc3339
from tests.auth.rows import change
from tests.auth.service import Answer, Client, accounts, claims_of, is_active, make_settings, running

SECRET = "8c1f0a5d3b7e49268c1f0a5d3b7e4926"
OTHER = "f" * 32
GONE = "0190b5a0-0000-7000-8000-000000000000"


async def new_key(client: Client, token: str, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/provisioning", {"name": "batch 7", "maxDevices": 10} | changes, token=token)
    assert answer.status == 201, answer.raw
    made: dict[str, Any] = answer.json
    return made


async def claim(
    client: Client,
    key: str,
    hardware_id: str = "aa:01",
    secret: str = SECRET,
    headers: dict[str, str] | None = None,
    **changes: Any,
) -> Answer:
    body = {"provisioningKey": key, "hardwareId": hardware_id, "sensorType": "temperature", "claimSecret": secret}
    return await client.post("/devices/claim", body | changes, headers=headers or {})


async def listed(client: Client, token: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get("/provisioning", token=token)).json["items"]
    return items


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


async def test_a_key_is_shown_once_stored_hashed_and_managed_by_its_owner_alone(
    client: Client, database_url: str
) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    expires_at = rfc3339(round((datetime.now(UTC) + timedelta(days=400)).timestamp()) * 1000)
    with capture_logs() as logs:
        made = await new_key(client, ada, expiresAt=expires_at)
        assert made.keys() == {"id", "name", "maxDevices", "createdAt", "expiresAt", "key"}
        item = {name: value for name, value in made.items() if name != "key"} | {"claimed": 0}
        assert await listed(client, ada) == [item]
        assert item["expiresAt"] == expires_at
        assert await listed(client, bob) == []
        for token, key_id in ((bob, made["id"]), (ada, GONE), (ada, "x")):
            answer = await client.call("DELETE", f"/provisioning/{key_id}", token=token)
            assert code_of(answer) == (404, "no_such_key")
        assert (await claim(client, made["key"])).status == 201
        async with (
            open_database(database_url, connections=1, timeout_s=30) as database,
            database.connect() as connection,
        ):
            rows = [
                *await connection.execute(select(provisioning_keys)),
                *await connection.execute(select(device_claims)),
            ]
        assert made["key"] not in str(rows)
        assert SECRET not in str(rows)
        assert (await client.call("DELETE", f"/provisioning/{made['id']}", token=ada)).status == 204
    assert made["key"] not in str(logs)
    assert SECRET not in str(logs)
    events = [entry["event"] for entry in logs if entry.get("provisioning_key") == made["id"]]
    assert events == ["A provisioning key was made.", "A device was claimed.", "A provisioning key was deleted."]
    assert code_of(await claim(client, made["key"])) == (401, "unauthorized")
    assert await listed(client, ada) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"maxDevices": 0}, "maxDevices"),
        ({"maxDevices": 1_000_001}, "maxDevices"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"expiresAt": "tomorrow"}, "expiresAt"),
    ],
)
async def test_a_key_with_a_wrong_field_is_refused(sqlite_client: Client, changes: dict[str, Any], field: str) -> None:
    token = await sqlite_client.new_user()
    answer = await sqlite_client.post("/provisioning", {"name": "k", "maxDevices": 1} | changes, token=token)
    assert (answer.status, answer.fields) == (422, {field: "invalid"})


async def test_an_owner_has_a_bounded_number_of_keys_and_expired_ones_make_place(
    sqlite_client: Client, tmp_path: Path
) -> None:
    token = await sqlite_client.new_user()
    oldest = (await new_key(sqlite_client, token))["id"]
    url = f"sqlite+aiosqlite:///{tmp_path / 'users.db'}"
    row = {"owner_id": claims_of(token)["sub"], "name": "k", "max_devices": 1, "created_at_ms": 1}
    more = [row | {"id": f"{GONE[:-4]}{n:04}", "key_hash": f"{n}"} for n in range(MAX_PER_OWNER - 1)]
    await change(url, insert(provisioning_keys).values(more))
    refused = await sqlite_client.post("/provisioning", {"name": "k", "maxDevices": 1}, token=token)
    assert code_of(refused) == (422, "too_many_keys")
    await change(url, update(provisioning_keys).where(provisioning_keys.c.id == oldest).values(expires_at_ms=1))
    await new_key(sqlite_client, token)
    assert oldest not in [item["id"] for item in await listed(sqlite_client, token)]


async def test_keys_that_are_made_at_once_exceed_no_limit_and_one_that_is_ended_claims_nothing_more(
    client: Client,
) -> None:
    token = await client.new_user()
    body = {"name": "k", "maxDevices": 1}
    answers = await asyncio.gather(*(client.post("/provisioning", body, token=token) for _ in range(MAX_PER_OWNER + 9)))
    assert sorted(answer.status for answer in answers) == [201] * MAX_PER_OWNER + [422] * 9
    key = next(answer.json for answer in answers if answer.status == 201)
    ended, *claims = await asyncio.gather(
        client.call("DELETE", f"/provisioning/{key['id']}", token=token),
        *(claim(client, key["key"]) for _ in range(20)),
    )
    assert ended.status == 204
    assert sorted({answer.status for answer in claims} - {200, 201}) in ([], [401])
    assert [answer.status for answer in claims].count(201) <= 1
    assert code_of(await claim(client, key["key"])) == (401, "unauthorized")


async def test_a_key_expires_at_a_time_in_either_form(sqlite_client: Client) -> None:
    token = await sqlite_client.new_user()
    at_ms = round((datetime.now(UTC) + timedelta(days=400)).timestamp() * 1000)
    made = [await new_key(sqlite_client, token, expiresAt=expires_at) for expires_at in (at_ms, rfc3339(at_ms))]
    assert [key["expiresAt"] for key in made] == [rfc3339(at_ms)] * 2
    for wrong in (1, -1, 2**63, 1.5):
        answer = await sqlite_client.post(
            "/provisioning", {"name": "k", "maxDevices": 1, "expiresAt": wrong}, token=token
        )
        assert (answer.status, answer.fields) == (422, {"expiresAt": "invalid"})


async def test_neither_an_api_key_nor_a_device_manages_provisioning(sqlite_client: Client) -> None:
    token = await sqlite_client.new_user()
    device = await sqlite_client.new_device(token)
    body = {"name": "k", "scope": ["devices:manage"]}
    api_key = (await sqlite_client.post("/keys", body, token=token)).json["key"]
    own = (await sqlite_client.post(f"/devices/{device['id']}/token", token=token)).json["token"]
    for refused in (api_key, own):
        made = await sqlite_client.post("/provisioning", {"name": "k", "maxDevices": 1}, token=refused)
        assert made.status == 403
        assert (await sqlite_client.get("/provisioning", token=refused)).status == 403
        assert (await sqlite_client.call("DELETE", f"/provisioning/{GONE}", token=refused)).status == 403


async def test_a_claim_registers_a_device_and_the_same_secret_gives_it_again_with_a_new_token(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    keys = [await new_key(client, ada, maxDevices=1), await new_key(client, ada), await new_key(client, bob)]
    first = await claim(client, keys[0]["key"])
    assert first.status == 201
    assert first.json.keys() == {"id", "name", "sensorType", "location", "token", "expiresIn"}
    device = (await client.get(f"/devices/{first.json['id']}", token=ada)).json
    assert (device["name"], device["sensorType"], device["location"]) == ("aa:01", "temperature", "")
    moved = {"name": "press-1", "location": "hall 3"}
    assert (await client.call("PATCH", f"/devices/{device['id']}", json=moved, token=ada)).status == 200

    for key in keys[:2]:  # a full key, and another of the same owner
        again = await claim(client, key["key"], sensorType="pressure")
        assert again.status == 200
        claims = claims_of(again.json["token"])
        assert claims["jti"] != claims_of(first.json["token"])["jti"]
        assert (claims["device"], claims["sensorType"], claims["location"]) == (device["id"], "temperature", "hall 3")
        assert again.json["name"] == "press-1"
        assert await is_active(client, again.json["token"])
        assert await is_active(client, first.json["token"])
    assert code_of(await claim(client, keys[0]["key"], "aa:02")) == (403, "too_many_claims")
    assert code_of(await claim(client, keys[1]["key"], secret=OTHER)) == (409, "claimed")
    of_bob = await claim(client, keys[2]["key"], secret=OTHER)
    assert of_bob.status == 201
    assert [key["claimed"] for key in await listed(client, ada)] == [1, 0]
    assert [key["claimed"] for key in await listed(client, bob)] == [1]
    outcomes = ("new", "repeated", "claimed", "refused")
    counts = [client.metric("tidegate_auth_device_claims_total", outcome=outcome) for outcome in outcomes]
    assert counts == [2, 2, 1, 1]

    assert (await client.call("DELETE", f"/devices/{device['id']}", token=ada)).status == 204
    assert [key["claimed"] for key in await listed(client, ada)] == [0, 0]
    assert (await claim(client, keys[0]["key"])).json["id"] != device["id"]


async def test_another_secret_claims_a_device_once_its_owner_has_released_it(client: Client) -> None:
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    key, full = await new_key(client, ada), await new_key(client, ada, maxDevices=1)
    await claim(client, full["key"], "aa:02")
    first = (await claim(client, key["key"])).json
    path = f"/devices/{first['id']}/claim"
    registered = await client.new_device(ada)
    for token, at, expected in (
        (bob, path, (404, "no_such_device")),
        (ada, f"/devices/{registered['id']}/claim", (409, "not_claimed")),
        (first["token"], path, (403, "forbidden")),
    ):
        assert code_of(await client.call("DELETE", at, token=token)) == expected
    assert code_of(await claim(client, key["key"], secret=OTHER)) == (409, "claimed")
    assert await is_active(client, first["token"])

    assert (await client.call("DELETE", path, token=ada)).status == 204
    assert not await is_active(client, first["token"])
    assert code_of(await client.call("DELETE", path, token=ada)) == (409, "not_claimed")
    assert code_of(await claim(client, full["key"], secret=OTHER)) == (403, "too_many_claims")
    second = await claim(client, key["key"], secret=OTHER)
    assert (second.status, second.json["id"]) == (200, first["id"])
    assert await is_active(client, second.json["token"])
    assert code_of(await claim(client, key["key"])) == (409, "claimed")


async def test_a_registered_device_is_not_handed_over_to_who_has_a_provisioning_key(client: Client) -> None:
    token = await client.new_user()
    key = (await new_key(client, token))["key"]
    await client.new_device(token, name="aa:01")
    assert code_of(await claim(client, key)) == (409, "taken")


async def test_a_claim_is_no_call_of_an_api_key_that_is_limited_to_devices(sqlite_client: Client) -> None:
    token = await sqlite_client.new_user()
    key, device = (await new_key(sqlite_client, token))["key"], (await sqlite_client.new_device(token))["id"]
    body = {"name": "k", "scope": ["devices:manage"]}
    limited = (await sqlite_client.post("/keys", body | {"devices": [device]}, token=token)).json
    for made, expected in ((limited, 403), ((await sqlite_client.post("/keys", body, token=token)).json, 201)):
        headers = {"Authorization": f"Bearer {made['key']}"}
        assert (await claim(sqlite_client, key, "aa:01", headers=headers)).status == expected
    assert (await sqlite_client.call("DELETE", f"/keys/{limited['id']}", token=token)).status == 204
    headers = {"Authorization": f"Bearer {limited['key']}"}
    assert (await claim(sqlite_client, key, "aa:02", headers=headers)).status == 201, "an ended token says nothing"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hardwareId": "x" * 65}, "hardwareId"),
        ({"hardwareId": "a\n"}, "hardwareId"),
        ({"hardwareId": "gerät"}, "hardwareId"),
        ({"claimSecret": "f" * 31}, "claimSecret"),
        ({"claimSecret": "f" * 257}, "claimSecret"),
        ({"claimSecret": "f" * 31 + " "}, "claimSecret"),
        ({"hardwareId": ""}, "hardwareId"),
        ({"hardwareId": "a b"}, "hardwareId"),
        ({"sensorType": "é"}, "sensorType"),
    ],
)
async def test_a_claim_with_a_wrong_field_is_refused(
    sqlite_client: Client, changes: dict[str, Any], field: str
) -> None:
    answer = await claim(sqlite_client, "tgp_x", **changes)
    assert (answer.status, answer.fields) == (422, {field: "invalid"})


async def test_a_key_that_has_expired_or_whose_owner_is_disabled_claims_nothing(
    client: Client, database_url: str
) -> None:
    token = await client.new_user()
    expired, valid = await new_key(client, token), await new_key(client, token)
    first = (await claim(client, expired["key"])).json
    await change(
        database_url, update(provisioning_keys).where(provisioning_keys.c.id == expired["id"]).values(expires_at_ms=1)
    )
    assert code_of(await claim(client, expired["key"])) == (401, "expired")
    assert await is_active(client, first["token"])

    async with accounts(database_url) as operator:
        user = claims_of(token)["sub"]
        await operator.disable(user)
        assert code_of(await claim(client, valid["key"])) == (401, "unauthorized")
        assert not await is_active(client, first["token"])
        await operator.enable(user)
        again = await claim(client, valid["key"])
        assert (again.status, again.json["id"]) == (200, first["id"])
        assert await is_active(client, again.json["token"])
        await operator.delete(user)
    assert code_of(await claim(client, valid["key"])) == (401, "unauthorized")


async def test_claims_are_limited_by_address_and_by_key(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    limits = {"address_claims": 4, "address_claim_seconds": 900.0}
    async with running(make_settings(sqlite_url, **limits)) as client:
        for _ in range(4):
            assert (await claim(client, "tgp_unknown")).status == 401
        refused = await claim(client, "tgp_unknown")
        assert (*code_of(refused), refused.json["scope"]) == (429, "rate_limited", "address")
        assert 0 < int(refused.headers["Retry-After"]) <= 900
    limits = {"provisioning_key_claims": 2, "provisioning_key_claim_seconds": 900.0}
    async with running(make_settings(sqlite_url, **limits)) as client:
        token = await client.new_user()
        keys = [(await new_key(client, token))["key"] for _ in range(2)]
        assert [(await claim(client, keys[0])).status for _ in range(3)] == [201, 200, 429]
        assert (await claim(client, keys[1])).status == 200
        assert client.metric("tidegate_auth_rate_limited_total", scope="key") == 1


async def test_a_hundred_claims_at_once_make_exactly_as_many_devices_as_the_key_permits(client: Client) -> None:
    token = await client.new_user()
    key = await new_key(client, token, maxDevices=37)
    answers = await asyncio.gather(*(claim(client, key["key"], f"d{n}") for n in range(100)))
    assert sorted(answer.status for answer in answers) == [201] * 37 + [403] * 63
    assert {answer.json["code"] for answer in answers if answer.status == 403} == {"too_many_claims"}
    assert (await listed(client, token))[0]["claimed"] == 37
    assert len((await client.get("/devices?limit=1000", token=token)).json["items"]) == 37


async def test_of_claims_of_one_device_with_several_secrets_at_once_one_wins(client: Client) -> None:
    token = await client.new_user()
    key = (await new_key(client, token, maxDevices=1))["key"]
    answers = await asyncio.gather(*(claim(client, key, secret=f"{n % 5}" * 32) for n in range(50)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [201] + [409] * 40


async def test_a_thousand_claims_with_lost_answers_make_each_device_once_and_leave_none_without_a_token(
    mariadb_url: str, seed: int
) -> None:
    """A hundred at once; a fifth of the answers is lost, and some of the connections before there is one."""
    await migrate(mariadb_url)
    async with running(make_settings(mariadb_url, database_timeout_seconds=300.0)) as client:
        await _claim_a_thousand(client, random.Random(seed))


async def _claim_a_thousand(client: Client, dice: random.Random) -> None:
    token = await client.new_user()
    key = (await new_key(client, token, maxDevices=1000))["key"]
    at_once = asyncio.Semaphore(100)

    async def device(number: int) -> tuple[str, str]:
        body = {
            "provisioningKey": key,
            "hardwareId": f"d{number}",
            "sensorType": "t",
            "claimSecret": secrets.token_hex(16),
        }
        async with at_once:
            for attempt in range(10):
                wait_s = 0.1 if attempt == 0 and dice.random() < 0.1 else None
                try:
                    async with asyncio.timeout(wait_s):
                        answer = await client.post("/devices/claim", body)
                except (TimeoutError, aiohttp.ClientError):
                    continue
                assert answer.status in (200, 201), answer.raw
                if dice.random() > 0.2:
                    return answer.json["id"], answer.json["token"]
        raise AssertionError("ten answers lost in a row")

    claimed = await asyncio.gather(*(device(number) for number in range(1000)))
    assert len({device_id for device_id, _ in claimed}) == 1000
    listed_devices = (await client.get("/devices?limit=1000", token=token)).json
    assert {item["id"] for item in listed_devices["items"]} == {device_id for device_id, _ in claimed}
    assert "nextCursor" not in listed_devices
    assert all(claims_of(issued)["device"] == device_id for device_id, issued in claimed)
    assert (await listed(client, token))[0]["claimed"] == 1000
    for _, issued in dice.sample(claimed, 20):
        assert await is_active(client, issued)
