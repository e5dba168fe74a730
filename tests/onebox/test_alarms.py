"""Alarms in a onebox, from the reading over HTTP to the webhook, and silence."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from runtime.http.listen import listen
from runtime.times import now_ms
from testing.waiting import eventually
from tests.e2e.onebox_process import running_onebox

PERSON = {"name": "Ada", "email": "ada@example.org", "password": "correct horse battery"}


class Receiver:
    """A receiver of webhooks, which keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def _take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(text="never shown")

    @classmethod
    @asynccontextmanager
    async def listening(cls) -> AsyncIterator["Receiver"]:
        it, app = cls(), web.Application()
        app.router.add_post("/hook", it._take)
        async with listen(app, "127.0.0.1", 0) as port:
            it.url = f"http://127.0.0.1:{port}/hook"
            yield it

    def states(self) -> list[tuple[str, Any]]:
        bodies = [msgspec.json.decode(body) for _, body in self.got]
        return sorted((one["type"], one["data"]["value"]) for one in bodies)


class Owner:
    """A client of a onebox with one account."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        async with self.session.request(method, path, json=body, headers=headers) as response:
            raw = await response.read()
            assert response.status < 300, raw
            return msgspec.json.decode(raw) if raw else None

    async def log_in(self) -> None:
        await self.call("POST", "/user/signup", PERSON)
        tokens = await self.call("POST", "/user/login", {name: PERSON[name] for name in ("email", "password")})
        self.session.headers["Authorization"] = f"Bearer {tokens['accessToken']}"


def is_signed(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """Return whether a receiver that has the secret accepts a webhook."""
    lower = {name.lower(): value for name, value in headers.items()}
    signed = f"{lower['webhook-id']}.{lower['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    return lower["webhook-signature"] == f"v1,{b64encode(digest).decode()}"


async def test_a_value_beyond_its_bound_reaches_the_webhook_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("BCRYPT_COST", "4")
    async with (
        Receiver.listening() as receiver,
        running_onebox("--devices", "0", data=tmp_path / "data") as (_, url),
        aiohttp.ClientSession(url) as session,
    ):
        owner = Owner(session)
        await owner.log_in()
        device = await owner.call(
            "POST", "/devices", {"sensorType": "temperature", "location": "roof", "name": "press-1"}
        )
        notify = {"notify": [{"kind": "webhook", "url": receiver.url}]}
        common = {"severity": "critical", "devices": {"name": "press-*"}, "sensorType": "temperature"}
        hot = {"name": "hot", "when": {"op": "above", "value": 80}, "hysteresis": 2, **common, **notify}
        rule = await owner.call("POST", "/alarms/rules", hot)
        await owner.call(
            "POST", "/alarms/rules", {"name": "quiet", "when": {"op": "silent"}, "forSeconds": 3, **common}
        )
        began = now_ms()

        async def sends(value: float, at_ms: int) -> None:
            body = {"sensorType": "temperature", "value": value, "ts": began - 60_000 + at_ms, "seq": at_ms}
            await owner.call("POST", "/readings", body, **{"X-Device-Id": device["id"]})

        async def is_known() -> bool:
            """Rules apply from a few seconds after they were made; a reading beyond the bound tells."""
            await sends(99, 0)
            return bool((await owner.call("GET", "/alarms?state=firing"))["items"])

        await eventually(is_known, "the rule applies", 60)
        for at_ms, value in enumerate((79, 78, 90), 1):
            await sends(value, at_ms)

        async def is_told() -> bool:
            return len(receiver.got) >= 3

        await eventually(is_told, "all of it is told", 60)
        assert receiver.states() == [("alarm.firing", 90), ("alarm.firing", 99), ("alarm.ok", 78)]
        assert all(is_signed(headers, body, rule["secret"]) for headers, body in receiver.got)

        (alarm,) = (await owner.call("GET", f"/alarms?rule={rule['id']}"))["items"]
        history = (await owner.call("GET", f"/alarms/{alarm['id']}/history"))["items"]
        assert [(one["number"], one["state"], one["value"]) for one in history] == [
            (1, "firing", 99), (2, "ok", 78), (3, "firing", 90),
        ]  # fmt: skip
        assert (await owner.call("POST", f"/alarms/{alarm['id']}/acknowledge"))["state"] == "acknowledged"

        async def is_silent() -> bool:
            found = (await owner.call("GET", "/alarms?state=firing"))["items"]
            return [one["name"] for one in found] == ["quiet"]

        await eventually(is_silent, "its silence counts", 60)
        trial = await owner.call("POST", "/alarms/rules/test", {**hot, "notify": []})
        assert [one["device"] for one in trial["items"]] == [device["id"]] * 2

        async def is_noted() -> bool:
            ledger = (await owner.call("GET", "/alarms/deliveries?state=delivered"))["items"]
            assert "never shown" not in str(ledger)
            return [one["lastStatus"] for one in ledger] == ["200"] * 4

        await eventually(is_noted, "the ledger has every notification", 60)

        await owner.call("DELETE", f"/devices/{device['id']}")

        async def are_over() -> bool:
            return {one["state"] for one in (await owner.call("GET", "/alarms"))["items"]} == {"ok"}

        await eventually(are_over, "alarms of a device that is deleted end", 60)
        history = (await owner.call("GET", f"/alarms/{alarm['id']}/history"))["items"]
        assert [(one["state"], one["cause"]) for one in history[-2:]] == [("acknowledged", "owner"), ("ok", "rule")]
