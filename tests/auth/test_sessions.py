import asyncio

from sqlalchemy import func, select
from structlog.testing import capture_logs

from database.connection import open_database
from database.tables import refresh_tokens
from tests.auth.service import PASSWORD, Answer, Client, is_active, make_settings, running, session

ANOTHER_PROGRAM = {"User-Agent": "another program"}


async def refresh(client: Client, token: str) -> Answer:
    return await client.post("/user/refresh", {"refreshToken": token})


async def test_a_refresh_token_gives_new_tokens_of_the_same_session(client: Client) -> None:
    first = await session(client)
    answer = await refresh(client, first["refreshToken"])
    assert answer.status == 200
    second = answer.json
    assert set(second) == {"accessToken", "tokenType", "expiresIn", "refreshToken"}
    assert second["refreshToken"] != first["refreshToken"]
    claims = [(await client.get("/user/token", token=it["accessToken"])).json for it in (first, second)]
    assert claims[0]["sid"] == claims[1]["sid"]
    assert claims[0]["jti"] != claims[1]["jti"]


async def test_a_used_refresh_token_ends_its_session_and_is_a_security_event(client: Client) -> None:
    first = await session(client)
    other = (await client.log_in()).json
    second = (await refresh(client, first["refreshToken"])).json
    with capture_logs() as logs:
        thief = await client.post("/user/refresh", {"refreshToken": first["refreshToken"]}, headers=ANOTHER_PROGRAM)
        assert (thief.status, thief.json["code"]) == (401, "unauthorized")
    (event,) = [line for line in logs if line["event"] == "A used refresh token came again; its session was ended."]
    assert event["log_level"] == "warning"
    assert (await refresh(client, second["refreshToken"])).status == 401
    assert not await is_active(client, first["accessToken"])
    assert not await is_active(client, second["accessToken"])
    assert await is_active(client, other["accessToken"]), "another session of the user goes on"


async def test_what_is_no_refresh_token_is_401(client: Client) -> None:
    tokens = await session(client)
    for wrong in ("", "x", tokens["accessToken"][:512], "é" * 43):
        answer = await refresh(client, wrong)
        assert answer.status == 401, wrong
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert (await client.get("/user/token", token=tokens["refreshToken"])).status == 401


async def test_an_expired_refresh_token_is_401(database_url: str) -> None:
    async with running(make_settings(database_url, refresh_token_seconds=1)) as client:
        tokens = await session(client)
        await asyncio.sleep(1.1)
        assert (await refresh(client, tokens["refreshToken"])).status == 401
        assert await is_active(client, tokens["accessToken"]), "the access token has its own time"


async def test_refreshing_forgets_tokens_that_have_expired(database_url: str) -> None:
    settings = make_settings(database_url, refresh_token_seconds=1, access_token_seconds=1)
    async with running(settings) as client, open_database(database_url, connections=1, timeout_s=5) as database:
        token = (await session(client))["refreshToken"]

        async def rows() -> int:
            async with database.connect() as connection:
                return await connection.scalar(select(func.count()).select_from(refresh_tokens)) or 0

        async with asyncio.timeout(20):
            for refreshes in range(1, 100):
                token = (await refresh(client, token)).json["refreshToken"]
                if await rows() <= refreshes:  # without forgetting there is one more than refreshes
                    return
                await asyncio.sleep(0.25)
    raise AssertionError("every token was kept")


async def test_a_log_out_ends_the_session_at_once(client: Client) -> None:
    tokens = await session(client)
    answer = await client.post("/user/logout", token=tokens["accessToken"])
    assert (answer.status, answer.raw) == (204, b"")
    assert not await is_active(client, tokens["accessToken"])
    assert (await refresh(client, tokens["refreshToken"])).status == 401
    assert (await client.post("/user/logout", token=tokens["accessToken"])).status == 401


async def test_a_log_out_ends_a_second_session_of_the_same_user_only(client: Client) -> None:
    here = await session(client)
    there = (await client.log_in()).json
    await client.sign_up("eve@example.org")
    eve = (await client.log_in("eve@example.org")).json
    body = {"refreshToken": eve["refreshToken"]}
    assert (await client.post("/user/logout", body, token=here["accessToken"])).status == 204
    assert await is_active(client, eve["accessToken"])
    again = (await client.log_in()).json
    body = {"refreshToken": there["refreshToken"]}
    assert (await client.post("/user/logout", body, token=again["accessToken"])).status == 204
    assert not await is_active(client, there["accessToken"])


async def test_a_new_password_ends_every_session(client: Client) -> None:
    tokens = await session(client)
    other = (await client.log_in()).json
    change = {"password": "another good one", "currentPassword": PASSWORD}
    answer = await client.call("PATCH", "/user/me", json=change, token=tokens["accessToken"])
    assert answer.status == 200
    for old in (tokens, other):
        assert not await is_active(client, old["accessToken"])
        assert (await refresh(client, old["refreshToken"])).status == 401
    assert (await client.log_in()).status == 401
    assert (await client.log_in(password="another good one")).status == 200


async def test_a_new_password_needs_the_current_one(client: Client) -> None:
    tokens = await session(client)

    async def change(**body: str) -> Answer:
        return await client.call("PATCH", "/user/me", json=body, token=tokens["accessToken"])

    assert (await change(password="another good one")).fields == {"currentPassword": "missing"}
    assert (await change(password="another good one", currentPassword="a wrong one")).json["code"] == "wrong_password"
    assert (await change(password="password", currentPassword=PASSWORD)).fields == {"password": "too_common"}
    assert (await change()).status == 422
    for name in ({}, {"name": "Ada L."}):
        answer = await change(password="", currentPassword=PASSWORD, **name)
        assert (answer.status, list(answer.fields)) == (422, ["password"])
    assert (await change(role="admin")).fields == {"role": "unknown"}
    assert (await client.log_in()).status == 200


async def test_the_profile_is_shown_and_renamed(client: Client) -> None:
    tokens = await session(client)
    shown = await client.get("/user/me", token=tokens["accessToken"])
    assert shown.status == 200
    assert set(shown.json) == {"id", "name", "email", "createdAt"}
    renamed = await client.call("PATCH", "/user/me", json={"name": "Ada L."}, token=tokens["accessToken"])
    assert renamed.json == shown.json | {"name": "Ada L."}
    assert await is_active(client, tokens["accessToken"])


async def test_a_deleted_account_is_gone_with_its_devices_and_tokens(client: Client) -> None:
    tokens = await session(client)
    token = tokens["accessToken"]
    device = await client.new_device(token)
    device_token = (await client.post(f"/devices/{device['id']}/token", token=token)).json["token"]
    assert (await client.call("DELETE", "/user/me", token=device_token)).status == 403
    assert (await client.call("DELETE", "/user/me", token=token)).status == 204
    for one in (token, device_token):
        assert not await is_active(client, one)
    assert (await refresh(client, tokens["refreshToken"])).status == 401
    assert (await client.log_in()).status == 401
    assert (await client.sign_up()).status == 201, "the address is free again"
