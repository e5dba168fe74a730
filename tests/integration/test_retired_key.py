"""A compromised signing key is retired: its tokens end in every process within 5 s."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import socketio

from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import logged_in, new_token
from tests.integration.services import ROOT, SECRET, Running, started

WITHIN_S = 5.0
EMAIL = "ada@example.com"


async def auth_keys(database_url: str, *arguments: str) -> str:
    """Run `python -m auth keys …` while the services run; a rotated key signs at once."""
    settings = {"AUTH_DATABASE_URL": database_url, "SIGNING_KEY_SECRET": SECRET, "KEY_PUBLISH_SECONDS": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", "keys", *arguments),
        cwd=ROOT,
        env=os.environ | settings,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


@pytest.fixture
async def reader(pipeline: Pipeline, rabbitmq_url: str) -> AsyncIterator[Running]:
    url, database = pipeline.mongodb
    settings = {"BROKER_URL": rabbitmq_url, "AUTH_URL": pipeline.auth.url}
    async with started("reader", READINGS_URL=url, READINGS_DATABASE=database, **settings) as running:
        yield running


@asynccontextmanager
async def listening(gateway: Running, token: str) -> AsyncIterator[list[str]]:
    """Yield the events that one socket receives, its end included."""
    client, received = socketio.AsyncClient(reconnection=False), list[str]()
    for name in ("auth_revoked", "disconnect"):
        client.on(name, lambda *_, name=name: received.append(name))
    await client.connect(gateway.url, auth={"token": token}, transports=["websocket"])
    try:
        yield received
    finally:
        await client.disconnect()


@asynccontextmanager
async def following(reader: Running, token: str) -> AsyncIterator[list[str]]:
    """Yield the lines of a live feed, and "the end" after the last one."""
    lines: list[str] = []

    async def read(response: aiohttp.ClientResponse) -> None:
        lines.extend([line.decode().strip() async for line in response.content])
        lines.append("the end")

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=5)) as session,
        session.get(f"{reader.url}/live", headers=headers) as response,
    ):
        assert response.status == 200
        reading = asyncio.ensure_future(read(response))
        try:
            yield lines
        finally:
            reading.cancel()
            await asyncio.wait((reading,))


def holds(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def condition_holds() -> bool:
        return condition()

    return condition_holds


async def test_what_a_retired_key_signed_ends_everywhere_within_5_s_and_new_tokens_serve(
    pipeline: Pipeline, reader: Running, mariadb_url: str
) -> None:
    auth = pipeline.auth
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(auth.url))
        person = await logged_in(http, EMAIL)
        sockets = [await stack.enter_async_context(listening(gateway, pipeline.token)) for gateway in pipeline.gateways]
        lines = await stack.enter_async_context(following(reader, person))
        calls = (
            *((auth.url, "GET", "/user/token", token) for token in (person, pipeline.token)),
            *((gateway.url, "POST", "/readings", pipeline.token) for gateway in pipeline.gateways),
            (reader.url, "GET", "/series", person),
        )

        async def refused(renewed: dict[str, str] | None = None) -> list[bool]:
            return [
                await _status(http, url, method, path, (renewed or {}).get(token, token)) == 401
                for url, method, path, token in calls
            ]

        assert not any(await refused())
        old = (await auth_keys(mariadb_url, "list", "--json")).split('"kid":"')[1].split('"')[0]
        await auth_keys(mariadb_url, "rotate", "--now")
        await auth_keys(mariadb_url, "retire", old)
        retired_at = time.monotonic()

        async def all_refuse() -> bool:
            return all(await refused())

        await eventually(all_refuse, "every call is refused", WITHIN_S)
        left_s = WITHIN_S - (time.monotonic() - retired_at)
        sockets_end = holds(lambda: all(received == ["auth_revoked", "disconnect"] for received in sockets))
        await eventually(sockets_end, "every socket was notified and has ended", left_s)
        left_s = WITHIN_S - (time.monotonic() - retired_at)
        await eventually(holds(lambda: "event: revoked" in lines and lines[-1] == "the end"), "the feed ends", left_s)
        renewed = {
            person: await logged_in(http, EMAIL),
            pipeline.token: await new_token(auth.url, EMAIL, pipeline.device),
        }
        assert not any(await refused(renewed))


async def _status(http: aiohttp.ClientSession, url: str, method: str, path: str, token: str) -> int:
    body: dict[str, Any] = {"json": {"value": 1}} if method == "POST" else {}
    headers = {"Authorization": f"Bearer {token}"}
    async with http.request(method, url + path, headers=headers, **body) as response:
        return response.status
