"""Registered devices are changed, removed and their tokens revoked, by their owner only."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from auth.accounts import Accounts
from auth.devices import DeviceRegistry
from auth.errors import NoSuchDeviceError
from auth.metrics import AuthMetrics
from auth.passwords import password_hasher
from auth.tokens.revocations import RevocationLog
from database.connection import open_database
from tests.auth.service import Answer, Client

GONE = "0190b5a0-0000-7000-8000-000000000000"


async def change(client: Client, token: str, device_id: str, **fields: Any) -> Answer:
    return await client.call("PATCH", f"/devices/{device_id}", json=fields, token=token)


async def device_token(client: Client, token: str, device_id: str) -> str:
    answer = await client.post(f"/devices/{device_id}/token", token=token)
    assert answer.status == 201
    return str(answer.json["token"])


async def test_a_device_is_changed_field_by_field(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token, name="press-1")
    for fields in ({"name": "press-2"}, {"sensorType": "vibration"}, {"location": {"lat": 1.5, "lon": 2.5}}):
        device |= fields
        answer = await change(client, token, device["id"], **fields)
        assert (answer.status, answer.json) == (200, device)
    assert (await client.get(f"/devices/{device['id']}", token=token)).json == device
    assert (await change(client, token, device["id"], name="press-2")).json == device, "its own name is free to it"


async def test_the_next_token_says_what_was_changed(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    old = await device_token(client, token, device["id"])
    await change(client, token, device["id"], sensorType="vibration", location="hall 4")
    new = await device_token(client, old, device["id"])
    claims = (await client.get("/user/token", token=new)).json
    assert (claims["sensorType"], claims["location"]) == ("vibration", "hall 4")
    assert (await client.get("/user/token", token=old)).status == 200, "a change ends no token"


async def test_a_name_that_another_device_of_the_owner_has_is_refused(client: Client) -> None:
    ada, bob = await client.new_user("ada@example.org"), await client.new_user("bob@example.org")
    await client.new_device(ada, name="press-1")
    second = await client.new_device(ada, name="press-2")
    answer = await change(client, ada, second["id"], name="press-1", sensorType="vibration")
    assert (answer.status, answer.json["code"]) == (409, "taken")
    assert (await client.get(f"/devices/{second['id']}", token=ada)).json == second, "nothing of it was changed"
    bobs = await client.new_device(bob, name="press-3")
    assert (await change(client, bob, bobs["id"], name="press-1")).status == 200


async def test_of_two_devices_that_take_one_name_at_once_one_gets_it(client: Client) -> None:
    token = await client.new_user()
    devices = [await client.new_device(token) for _ in range(4)]
    answers = await asyncio.gather(*(change(client, token, device["id"], name="press-1") for device in devices))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, {"name": "invalid"}),
        ({"name": None}, {"name": "invalid"}),
        ({"sensorType": "a b"}, {"sensorType": "invalid"}),
        ({"location": {"lat": 91, "lon": 0}}, {"location.lat": "invalid"}),
        ({"location": "hall\0"}, {"location": "invalid"}),
        ({"id": GONE}, {"id": "unknown"}),
        ({"owner": "bob", "name": "x"}, {"owner": "unknown"}),
    ],
)
async def test_a_wrong_change_names_the_field(client: Client, fields: dict[str, Any], wrong: dict[str, str]) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    answer = await change(client, token, device["id"], **fields)
    assert (answer.status, answer.fields) == (422, wrong)
    assert (await client.get(f"/devices/{device['id']}", token=token)).json == device


async def test_a_change_of_nothing_is_refused(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    for answer in (
        await change(client, token, device["id"]),
        await client.call("PATCH", "/user/me", json={}, token=token),
    ):
        assert (answer.status, answer.fields) == (422, {"": "invalid"})


async def test_nobody_touches_another_owners_device(client: Client) -> None:
    ada, bob = await client.new_user("ada@example.org"), await client.new_user("bob@example.org")
    device = await client.new_device(ada, name="press-1")
    held = await device_token(client, ada, device["id"])
    path = f"/devices/{device['id']}"
    for answer in (
        await change(client, bob, device["id"], name="mine"),
        await client.call("DELETE", path, token=bob),
        await client.call("DELETE", f"{path}/tokens", token=bob),
    ):
        assert (answer.status, answer.json["code"]) == (404, "no_such_device")
    assert (await client.get(path, token=ada)).json == device
    assert (await client.get("/user/token", token=held)).status == 200


async def test_a_device_does_not_change_or_remove_itself(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token)
    held = await device_token(client, token, device["id"])
    path = f"/devices/{device['id']}"
    for answer in (
        await change(client, held, device["id"], name="free"),
        await client.call("DELETE", path, token=held),
        await client.call("DELETE", f"{path}/tokens", token=held),
        await client.get("/user/me", token=held),
        await client.post("/user/logout", token=held),
    ):
        assert (answer.status, answer.json["code"]) == (403, "forbidden")
    assert (await client.get(path, token=token)).json == device


@pytest.mark.parametrize("device_id", [GONE, "x", "%00", "' OR 1=1 --", GONE + "%0A"])
async def test_a_device_that_is_not_there_cannot_be_changed_or_ended(client: Client, device_id: str) -> None:
    token = await client.new_user()
    assert (await change(client, token, device_id, name="x")).status == 404
    assert (await client.call("DELETE", f"/devices/{device_id}", token=token)).status == 404
    assert (await client.call("DELETE", f"/devices/{device_id}/tokens", token=token)).status == 404


async def test_a_removed_device_is_gone_and_its_name_is_free(client: Client) -> None:
    token = await client.new_user()
    device = await client.new_device(token, name="press-1")
    held = await device_token(client, token, device["id"])
    assert (await client.call("DELETE", f"/devices/{device['id']}", token=token)).status == 204
    assert (await client.get(f"/devices/{device['id']}", token=token)).status == 404
    assert (await client.call("DELETE", f"/devices/{device['id']}", token=token)).status == 404
    assert (await client.post(f"/devices/{device['id']}/token", token=held)).json["code"] == "revoked"
    assert (await client.new_device(token, name="press-1"))["id"] != device["id"]


async def test_a_disabled_owners_device_has_no_token_issued(client: Client, database_url: str) -> None:
    """Also if the owner is disabled between the verification of the token and the issue of the next one."""
    token = await client.new_user()
    device = await client.new_device(token)
    owner = (await client.get("/user/me", token=token)).json["id"]
    async with open_database(database_url, connections=1, timeout_s=5) as database:
        revocations = RevocationLog(database, access_s=60, device_s=60)
        devices = DeviceRegistry(database, revocations, 10)
        with password_hasher(cost=4, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())) as passwords:
            accounts = Accounts(database, passwords, revocations)
            assert (await devices.find_to_issue(owner, device["id"])).gen == 0
            await accounts.disable(owner)
            with pytest.raises(NoSuchDeviceError):
                await devices.find_to_issue(owner, device["id"])
            await accounts.enable(owner)
            assert (await devices.find_to_issue(owner, device["id"])).gen == 1
