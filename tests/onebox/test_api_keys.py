"""API keys at every call of the OpenAPI document, on a real port: of all services in one application."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio

from testing.waiting import eventually
from tests.auth.service import accounts
from tests.onebox.everything import CALLS, PUBLIC, SCOPES, Client, everything
from tests.reader.harness import Mongo, make_reading, open_store


@pytest.fixture
async def client(tmp_path: Path, mongodb_database: Mongo) -> AsyncIterator[Client]:
    async with everything(tmp_path, mongodb_database) as found:
        yield found


async def test_a_key_at_every_call_does_what_its_scopes_and_devices_permit_and_nothing_else(
    client: Client, mongodb_database: Mongo
) -> None:
    paths = (await client.json("GET", "/openapi.json"))["paths"]
    declared = {f"{method.upper()} {path}": call for path, calls in paths.items() for method, call in calls.items()}
    assert set(declared) == PUBLIC | set(CALLS), "a new call is tried here, too"
    assert {name for name, call in declared.items() if not call["security"]} == PUBLIC

    ada, ada_token = await client.new_user("ada@example.org")
    _, bob_token = await client.new_user("bob@example.org")
    mine, other = await client.new_device(ada_token), await client.new_device(ada_token)
    others_token = (await client.json("POST", f"/devices/{other}/token", ada_token))["token"]
    async with open_store(mongodb_database) as store:
        for device in (mine, other):
            await store.insert(make_reading("hidden" if device == other else 1.0), device=device, owner=ada)
    before = await client.json("GET", f"/devices/{other}", ada_token)

    bob = (await client.new_key(bob_token))["key"]
    limited = (await client.new_key(ada_token, devices=[mine]))["key"]
    for name, call in CALLS.items():
        method, path = name.split(" ")
        # Another owner's key, and one that is limited to another device.
        status, text = await client.tried(name, other, bob)
        assert (status == 403) is (not call.scopes), (name, status, text)
        assert "hidden" not in text or method == "POST", name
        status, text = await client.tried(name, other, limited)
        refused = not call.scopes or call.of_all_devices or call.names_a_device(path)
        assert (status == 403) is refused, (name, status, text)
        assert "hidden" not in text or path == "/devices", name
        assert other not in text
    assert await client.json("GET", f"/devices/{other}", ada_token) == before
    assert (await client.call("GET", "/user/token", others_token))[0] == 200
    found = await client.json("GET", f"/readings?device={other}&sensorType=temperature", ada_token)
    assert [item["value"] for item in found["items"]] == ["hidden"]

    for scope in SCOPES:
        device = await client.new_device(ada_token)
        keys = [await client.new_key(ada_token, (scope,)), await client.new_key(ada_token, (scope,), devices=[device])]
        for (name, call), key in ((each, key) for each in CALLS.items() for key in keys):
            status, text = await client.tried(name, device, key["key"])
            permitted = call.permits(scope) and not ("devices" in key and call.of_all_devices)
            assert (status == 403) is not permitted, (scope, name, status, text)
            assert status != 401, (scope, name)
    assert len((await client.json("GET", "/keys", ada_token))["items"]) == 9
    whole = (await client.new_key(ada_token))["key"]
    for name, call in CALLS.items():
        if call.needs_each:
            assert (await client.tried(name, device, whole))[0] == 200, name
    assert (await client.json("GET", "/user/me", ada_token))["name"] == "Ada"


async def test_a_key_that_has_ended_and_what_it_issued_open_no_call_and_no_socket(
    client: Client, tmp_path: Path
) -> None:
    ada_id, ada = await client.new_user("ada@example.org")
    bob_id, bob = await client.new_user("bob@example.org")
    device, bobs = await client.new_device(ada), await client.new_device(bob)
    soon = int(time.time()) + 3
    keys = {
        "expired": (device, await client.new_key(ada, expiresAt=soon * 1000)),
        "deleted": (device, await client.new_key(ada)),
        "deleted and limited": (device, await client.new_key(ada, devices=[device])),
        "of a disabled account": (bobs, await client.new_key(bob)),
    }
    tokens: dict[str, tuple[str, str]] = {}
    for name, (its, made) in keys.items():
        issued = (await client.json("POST", f"/devices/{its}/token", made["key"]))["token"]
        tokens |= {name: (its, made["key"]), f"{name}, its device": (its, issued)}
    for name, (_, made) in keys.items():
        if name.startswith("deleted"):
            assert (await client.call("DELETE", f"/keys/{made['id']}", ada))[0] == 204
    async with accounts(f"sqlite+aiosqlite:///{tmp_path / 'users.db'}") as operator:
        await operator.disable(bob_id)

    async def all_ended() -> bool:
        sent = [await client.tried("POST /readings", its, token) for its, token in tokens.values()]
        return {status for status, _ in sent} == {401}

    await eventually(all_ended, "gateways have the revocations", timeout_s=20)
    for (what, (its, token)), name in itertools.product(tokens.items(), CALLS):
        status, text = await client.tried(name, its, token)
        assert status == 401, (what, name, text)
        assert json.loads(text)["code"] == ("expired" if what.startswith("expired") else "revoked"), (what, name)
    for what, (its, token) in tokens.items():
        socket = socketio.AsyncClient(reconnection=False)
        refused: asyncio.Queue[Any] = asyncio.Queue()
        socket.on("connect_error", refused.put_nowait)
        credentials = {"token": token} if what.endswith("device") else {"token": token, "device": its}
        with pytest.raises(socketio.exceptions.ConnectionError):
            await socket.connect(client.url, auth=credentials, transports=["websocket"])
        assert (await refused.get())["data"]["code"] in ("expired", "revoked"), what
    assert (await client.json("GET", "/user/me", ada))["id"] == ada_id
    assert (await client.call("GET", f"/devices/{device}", ada))[0] == 200


async def test_live_feeds_and_sockets_end_within_5_s_of_their_key_and_so_does_what_it_issued(client: Client) -> None:
    _, token = await client.new_user("ada@example.org")
    device = await client.new_device(token)
    made, kept = await client.new_key(token, devices=[device]), await client.new_key(token)
    issued = (await client.json("POST", f"/devices/{device}/token", made["key"]))["token"]
    gone: asyncio.Queue[str] = asyncio.Queue()
    sockets = []
    for name, credentials in (
        ("key", {"token": made["key"], "device": device}),
        ("issued", {"token": issued}),
        ("kept", {"token": kept["key"], "device": device}),
    ):
        socket = socketio.AsyncClient(reconnection=False)
        socket.on("auth_revoked", lambda _, name=name: gone.put_nowait(name))
        await socket.connect(client.url, auth=credentials, transports=["websocket"])
        sockets.append(socket)
    headers = {"Authorization": f"Bearer {made['key']}"}
    async with aiohttp.ClientSession() as session, session.get(f"{client.url}/live", headers=headers) as feed:
        assert feed.status == 200
        async with asyncio.timeout(5):
            assert (await client.call("DELETE", f"/keys/{made['id']}", token))[0] == 204
            ended = {await gone.get(), await gone.get()}
            text = (await feed.content.read()).decode()
    assert ended == {"key", "issued"}
    assert "event: revoked" in text
    for path in ("/series", "/devices"):
        assert (await client.call("GET", path, made["key"]))[0] == 401
        assert (await client.call("GET", path, kept["key"]))[0] == 200
    assert sockets[2].connected
    for socket in sockets:
        await socket.disconnect()
