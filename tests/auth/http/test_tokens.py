import asyncio
import time
from typing import Any

import aiohttp
import jwt
import pytest
from sqlalchemy import delete, update

from access.tokens import KeySet, TokenVerifier, fetch_jwks_over_http
from database.tables import devices, users
from tests.auth.rows import change
from tests.auth.service import Client, claims_of, make_settings, running


async def test_a_users_token_has_exactly_the_claims_of_the_design(client: Client) -> None:
    user = (await client.sign_up()).json
    before = int(time.time())
    token = (await client.log_in()).json["accessToken"]
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    assert set(header) == {"alg", "typ", "kid"}
    claims = claims_of(token)
    assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti", "owner", "scope", "sid", "gen", "client_id"}
    assert (claims["iss"], claims["aud"]) == ("tidegate", "tidegate")
    assert claims["sub"] == claims["owner"] == user["id"]
    assert claims["scope"] == "readings:write readings:read devices:manage alarms:manage"
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["gen"] == 0


@pytest.mark.parametrize("location", ["hall 3", {"lat": 48.2, "lon": 16.4}, {"lat": 1.0, "lon": 2.0, "alt": 3.0}])
async def test_a_devices_token_has_exactly_the_claims_of_the_design(client: Client, location: Any) -> None:
    owner = await client.new_user()
    device = await client.new_device(owner, name="press-1", sensorType="vibration", location=location)
    token = (await client.post(f"/devices/{device['id']}/token", token=owner)).json["token"]
    claims = claims_of(token)
    assert set(claims) == {
        *("iss", "aud", "sub", "iat", "exp", "jti", "owner", "scope", "gen"),
        *("device", "sensorType", "location", "client_id"),
    }
    assert claims["sub"] == claims["device"] == device["id"]
    assert claims["owner"] == claims_of(owner)["sub"]
    assert claims["scope"] == "readings:write"
    assert claims["exp"] - claims["iat"] == 30 * 86400
    assert (claims["sensorType"], claims["location"], claims["gen"]) == ("vibration", location, 0)


async def test_tokens_are_as_rfc_9068_asks(client: Client) -> None:
    owner = await client.new_user()
    device = await client.new_device(owner)
    token = (await client.post(f"/devices/{device['id']}/token", token=owner)).json["token"]
    for presented, client_id in ((owner, "tidegate"), (token, device["id"])):
        assert jwt.get_unverified_header(presented)["typ"] == "at+jwt"  # 2.1
        claims = claims_of(presented)
        assert {name: type(claims[name]) for name in ("iss", "aud", "sub", "client_id", "jti", "iat", "exp")} == {
            **dict.fromkeys(("iss", "aud", "sub", "client_id", "jti"), str),
            **dict.fromkeys(("iat", "exp"), int),
        }  # 2.2
        assert claims["client_id"] == client_id
        assert isinstance(claims["scope"], str)  # 2.2.3


async def test_each_token_has_its_own_id_and_each_log_in_its_own_family(client: Client) -> None:
    await client.sign_up()
    first, second = [claims_of((await client.log_in()).json["accessToken"]) for _ in range(2)]
    assert first["jti"] != second["jti"]
    assert first["sid"] != second["sid"]


async def test_issuer_and_lifetimes_are_settings(database_url: str) -> None:
    settings = make_settings(database_url, token_issuer="plant 7", access_token_seconds=60, device_token_seconds=90)
    async with running(settings) as client:
        owner = await client.new_user()
        device = await client.new_device(owner)
        answer = await client.post(f"/devices/{device['id']}/token", token=owner)
        assert answer.json["expiresIn"] == 90
        assert claims_of(owner)["iss"] == "plant 7"
        assert claims_of(owner)["exp"] - claims_of(owner)["iat"] == 60


async def test_other_services_verify_tokens_with_the_jwks_over_http(client: Client) -> None:
    owner = await client.new_user()
    device = await client.new_device(owner)
    token = (await client.post(f"/devices/{device['id']}/token", token=owner)).json["token"]
    async with aiohttp.ClientSession() as session:
        keys = KeySet(fetch_jwks_over_http(session, client.url))
        verifier = TokenVerifier(keys, "tidegate")
        assert (await verifier.verify(owner)).allows("devices:manage")
        assert (await verifier.verify(token)).device == device["id"]


async def test_services_of_the_same_process_verify_without_http(client: Client) -> None:
    keys = KeySet(client.service.jwks)
    claims = await TokenVerifier(keys).verify(await client.new_user())
    assert claims.sid is not None
    assert (await client.get("/.well-known/jwks.json")).json == await client.service.jwks()


async def test_a_token_is_answered_with_its_claims(client: Client) -> None:
    owner = await client.new_user()
    device = await client.new_device(owner)
    token = (await client.post(f"/devices/{device['id']}/token", token=owner)).json["token"]
    for presented in (owner, token):
        answer = await client.get("/user/token", token=presented)
        assert answer.status == 200
        assert answer.json == claims_of(presented)


async def test_the_scheme_may_be_written_in_any_case(client: Client) -> None:
    token = await client.new_user()
    assert (await client.get("/user/token", headers={"Authorization": f"bearer {token}"})).status == 200


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer nonsense", "Bearer a b", "Bearer " + "x" * 7000]
)
async def test_without_a_good_token_there_is_no_answer(client: Client, authorization: str) -> None:
    answer = await client.get("/user/token", headers={"Authorization": authorization})
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_tokens_are_taken_from_the_authorization_header_only(client: Client) -> None:
    token = await client.new_user()
    assert (await client.get(f"/user/token?access_token={token}&token={token}")).status == 401
    assert (await client.get("/user/token", headers={"Cookie": f"token={token}"})).status == 401
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    async with aiohttp.ClientSession() as session, session.get(f"{client.url}/user/token", headers=twice) as response:
        assert response.status == 401


async def test_a_refresh_token_is_no_access_token(client: Client) -> None:
    await client.sign_up()
    refresh_token = (await client.log_in()).json["refreshToken"]
    assert (await client.get("/user/token", token=refresh_token)).status == 401


async def test_an_expired_token_says_so(database_url: str) -> None:
    async with running(make_settings(database_url, access_token_seconds=1)) as client:
        token = await client.new_user()
        while time.time() < claims_of(token)["exp"]:
            await asyncio.sleep(0.02)
        answer = await client.get("/user/token", token=token)
        assert (answer.status, answer.json["code"]) == (401, "expired")


async def test_tokens_outlive_a_restart(database_url: str) -> None:
    async with running(make_settings(database_url)) as client:
        token = await client.new_user()
    async with running(make_settings(database_url)) as client:
        assert (await client.get("/user/token", token=token)).status == 200


async def test_a_token_of_another_issuer_with_our_keys_is_refused(database_url: str) -> None:
    async with running(make_settings(database_url, token_issuer="another")) as client:
        token = await client.new_user()
    async with running(make_settings(database_url)) as client:
        assert (await client.get("/user/token", token=token)).status == 401


async def test_a_revoked_device_token_cannot_renew_itself(client: Client, database_url: str) -> None:
    owner = await client.new_user()
    device = await client.new_device(owner)
    path = f"/devices/{device['id']}/token"
    token = (await client.post(path, token=owner)).json["token"]
    await change(database_url, update(devices).values(gen=1))
    answer = await client.post(path, token=token)
    assert (answer.status, answer.json["code"]) == (401, "revoked")
    renewed = (await client.post(path, token=owner)).json["token"]
    assert claims_of(renewed)["gen"] == 1
    assert (await client.post(path, token=renewed)).status == 201
    await change(database_url, delete(devices))
    assert (await client.post(path, token=renewed)).status == 401


async def test_an_account_that_is_gone_registers_no_device(client: Client, database_url: str) -> None:
    token = await client.new_user()
    await change(database_url, delete(users))
    answer = await client.post("/devices", {"sensorType": "t", "location": ""}, token=token)
    assert (answer.status, answer.json["code"]) == (401, "revoked")
