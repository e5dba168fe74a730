"""Operators rotate and retire keys while services run."""

import asyncio
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from access.claims import MAX_API_KEY_LIFETIME_S
from access.revocations import RevocationList
from access.tokens import KeySet, TokenError, TokenVerifier, fetch_jwks_over_http
from auth.migrate import migrate
from auth.tokens import revocations as auth_revocations
from database.connection import open_database
from runtime.times import now_ms, rfc3339
from tests.auth.processes import Ran, auth, keys
from tests.auth.service import SECRET, Client, kid_of, make_settings, new_token, published, running, until_published


async def test_a_rotation_needs_no_restart_and_drops_nobody_and_a_retired_key_ends_its_tokens(
    database_url: str,
) -> None:
    async with (
        running(make_settings(database_url)) as first,
        running(make_settings(database_url)) as second,
        aiohttp.ClientSession() as session,
    ):
        replicas = (first, second)
        # Two gateways, each of which asks another replica than the one that signs.
        gateways = [KeySet(fetch_jwks_over_http(session, replica.url)) for replica in (second, first)]
        old_token = await first.new_user()
        old = kid_of(old_token)
        for gateway in gateways:
            await TokenVerifier(gateway).verify(old_token)
        made = (await first.post("/keys", {"name": "export", "scope": ["readings:read"]}, token=old_token)).json

        rotated = await keys(database_url, "rotate", KEY_PUBLISH_SECONDS="3")
        assert rotated.code == 0, rotated.err
        assert "[auth.audit] by=operator" in rotated.err
        new = rotated.out.strip()
        async with asyncio.timeout(10):
            for replica, gateway in zip(replicas, gateways, strict=True):
                while kid_of(token := await new_token(replica)) != new:
                    await TokenVerifier(gateway).verify(token)
                # The first token of the new key, at a gateway that has not met it.
                await TokenVerifier(gateway).verify(token)
                await TokenVerifier(gateway).verify(old_token)
                assert (await replica.get("/user/token", token=old_token)).status == 200
                assert await published(replica) == [old, new]

        refused = await keys(database_url, "retire", new)
        assert (refused.code, refused.err) == (1, "This key signs; rotate first.\n")
        row = msgspec.json.decode((await auth(database_url, "keys", "list", "--json")).out)[0]
        assert (row["kid"], row["apiKeys"], row["apiKeysUntil"]) == (old, 1, made["expiresAt"])
        retired = await keys(database_url, "retire", old)
        assert (retired.code, retired.out) == (0, "API keys ended: 1\n"), retired.err
        assert (await first.get("/user/token", token=made["key"])).status == 401
        for replica in replicas:
            assert (await replica.get("/user/token", token=old_token)).status == 401, "at once"
        await every_service_refuses(gateways, replicas, old_token)
        for replica in replicas:
            await until_published(replica, [new])
        for gateway in gateways:
            assert await gateway.refresh()  # each minute
            with pytest.raises(TokenError):
                await TokenVerifier(gateway).verify(old_token)
            await TokenVerifier(gateway).verify(await new_token(first))


async def every_service_refuses(gateways: list[KeySet], replicas: tuple[Client, ...], token: str) -> None:
    """Each polls another replica for revocations while it still has the key."""
    for gateway, replica in zip(gateways, replicas, strict=True):
        verified = await TokenVerifier(gateway).verify(token)
        listed = RevocationList(replica.service.revocations)
        assert await listed.refresh()
        with pytest.raises(TokenError) as refused:
            listed.require_active(verified)
        assert refused.value.code == "revoked"


async def rotated_at_once(url: str) -> Ran:
    return await auth(url, "keys", "rotate", SIGNING_KEY_SECRET=SECRET, KEY_PUBLISH_SECONDS="0")


async def test_a_retired_key_is_revoked_with_its_retirement_for_as_long_as_any_token_of_it_could_live(
    database_url: str,
) -> None:
    assert (await rotated_at_once(database_url)).code == 0
    assert (await rotated_at_once(database_url)).code == 0
    old = msgspec.json.decode((await auth(database_url, "keys", "list", "--json")).out)[0]["kid"]
    async with open_database(database_url, connections=1, timeout_s=5) as database:
        revocations = auth_revocations.RevocationLog(database, access_s=60, device_s=60)
        refused = await keys(database_url, "retire", "unknown")
        assert refused.code == 1
        assert (await revocations.after(None)).items == []
        assert (await keys(database_url, "retire", old)).code == 0
        (item,) = (await revocations.after(None)).items
        assert (item.kind, item.id, item.gen) == ("kid", old, None)
        lives_s = (item.until_ms - now_ms()) / 1000
        assert MAX_API_KEY_LIFETIME_S < lives_s < MAX_API_KEY_LIFETIME_S + 120, (
            "whoever else has the key may have signed for so long"
        )
        # Again, for a key that an older release retired without a word to anybody.
        assert (await keys(database_url, "retire", old)).code == 0
        assert [one.id for one in (await revocations.after(None)).items] == [old, old]


async def test_auth_refuses_a_retired_key_at_once_whatever_its_own_clock_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make_settings(database_url)) as client:
        token = await client.new_user()
        device = await client.new_device(token)
        device_token = (await client.post(f"/devices/{device['id']}/token", token=token)).json["token"]
        rotated = await rotated_at_once(database_url)
        assert rotated.code == 0, rotated.err
        async with asyncio.timeout(10):
            while kid_of(await new_token(client)) == kid_of(token):
                await asyncio.sleep(0.05)
        real_ns = time.time_ns  # by which keys are taken out of the JWKS
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() - 600 * 10**9)
        retired = await keys(database_url, "retire", kid_of(token))
        assert retired.code == 0, retired.err
        for one in (token, device_token):
            answer = await client.get("/user/token", token=one)
            # `unauthorized` once the key is out of the JWKS, which goes by the database's clock, too.
            assert answer.status == 401
            assert answer.json["code"] in {"revoked", "unauthorized"}


async def test_keys_are_listed_with_what_they_do_and_no_secret_is_needed(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    first, second = [(await keys(sqlite_url, "rotate", "--now")).out.strip() for _ in range(2)]
    listed = msgspec.json.decode((await auth(sqlite_url, "keys", "list", "--json")).out)
    assert [(key["number"], key["kid"], key["state"]) for key in listed] == [
        (1, first, "verifying"),
        (2, second, "signing"),
    ]
    month = 30 * 86_400_000
    assert listed[0]["retiresAt"] > rfc3339(now_ms() + month)
    assert listed[1]["retiresAt"] is None
    table = (await auth(sqlite_url, "keys", "list")).out
    assert first in table
    assert f"verifying until {listed[0]['retiresAt']}" in table
    assert (await auth(sqlite_url, "keys", "retire", first)).code == 0
    assert "retired" in (await auth(sqlite_url, "keys", "list")).out
    assert (await auth(sqlite_url, "keys", "retire", "unknown")).err == "There is no key unknown.\n"


async def test_two_rotations_at_once_leave_one_key_that_signs(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        done = await asyncio.gather(*(keys(database_url, "rotate") for _ in range(3)))
        assert [ran.code for ran in done].count(0) == 1
        for ran in done:
            assert ran.code == 0 or "Another rotation was faster" in ran.err or "is published and signs from" in ran.err
        listed = msgspec.json.decode((await auth(database_url, "keys", "list", "--json")).out)
        assert [key["state"] for key in listed].count("signing") == 1
        assert len(await published(client)) == len(listed) == 1 + sum(ran.code == 0 for ran in done)


async def test_another_secret_cannot_rotate(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    await keys(sqlite_url, "rotate")
    ran = await auth(sqlite_url, "keys", "rotate", SIGNING_KEY_SECRET="another secret altogether")
    assert ran.code == 1
    assert ran.err.startswith("SIGNING_KEY_SECRET does not open the signing key")
    missing = await auth(sqlite_url, "keys", "rotate")
    assert (missing.code, "SIGNING_KEY_SECRET" in missing.err, "SIGNING_KEY_FILES" in missing.err) == (2, True, True)


async def test_keys_from_files_serve_and_are_changed_as_files(sqlite_url: str, tmp_path: Path) -> None:
    await migrate(sqlite_url)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = tmp_path / "key.pem"
    file.write_bytes(pem)
    settings = make_settings(sqlite_url, signing_key_secret="", signing_key_files=(str(file),))
    async with running(settings) as client:
        token = await client.new_user()
        assert await published(client) == [kid_of(token)]
        assert (await client.get("/user/token", token=token)).status == 200
    listed = await auth(sqlite_url, "keys", "list", "--json", SIGNING_KEY_FILES=str(file))
    assert [(key["kid"], key["state"]) for key in msgspec.json.decode(listed.out)] == [(kid_of(token), "signing")]
    taken_out = "x" * 43
    assert (await auth(sqlite_url, "keys", "retire", taken_out, SIGNING_KEY_FILES=str(file))).code == 0
    odd = await auth(sqlite_url, "keys", "retire", "odd", SIGNING_KEY_FILES=str(file))
    assert (odd.code, odd.err) == (1, "'odd' is not the id of a key: 43 characters, as `list` shows it.\n")
    async with running(settings) as client:
        items = msgspec.json.decode(await client.service.revocations(None))["items"]
        assert [(item["kind"], item["id"]) for item in items] == [("kid", taken_out)]
    for command in (("rotate",), ("retire", "--", kid_of(token))):
        ran = await auth(sqlite_url, "keys", *command, SIGNING_KEY_FILES=str(file))
        assert (ran.code, "SIGNING_KEY_FILES" in ran.err) == (1, True)
