"""A onebox in its own process group, started as a user would."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from onebox.demo import DEMO_EMAIL
from testing.servers.ports import free_port

ROOT = Path(__file__).parent.parent.parent
# A start takes 3 s; on a machine that does other work at the same time it may take a minute.
READY_WITHIN_S = 90.0


async def start_onebox(*arguments: str, data: Path) -> Process:
    """Start a onebox in its own process group."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "onebox", "--json", "--data", str(data), *arguments,
        cwd=ROOT, stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip


@asynccontextmanager
async def running_onebox(*arguments: str, data: Path) -> AsyncIterator[tuple[Process, str]]:
    """Start a onebox and wait until it is ready; yields the process and its URL."""
    port = free_port()
    process = await start_onebox("--port", str(port), *arguments, data=data)
    url = f"http://127.0.0.1:{port}"
    try:
        await wait_until_ready(process, url)
        yield process, url
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


async def wait_until_ready(process: Process, url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(READY_WITHIN_S):
        while process.returncode is None:
            try:
                async with session.get(f"{url}/.well-known/jwks.json") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError((await process.communicate())[1].decode())


def demo_credentials(data: Path) -> dict[str, str]:
    """Return e-mail and password of the demo user that a onebox has signed up."""
    return {"email": DEMO_EMAIL, "password": json.loads((data / "secrets.json").read_text())["demoPassword"]}


async def signed_up(url: str, data: Path) -> dict[str, str]:
    """Return the demo user, who signs up by itself a moment after the first answer."""
    person = demo_credentials(data)
    async with aiohttp.ClientSession() as http, asyncio.timeout(10):
        while True:
            async with http.post(f"{url}/user/login", json=person) as answer:
                if answer.status == 200:
                    return person


async def demo_device(url: str, data: Path) -> tuple[str, str]:
    """Log in as the demo user, register a device or find it; return its id and a token."""
    person = demo_credentials(data)
    async with aiohttp.ClientSession(url) as session:
        await session.post("/user/signup", json={"name": "Demo", **person})
        async with session.post("/user/login", json=person) as answer:
            bearer = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
        body = {"sensorType": "temperature", "location": "roof", "name": "mine"}
        await session.post("/devices", json=body, headers=bearer)
        async with session.get("/devices", params={"name": "mine"}, headers=bearer) as answer:
            device = (await answer.json())["items"][0]["id"]
        async with session.post(f"/devices/{device}/token", headers=bearer) as answer:
            return device, (await answer.json())["token"]


async def summary(*arguments: str, data: Path) -> dict[str, Any]:
    """Run a onebox to its end and return its summary; it must exit with 0."""
    process = await start_onebox(*arguments, data=data)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert len(out.splitlines()) == 1, "standard output holds the summary and nothing else"
    return found
