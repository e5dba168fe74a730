"""A new key is published before it signs, so that verifiers that cache keys have it before its first token."""

import asyncio
import time
from datetime import datetime
from typing import Any

import jwt
import msgspec
import pytest
from sqlalchemy import insert, select, update

from auth.migrate import migrate
from auth.tokens.stored_keys import StoredKeys, StoredKeySet
from database.connection import open_database
from database.tables import api_keys, signing_keys
from tests.auth.processes import auth, keys
from tests.auth.rows import change
from tests.auth.service import SECRET, Client, kid_of, make_settings, new_token, published, running, until_published

MONTH_MS = 30 * 86_400_000
LATE_MS = 60_000


async def listed(url: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = msgspec.json.decode((await auth(url, "keys", "list", "--json")).out)
    return rows


async def rotated(url: str, *arguments: str, **variables: str) -> str:
    ran = await keys(url, "rotate", *arguments, **variables)
    assert ran.code == 0, ran.err
    return ran.out.strip()


async def until_signs(client: Client, kid: str) -> None:
    async with asyncio.timeout(10):
        while kid_of(await new_token(client)) != kid:
            await asyncio.sleep(0.02)


def milliseconds(shown: str) -> int:
    return round(datetime.fromisoformat(shown).timestamp() * 1000)


async def test_who_keeps_a_copy_of_the_keys_refuses_no_token_of_a_new_one(database_url: str) -> None:
    """Like jose, which fetches a key set at most every 30 s; here 2 s, and 5 s instead of the 60 s."""
    async with running(make_settings(database_url)) as first, running(make_settings(database_url)) as second:
        await first.sign_up()
        kept = jwt.PyJWKSet.from_dict((await first.get("/.well-known/jwks.json")).json)
        (old,) = await published(first)
        rotating = asyncio.create_task(rotated(database_url, KEY_PUBLISH_SECONDS="5"))
        async with asyncio.timeout(30):
            while (there := await published(second)) == [old]:
                await asyncio.sleep(0.02)
            begun, asked_again, new, signed_by = time.monotonic(), False, there[-1], set[tuple[int, str]]()
            while signed_by < {(0, old), (0, new), (1, old), (1, new)}:
                if not asked_again and time.monotonic() > begun + 2:
                    asked_again, kept = True, jwt.PyJWKSet.from_dict((await second.get("/.well-known/jwks.json")).json)
                for number, replica in enumerate((first, second)):
                    token = await new_token(replica)
                    signed_by.add((number, kid_of(token)))
                    jwt.decode(token, kept[kid_of(token)], algorithms=["EdDSA"], audience="tidegate")
        assert await rotating == new


async def test_a_new_key_is_listed_as_published_with_when_it_signs_and_then_the_old_ones_time_begins(
    database_url: str,
) -> None:
    async with running(make_settings(database_url)) as client:
        old = kid_of(await client.new_user())
        new = await rotated(database_url)
        before, after = await listed(database_url)
        assert (before["kid"], before["state"], after["kid"], after["state"]) == (old, "signing", new, "published")
        assert milliseconds(after["signsAt"]) == milliseconds(after["createdAt"]) + 60_000
        # From when the new one signs: the old one's last token is that young.
        assert milliseconds(before["retiresAt"]) == milliseconds(after["signsAt"]) + MONTH_MS + LATE_MS
        assert after["retiresAt"] is None
        assert f"published, signs from {after['signsAt']}" in (await auth(database_url, "keys", "list")).out
        await until_published(client, [old, new])
        assert kid_of(await new_token(client)) == old

        again = await keys(database_url, "rotate")
        assert again.code == 1
        assert again.err == (
            f"The key {new} is published and signs from {after['signsAt']}: wait until then, let it sign at once with "
            "--now, or retire it.\n"
        )
        await change(database_url, update(signing_keys).values(signs_at_ms=signing_keys.c.signs_at_ms - 60_000))
        await until_signs(client, new)
        assert [row["state"] for row in await listed(database_url)] == ["verifying", "signing"]


async def test_in_an_emergency_a_new_key_signs_at_once(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        old = kid_of(await client.new_user())
        ran = await keys(database_url, "rotate", "--now")
        assert (ran.code, "[auth.audit] by=operator" in ran.err) == (0, True), ran.err
        await until_signs(client, ran.out.strip())
        assert (await keys(database_url, "retire", old)).code == 0
        await until_published(client, [ran.out.strip()])


async def test_in_an_emergency_a_key_that_was_published_signs_at_once(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        await client.sign_up()
        new = await rotated(database_url)
        planned = (await listed(database_url))[0]["retiresAt"]
        assert await rotated(database_url, "--now") == new, "no third key"
        await until_signs(client, new)
        before, after = await listed(database_url)
        assert (before["state"], after["state"]) == ("verifying", "signing")
        assert milliseconds(before["retiresAt"]) == milliseconds(after["signsAt"]) + MONTH_MS + LATE_MS
        assert before["retiresAt"] < planned


async def test_a_published_key_that_is_retired_never_signs_and_the_one_before_it_stays(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        old = kid_of(await client.new_user())
        new = await rotated(database_url, KEY_PUBLISH_SECONDS="1000")
        early = await keys(database_url, "retire", old)
        assert (early.code, "`keys rotate --now`" in early.err) == (1, True)
        assert (await keys(database_url, "retire", new)).code == 0
        assert [(row["state"], row["retiresAt"] is None) for row in await listed(database_url)] == [
            ("signing", True),
            ("retired", False),
        ]
        await until_published(client, [old])
        # Its time comes, and changes nothing.
        await change(
            database_url, update(signing_keys).where(signing_keys.c.kid == new).values(signs_at_ms=1, retires_at_ms=1)
        )
        assert kid_of(await new_token(client)) == old
        third = await rotated(database_url, "--now")
        await until_signs(client, third)
        assert [row["state"] for row in await listed(database_url)] == ["verifying", "retired", "signing"]


async def test_without_a_time_of_publication_and_as_the_first_a_key_signs_at_once(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    first = await rotated(sqlite_url)
    assert [(row["kid"], row["state"]) for row in await listed(sqlite_url)] == [(first, "signing")]
    second = await rotated(sqlite_url, KEY_PUBLISH_SECONDS="0")
    assert [row["state"] for row in await listed(sqlite_url)] == ["verifying", "signing"]
    # As a release before this one has made it.
    await change(sqlite_url, update(signing_keys).values(signs_at_ms=None))
    assert [(row["kid"], row["state"]) for row in await listed(sqlite_url)][1] == (second, "signing")


async def test_when_a_key_begins_to_sign_the_database_servers_clock_says(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(mariadb_url)
    async with open_database(mariadb_url, connections=1, timeout_s=10) as database:
        stored = StoredKeys(database, SECRET)
        old = (await stored.load()).kid
        hosts_clock = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: hosts_clock() + 3_600_000_000_000)  # an hour ahead
        new = (await stored.rotate(keep_s=3600, publish_s=60)).kid
        assert [row.kid for row, state in await stored.listed() if state == "published"] == [new]
        monkeypatch.setattr(time, "time_ns", lambda: hosts_clock() + 2 * 3_600_000_000_000)  # another operator's host
        assert (await stored.load()).kid == old
        assert set((await stored.load()).public) == {old, new}


async def test_a_clock_that_is_set_back_gives_no_ended_key_its_rights_back(database_url: str) -> None:
    """Otherwise the retired key would sign tokens that all services refuse, and the withdrawn one would verify."""
    await migrate(database_url)
    async with open_database(database_url, connections=1, timeout_s=10) as database:
        stored = StoredKeys(database, SECRET)
        old = (await stored.load()).kid
        new = (await stored.rotate(3600, 0)).kid
        await stored.retire(old)
        withdrawn = (await stored.rotate(3600, 60)).kid
        await stored.retire(withdrawn)
        now = await stored._read()
        hour_before = StoredKeySet(now.rows, now.now - 3_600_000)
        for keys_then in (now, hour_before):
            assert {row.kid: keys_then.state(row) for row in keys_then.rows} == {
                old: "retired",
                new: "signing",
                withdrawn: "retired",
            }
        ended = milliseconds((await listed(database_url))[0]["retiresAt"])
    assert abs(ended - now.now) < 60_000, "when it was ended is still told"


async def test_a_signing_key_verifies_until_the_last_api_key_that_it_signed_has_ended(database_url: str) -> None:
    async with (
        running(make_settings(database_url)) as client,
        open_database(database_url, connections=1, timeout_s=10) as database,
    ):
        stored, token = StoredKeys(database, SECRET), await client.new_user()
        body = {"name": "export", "scope": ["readings:read"]}
        made = [(await client.post("/keys", body, token=token)).json for _ in range(2)]
        old = kid_of(token)
        new = (await stored.rotate(3600, 0)).kid
        # The last other token that it signed has expired.
        await change(database_url, update(signing_keys).where(signing_keys.c.kid == old).values(retires_at_ms=1))
        await until_signs(client, new)
        for key, kept in ((made[0], [old, new]), (made[1], [new])):
            assert (await client.get("/user/token", token=made[1]["key"])).status == 200
            assert await published(client) == [old, new]
            ((row, state), _) = await stored.listed()
            assert (state, row.ends_at_ms) == ("verifying", milliseconds(made[1]["expiresAt"]) + LATE_MS)
            answer = await client.call("DELETE", f"/keys/{key['id']}", token=await new_token(client))
            assert answer.status == 204
            await until_published(client, kept)
        assert [state for _, state in await stored.listed()] == ["retired", "signing"]


async def test_a_retired_signing_key_ends_its_api_keys_and_what_they_issued_whatever_signed_that(
    database_url: str,
) -> None:
    async with (
        running(make_settings(database_url)) as client,
        open_database(database_url, connections=1, timeout_s=10) as database,
    ):
        stored, token = StoredKeys(database, SECRET), await client.new_user()
        device = (await client.new_device(token))["id"]
        body = {"name": "export", "scope": ["devices:manage"]}
        old_key = (await client.post("/keys", body, token=token)).json["key"]
        new = (await stored.rotate(3600, 0)).kid
        await until_signs(client, new)
        new_key = (await client.post("/keys", body, token=await new_token(client))).json["key"]
        issued = [
            (await client.post(f"/devices/{device}/token", token=key)).json["token"] for key in (old_key, new_key)
        ]
        assert [kid_of(each) for each in issued] == [new, new]
        assert await stored.retire(kid_of(old_key)) == 1
        for each, status in ((old_key, 401), (issued[0], 401), (new_key, 200), (issued[1], 200)):
            assert (await client.get("/user/token", token=each)).status == status
        items = (await client.get("/revocations")).json["items"]
        assert [item["kind"] for item in items] == ["kid", "jti"]


async def test_a_key_that_only_api_keys_kept_is_retired_for_good_and_a_late_row_of_one_is_invalid(
    sqlite_url: str,
) -> None:
    await migrate(sqlite_url)
    async with (
        running(make_settings(sqlite_url)) as client,
        open_database(sqlite_url, connections=1, timeout_s=10) as database,
    ):
        stored, token = StoredKeys(database, SECRET), await client.new_user()
        device, old = (await client.new_device(token))["id"], kid_of(token)
        key = (await client.post("/keys", {"name": "export", "scope": ["devices:manage"]}, token=token)).json["key"]
        await until_signs(client, (await stored.rotate(3600, 0)).kid)
        issued = (await client.post(f"/devices/{device}/token", token=key)).json["token"]
        expired = update(signing_keys).where(signing_keys.c.kid == old)
        await change(sqlite_url, expired.values(retires_at_ms=int(time.time() * 1000) - 1000))
        async with database.connect() as connection:
            (row,) = (await connection.execute(select(api_keys))).mappings()
        assert await stored.retire(old) == 1
        keys = await stored._read()
        assert StoredKeySet(keys.rows, keys.now - 5000).state(keys.rows[0]) == "retired", "of a clock that was set back"
        await change(sqlite_url, insert(api_keys).values(**row))  # as by a replica that still signs with it
        for path in ("/user/token", f"/devices/{device}/token"):
            answer = await client.call("GET" if path == "/user/token" else "POST", path, token=issued)
            assert (answer.status, answer.json["code"]) == (401, "revoked")
