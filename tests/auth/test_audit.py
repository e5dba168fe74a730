from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.auth.service import PASSWORD, Client, make_settings, running


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
    said = repr(logs)
    assert "A user logged in." in said
    for secret in (
        *(PASSWORD, "a mistyped password", "typed-into-the-wrong-field", "ada@example.org"),
        *(session["accessToken"], session["refreshToken"], device_token),
    ):
        assert secret not in said


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
async def test_headers_that_anyone_can_write_are_not_believed(sqlite_client: Client, header: str) -> None:
    with capture_logs() as logs:
        await sqlite_client.post("/user/login", {"email": "a", "password": "b"}, headers={header: "203.0.113.7"})
    assert events(logs, "A log-in failed.")[0]["address"] == "127.0.0.1"
