from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.auth.service import PASSWORD, Client, claims_of, make_settings, running


def events(logs: list[EventDict], event: str) -> list[dict[str, Any]]:
    return [dict(line) for line in logs if line["event"] == event]


async def test_what_happens_is_recorded_with_who_what_and_from_where(sqlite_client: Client) -> None:
    with capture_logs() as logs:
        user = (await sqlite_client.sign_up()).json
        token = (await sqlite_client.log_in()).json["accessToken"]
        device = await sqlite_client.new_device(token, name="press-1")
        device_token = (await sqlite_client.post(f"/devices/{device['id']}/token", token=token)).json["token"]
        await sqlite_client.post(f"/devices/{device['id']}/token", token=device_token)
    (signed_up,) = events(logs, "A user signed up.")
    (logged_in,) = events(logs, "A user logged in.")
    (registered,) = events(logs, "A device was registered.")
    issued = events(logs, "A token was issued.")
    assert signed_up["user"] == logged_in["user"] == registered["user"] == user["id"]
    assert (registered["device"], registered["name"]) == (device["id"], "press-1")
    assert [(line["kind"], line["subject"], line["by"]) for line in issued] == [
        ("user", user["id"], user["id"]),
        ("device", device["id"], user["id"]),
        ("device", device["id"], device["id"]),
    ]
    assert {line["address"] for line in (signed_up, logged_in, registered, *issued)} == {"127.0.0.1"}


async def test_failed_log_ins_are_recorded_with_their_reason(sqlite_client: Client) -> None:
    user = (await sqlite_client.sign_up()).json
    with capture_logs() as logs:
        await sqlite_client.log_in(password="a wrong password")
        await sqlite_client.log_in("eve@example.org")
    lines = events(logs, "A log-in failed.")
    assert [(line["user"], line["reason"]) for line in lines] == [
        (user["id"], "wrong_password"),
        (None, "unknown_user"),
    ]


async def test_refused_sign_ups_are_recorded(sqlite_client: Client) -> None:
    await sqlite_client.sign_up()
    with capture_logs() as logs:
        await sqlite_client.sign_up()
    (line,) = events(logs, "A sign-up was refused.")
    assert (line["outcome"], line["address"]) == ("taken", "127.0.0.1")


async def test_every_end_of_tokens_is_recorded(sqlite_client: Client) -> None:
    client = sqlite_client
    user = (await client.sign_up()).json["id"]
    first, second = [(await client.log_in()).json for _ in range(2)]
    token = second["accessToken"]
    device = (await client.new_device(token, name="press-1"))["id"]
    body = {"refreshToken": first["refreshToken"]}
    with capture_logs() as logs:
        for status in (200, 401):
            assert (await client.post("/user/refresh", body)).status == status
        assert (await client.post("/user/refresh", body, headers={"User-Agent": "another"})).status == 401
        await client.post("/user/refresh", {"refreshToken": "never issued"})
        await client.call("PATCH", f"/devices/{device}", json={"name": "press-2"}, token=token)
        await client.call("DELETE", f"/devices/{device}/tokens", token=token)
        await client.call("DELETE", f"/devices/{device}", token=token)
        await client.post("/user/logout", token=token)
        token = (await client.log_in()).json["accessToken"]
        change = {"password": "another good one", "currentPassword": PASSWORD}
        await client.call("PATCH", "/user/me", json=change | {"currentPassword": "a wrong one"}, token=token)
        await client.call("PATCH", "/user/me", json=change, token=token)
        token = (await client.log_in(password="another good one")).json["accessToken"]
        await client.call("DELETE", "/user/me", token=token)
    (reused,) = events(logs, "A used refresh token came again; its session was ended.")
    assert (reused["user"], reused["sid"]) == (user, claims_of(first["accessToken"])["sid"])
    (raced,) = events(logs, "A refresh token came twice at once from one client; its session goes on.")
    assert (raced["user"], raced["sid"], raced["log_level"]) == (user, reused["sid"], "info")
    (refused,) = events(logs, "A refresh was refused.")
    assert (refused["user"], refused["reason"]) == (None, "unknown")
    (logged_out,) = events(logs, "A user logged out.")
    assert (logged_out["user"], logged_out["sids"]) == (user, [claims_of(second["accessToken"])["sid"]])
    for event in ("A device was changed.", "A device's tokens were revoked.", "A device was removed."):
        (line,) = events(logs, event)
        assert (line["user"], line["device"], line["address"]) == (user, device, "127.0.0.1")
    (failed,) = events(logs, "A log-in failed.")
    assert (failed["user"], failed["reason"]) == (user, "wrong_password")
    (changed,), (deleted,) = events(logs, "An account was changed."), events(logs, "An account was deleted.")
    assert (changed["user"], changed["password"], deleted["user"]) == (user, True, user)
    assert {line["address"] for line in (raced, reused, refused, logged_out, failed, changed, deleted)} == {"127.0.0.1"}
    for outcome, count in (("ok", 1), ("raced", 1), ("reused", 1), ("refused", 1)):
        assert client.metric("tidegate_auth_refreshes_total", outcome=outcome) == count
    for what, count in (("reuse", 1), ("logout", 1), ("password", 1), ("account", 1), ("device", 2)):
        assert client.metric("tidegate_auth_endings_total", what=what) == count


async def test_no_line_carries_a_secret(database_url: str) -> None:
    with capture_logs() as logs:
        async with running(make_settings(database_url)) as client:
            await client.sign_up()
            session = (await client.log_in()).json
            await client.log_in("ada@example.org", "a mistyped password")
            await client.log_in("typed-into-the-wrong-field", PASSWORD)
            device = await client.new_device(session["accessToken"])
            path = f"/devices/{device['id']}/token"
            device_token = (await client.post(path, token=session["accessToken"])).json["token"]
            renewed = (await client.post("/user/refresh", {"refreshToken": session["refreshToken"]})).json
            await client.post("/user/refresh", {"refreshToken": session["refreshToken"]})
    said = repr(logs)
    assert "A user logged in." in said
    for secret in (
        *(PASSWORD, "a mistyped password", "typed-into-the-wrong-field", "ada@example.org"),
        *(session["accessToken"], session["refreshToken"], device_token),
        *(renewed["accessToken"], renewed["refreshToken"]),
    ):
        assert secret not in said


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_headers_that_anyone_can_write_are_not_believed(sqlite_client: Client, header: str) -> None:
    with capture_logs() as logs:
        await sqlite_client.post("/user/login", {"email": "a", "password": "b"}, headers={header: "203.0.113.7"})
    assert events(logs, "A log-in failed.")[0]["address"] == "127.0.0.1"
