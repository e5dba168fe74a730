"""No session makes a key, which would outlive it, after its end, however long its request takes."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

import auth.accounts
import auth.http.api_keys
import auth.http.provisioning
import auth.tokens.status
from auth.migrate import migrate
from auth.tokens.stored_keys import StoredKeys
from database.connection import open_database
from database.tables import api_keys, provisioning_keys
from runtime.http.bodies import read_json
from tests.auth.service import (
    SECRET,
    Client,
    accounts,
    claims_of,
    is_active,
    kid_of,
    listed_revocations,
    make_settings,
    running,
)

BODIES: dict[str, dict[str, Any]] = {
    "/keys": {"name": "export", "scope": ["readings:read", "devices:manage"]},
    "/provisioning": {"name": "batch 7", "maxDevices": 10},
}


async def end(client: Client, url: str, token: str, how: str) -> None:
    """End the session of a token from elsewhere."""
    owner = claims_of(token)["sub"]
    async with accounts(url) as operator:
        if how == "disabled":
            await operator.disable(owner)
            await operator.enable(owner)
        elif how == "new password":
            await operator.change(owner, password="another good one", end_keys=True)
        elif how == "account deleted":
            await operator.delete(owner)
    if how == "logged out":
        assert (await client.post("/user/logout", token=token)).status == 204
    if how == "signing key retired":
        async with open_database(url, connections=1, timeout_s=10) as database:
            stored = StoredKeys(database, SECRET)
            await stored.rotate(3600, 0)
            await stored.retire(kid_of(token))


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "how", ["disabled", "new password", "logged out", "account deleted", "signing key retired"], ids=str
)
async def test_a_session_that_ends_before_its_body_has_arrived_makes_no_key(
    sqlite_client: Client, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, how: str, path: str
) -> None:
    ada = await sqlite_client.new_user()

    async def read_late(*arguments: Any) -> Any:
        await end(sqlite_client, sqlite_url, ada, how)
        return await read_json(*arguments)

    for module in (auth.http.api_keys, auth.http.provisioning):
        monkeypatch.setattr(module, "read_json", read_late)
    answer = await sqlite_client.post(path, BODIES[path], token=ada)
    assert (answer.status, answer.json["code"]) == (401, "revoked")
    assert not await is_active(sqlite_client, ada)
    async with open_database(sqlite_url, connections=1, timeout_s=10) as database, database.connect() as connection:
        for keys in (api_keys, provisioning_keys):
            assert (await connection.execute(select(keys))).all() == []


@pytest.mark.parametrize("path", BODIES)
async def test_a_request_that_waits_while_its_user_is_disabled_makes_no_key(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    await migrate(mariadb_url)
    async with running(make_settings(mariadb_url)) as client, accounts(mariadb_url) as operator:
        ada = await client.new_user()
        lock, authorized, locked = auth.accounts.lock_user, asyncio.Event(), asyncio.Event()

        async def lock_then_wait(connection: AsyncConnection, user_id: str) -> None:
            await lock(connection, user_id)
            locked.set()
            await authorized.wait()

        async def lock_authorized(connection: AsyncConnection, user_id: str) -> None:
            authorized.set()
            await lock(connection, user_id)

        monkeypatch.setattr(auth.accounts, "lock_user", lock_then_wait)
        monkeypatch.setattr(auth.tokens.status, "lock_user", lock_authorized)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(operator.disable(claims_of(ada)["sub"]))
            await locked.wait()
            answer = await client.post(path, BODIES[path], token=ada)
        assert (answer.status, answer.json["code"]) == (401, "revoked")
        assert [kind for kind, _ in await listed_revocations(client)] == ["user"]
