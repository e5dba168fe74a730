"""The walkthrough of docs/alarms.md, run as printed on a onebox, with a receiver that checks signatures."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.alarms.mail.mail_server import MailServer
from tests.docs.pages import page
from tests.integration.services import ROOT

WAIT_S = 60
HOOK_BODY = {"type", "timestamp", "data"}


class Receiver:
    """Takes webhooks."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.received.append((dict(request.headers), await request.read()))
        return web.Response(text="thanks")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/hook", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{port}/hook"
        try:
            yield
        finally:
            await runner.cleanup()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]


@asynccontextmanager
async def running_onebox(folder: Path, **settings: str) -> AsyncIterator[str]:
    """Run a onebox without devices; yields its URL."""
    port = free_port()
    environment = {**os.environ, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8", "BCRYPT_COST": "4", **settings}
    command = [sys.executable, "-m", "onebox", "--devices", "0", "--port", str(port), "--data", str(folder / "data")]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as http:

            async def is_up() -> bool:
                try:
                    async with http.get(url + "/openapi.json") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(is_up, "the onebox is up", WAIT_S)
        yield url
    finally:
        process.terminate()
        await process.communicate()


class Owner:
    """A signed-up user with a device."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str, device: str) -> None:
        self._http = http
        self._url = url
        self.token = token
        self.device = device

    @classmethod
    async def signed_up(cls, http: aiohttp.ClientSession, url: str) -> "Owner":
        account = {"email": "ada@example.org", "password": "correct horse battery"}
        async with http.post(url + "/user/signup", json={"name": "Ada", **account}) as answer:
            assert answer.status == 201
        async with http.post(url + "/user/login", json=account) as answer:
            token = (await answer.json())["accessToken"]
        device = {"sensorType": "temperature", "location": "hall 2", "name": "press-1"}
        async with http.post(url + "/devices", json=device, headers={"Authorization": f"Bearer {token}"}) as answer:
            return cls(http, url, token, (await answer.json())["id"])

    async def send(self, *values: float) -> None:
        headers = {"Authorization": f"Bearer {self.token}", "X-Device-Id": self.device}
        readings = [{"sensorType": "temperature", "value": value, "unit": "Cel"} for value in values]
        async with self._http.post(self._url + "/readings", json=readings, headers=headers) as answer:
            assert (await answer.json())["accepted"] == len(values)

    async def get(self, path: str) -> Any:
        async with self._http.get(self._url + path, headers={"Authorization": f"Bearer {self.token}"}) as answer:
            return await answer.json()


@pytest.mark.timeout(240)
async def test_the_walkthrough(tmp_path: Path) -> None:
    receiver = Receiver()
    trial, make, firing, became = walkthrough()
    async with receiver.listening(), running_onebox(tmp_path) as url, aiohttp.ClientSession() as http:
        owner = await Owner.signed_up(http, url)
        environment = {"URL": url, "TOKEN": owner.token, "HOOK": receiver.url}
        await owner.send(70, 90, 60)

        async def are_stored() -> bool:
            found = await owner.get(f"/readings?device={owner.device}&sensorType=temperature")
            return len(found.get("items", ())) == 3

        await eventually(are_stored, "the readings are stored", WAIT_S)
        tried = json.loads(await run(trial, tmp_path, environment))
        assert (tried["series"], tried["readings"], tried["complete"]) == (1, 3, True)
        assert [item["device"] for item in tried["items"]] == [owner.device]
        await run(make, tmp_path, environment)
        made = json.loads((tmp_path / "made.json").read_text())

        async def is_firing() -> bool:
            await owner.send(81)
            return bool((await owner.get("/alarms?state=firing"))["items"])

        await eventually(is_firing, "the alarm fires", WAIT_S)
        acknowledged = json.loads(await run(firing, tmp_path, environment))
        assert acknowledged["state"] == "acknowledged"
        await owner.send(70)

        async def are_told() -> bool:
            return len(receiver.received) >= 3

        await eventually(are_told, "the receiver knows of it all", WAIT_S)
        history, deliveries = map(
            json.loads, (await run(became, tmp_path, environment, ALARM=acknowledged["id"])).split("\n")
        )
        assert [row["state"] for row in history["items"]] == ["firing", "acknowledged", "ok"]
        assert {row["state"] for row in deliveries["items"]} <= {"pending", "delivered"}
    assert [body["type"] for body in receiver.bodies()] == ["alarm.firing", "alarm.acknowledged", "alarm.ok"]
    assert all(body.keys() == HOOK_BODY for body in receiver.bodies())
    assert receiver.bodies()[0]["data"].keys() == json.loads(shown_body())["data"].keys()
    for headers, body in receiver.received:
        assert headers["webhook-signature"] == signature(made["secret"], headers, body)


@pytest.mark.timeout(240)
async def test_the_commands_about_e_mail(tmp_path: Path) -> None:
    code, confirm, name_it = commands_of("E-mail")
    async with (
        MailServer.listening() as mail,
        running_onebox(tmp_path, SMTP_URL=mail.url, EMAIL_FROM="Tidegate <alarms@example.org>") as url,
        aiohttp.ClientSession() as http,
    ):
        owner = await Owner.signed_up(http, url)
        environment = {"URL": url, "TOKEN": owner.token}
        rule = {"name": "hot", "devices": "all", "sensorType": "temperature", "when": {"op": "above", "value": 80}}
        headers = {"Authorization": f"Bearer {owner.token}"}
        async with http.post(url + "/alarms/rules", json=rule, headers=headers) as answer:
            (tmp_path / "made.json").write_text(await answer.text())
        assert json.loads(await run(code, tmp_path, environment))["confirmed"] is False
        (typed,) = re.findall(r"^[0-9A-Z]{10}$", mail.taken[0].text.replace("\r", ""), re.MULTILINE)
        confirmed = json.loads(await run(confirm, tmp_path, environment, CODE=typed))
        assert confirmed == {"available": True, "email": "ada@example.org", "confirmed": True}
        assert {"kind": "email"} in json.loads(await run(name_it, tmp_path, environment))["notify"]

        async def is_mailed() -> bool:
            """A change of a rule applies a few seconds later: what fired before that is not mailed."""
            await owner.send(81)
            await owner.send(70)
            return "[warning] hot: firing (press-1)" in [one.message["Subject"] for one in mail.taken]

        await eventually(is_mailed, "the alarm is mailed", WAIT_S)
        assert {one.recipients[0] for one in mail.taken} == {"ada@example.org"}


def walkthrough() -> list[str]:
    """Return the commands of the walkthrough, in order."""
    found = commands_of("A walkthrough")
    assert len(found) == 4
    return found


def commands_of(heading: str) -> list[str]:
    section = page("alarms.md").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def shown_body() -> str:
    """Return the body of a webhook as the page shows it."""
    (found,) = re.findall(r"^```json\n(.*?)^```$", page("alarms.md"), re.DOTALL | re.MULTILINE)
    return str(found)


def signature(secret: str, headers: dict[str, str], body: bytes) -> str:
    """Return the signature as a receiver computes it from the page's words."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


async def run(script: str, folder: Path, environment: dict[str, str], **more: str) -> str:
    """Run commands in a shell; return their output, with a line's end between two answers."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        script.replace("\ncurl", "\necho\ncurl"),
        cwd=folder,
        env={**os.environ, **environment, **more},
        stdout=PIPE,
    )
    async with asyncio.timeout(WAIT_S):
        out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode().strip()
