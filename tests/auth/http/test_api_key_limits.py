"""How many API keys an owner has and has ended, with calls at the same time; and their times."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, update

from auth.tokens.api_key_rows import MAX_ENDED
from database.ids import new_id
from database.tables import api_keys, ended_api_keys
from runtime.times import rfc3339
from tests.auth.http.keys import ALL, listed, new_key
from tests.auth.rows import change
from tests.auth.service import PASSWORD, Client, accounts, claims_of, is_active, listed_revocations

BODY = {"name": "k", "scope": ALL}


async def test_keys_that_are_made_at_once_exceed_no_limit(client: Client, database_url: str) -> None:
    token = await client.new_user()
    row = {"owner_id": claims_of(token)["sub"], "scope": "readings:read", "kid": "x", "created_at_ms": 0}
    rows = [row | {"id": new_id(), "name": str(n), "expires_at_ms": 2**42} for n in range(93)]
    await change(database_url, insert(api_keys).values(rows))
    answers = await asyncio.gather(*(client.post("/keys", BODY, token=token) for _ in range(30)))
    assert sorted(answer.status for answer in answers) == [201] * 7 + [422] * 23
    assert len(await listed(client, token)) == 100


async def test_a_key_that_is_deleted_many_times_at_once_ends_once_and_others_are_made_meanwhile(client: Client) -> None:
    token = await client.new_user()
    made = await new_key(client, token)
    deleting = [client.call("DELETE", f"/keys/{made['id']}", token=token) for _ in range(10)]
    answers = await asyncio.gather(*deleting, *(client.post("/keys", BODY, token=token) for _ in range(10)))
    assert sorted(answer.status for answer in answers[:10]) == [204] + [404] * 9
    assert {answer.status for answer in answers[10:]} == {201}
    assert await listed_revocations(client) == [("jti", made["id"])]
    assert client.metric("tidegate_auth_endings_total", what="key") == 1
    for answer in answers[10:]:
        assert await is_active(client, answer.json["key"])


async def test_an_owner_ends_a_bounded_number_of_keys_before_they_expire(client: Client, database_url: str) -> None:
    """Each leaves a revocation with every gateway and reader until it would have expired."""
    ada, bob = await client.new_user(), await client.new_user("bob@example.org")
    owner = claims_of(ada)["sub"]
    made, first = await new_key(client, ada), round(time.time() * 1000) + 5_000_000
    rows = [{"owner_id": owner, "id": new_id(), "expires_at_ms": first + n} for n in range(MAX_ENDED - 1)]
    await change(database_url, insert(ended_api_keys).values(rows))
    kept = await new_key(client, ada)
    assert (await client.call("DELETE", f"/keys/{made['id']}", token=ada)).status == 204
    refused = await client.post("/keys", BODY, token=ada)
    assert (refused.status, refused.json["code"], refused.json["limit"]) == (422, "too_many_ended_keys", MAX_ENDED)
    assert rfc3339(first) in refused.json["detail"]
    assert await is_active(client, kept["key"])
    await new_key(client, bob)

    past = update(ended_api_keys).where(ended_api_keys.c.id.in_([row["id"] for row in rows[:2]]))
    await change(database_url, past.values(expires_at_ms=1))
    another = await new_key(client, ada)
    assert (await client.call("DELETE", f"/keys/{another['id']}", token=ada)).status == 204
    await new_key(client, ada)
    body = {"password": "another good one", "currentPassword": PASSWORD, "endKeys": True}
    assert (await client.call("PATCH", "/user/me", json=body, token=ada)).status == 200
    again = (await client.log_in(password="another good one")).json["accessToken"]
    assert (await client.post("/keys", BODY, token=again)).json["code"] == "too_many_ended_keys"
    async with accounts(database_url) as operator:
        await operator.delete(owner)


async def test_a_key_that_has_expired_does_not_count_as_ended(sqlite_client: Client, sqlite_url: str) -> None:
    token = await sqlite_client.new_user()
    made = await new_key(sqlite_client, token)
    await change(sqlite_url, update(api_keys).values(expires_at_ms=int(time.time() * 1000) - 1))
    row = {"owner_id": claims_of(token)["sub"], "expires_at_ms": 2**42}
    await change(sqlite_url, insert(ended_api_keys).values([row | {"id": new_id()} for _ in range(MAX_ENDED - 1)]))
    assert (await sqlite_client.call("DELETE", f"/keys/{made['id']}", token=token)).status == 204
    await new_key(sqlite_client, token)


async def test_a_key_expires_at_a_time_in_either_form(sqlite_client: Client) -> None:
    token = await sqlite_client.new_user()
    at_s = round((datetime.now(UTC) + timedelta(days=30)).timestamp())
    for expires_at in (at_s * 1000 + 999, rfc3339(at_s * 1000 + 999)):
        made = await new_key(sqlite_client, token, expiresAt=expires_at)
        assert (made["expiresAt"], claims_of(made["key"])["exp"]) == (rfc3339(at_s * 1000), at_s)
    for wrong in (1, -1, 2**63, 1.5, True):
        answer = await sqlite_client.post("/keys", BODY | {"expiresAt": wrong}, token=token)
        assert (answer.status, answer.fields) == (422, {"expiresAt": "invalid"})
