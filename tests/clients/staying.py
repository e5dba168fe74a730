"""Clients as users have them, each with its own way to come back, that stream for as long as they are left alone."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import socketio

from simulator.device import DeviceClient
from simulator.point import SentPoint
from testing.node import node_with
from tests.gateway.harness import TS, reading

HERE = Path(__file__).parent
JAVASCRIPT = ("socket.io-client-3.1.3", "socket.io-client-4.0.0", "socket.io-client")
PYTHON = "python-socketio"
SIMULATOR = "tidegate's simulator"
ALL = (*JAVASCRIPT, PYTHON, SIMULATOR)


@dataclass
class Told:
    """What one client said: when (of the monotonic clock), and what."""

    name: str
    lines: list[tuple[float, str, object]] = field(default_factory=list)

    def say(self, event: str, data: object = None) -> None:
        self.lines.append((time.monotonic(), event, data))

    def events(self, since: float = 0.0) -> list[str]:
        return [event for at, event, _ in self.lines if at >= since]


@asynccontextmanager
async def staying(url: str, token: str, *names: str, auth_takes_s: float = 0.0) -> AsyncIterator[list[Told]]:
    """Run one client of each name against `url`."""
    told = [Told(name) for name in names]
    run = {PYTHON: python_client, SIMULATOR: simulator_client}
    async with AsyncExitStack() as stack:
        for one in told:
            client = run.get(one.name, javascript_client)
            await stack.enter_async_context(client(one, url, token, auth_takes_s))
        yield told


async def all_have_said(told: list[Told], event: str, since: float, within_s: float) -> None:
    """Return when each has said it since then; AssertionError tells of those that have not."""
    late = told
    deadline = time.monotonic() + within_s
    while late := [one for one in late if event not in one.events(since)]:
        assert time.monotonic() < deadline, (
            f"no {event!r} within {within_s:g} s: {[(one.name, one.lines) for one in late]}"
        )
        await asyncio.sleep(0.05)


@asynccontextmanager
async def javascript_client(told: Told, url: str, token: str, auth_takes_s: float) -> AsyncIterator[None]:
    node = node_with(HERE, told.name)
    environment = os.environ | {
        "URL": url,
        "CLIENT": told.name,
        "TOKEN": token,
        "AUTH_TAKES_MS": str(round(auth_takes_s * 1000)),
        "DEVICES": "1",
    }
    script = str(HERE / "stays.js")
    process = await asyncio.create_subprocess_exec(node, script, env=environment, stdout=PIPE, stderr=sys.stderr)
    assert process.stdout
    reading = asyncio.ensure_future(read_lines(process.stdout, told))
    try:
        yield
    finally:
        if process.returncode is None:  # one that has given up has nothing left to do, and ends
            process.kill()
        await process.wait()
        await reading


async def read_lines(stream: asyncio.StreamReader, told: Told) -> None:
    while line := await stream.readline():
        said = json.loads(line)
        told.say(said["event"], said.get("data"))


@asynccontextmanager
async def python_client(told: Told, url: str, token: str, auth_takes_s: float) -> AsyncIterator[None]:
    client = socketio.AsyncClient()
    client.on("connect", lambda: told.say("connect"))
    client.on("connect_error", lambda data=None: told.say("connect_error", data))
    client.on("disconnect", lambda reason=None: told.say("disconnect", reason))

    async def auth() -> dict[str, str]:
        await asyncio.sleep(auth_takes_s)
        return {"token": token}

    async def run() -> None:
        with suppress(socketio.exceptions.ConnectionError):  # of a first connect; the client goes on by itself
            await client.connect(url, auth=auth, transports=["websocket"], retry=True)
        for number in range(1_000_000):
            with suppress(socketio.exceptions.SocketIOError):
                answer = await client.call("reading", reading(number, ts=TS + number), timeout=3)
                told.say(answer["status"], answer.get("code"))
            await asyncio.sleep(0.1)

    async with running(run):
        try:
            yield
        finally:
            await client.shutdown()
            if client.eio.http is not None:
                await client.eio.http.close()


@asynccontextmanager
async def simulator_client(told: Told, url: str, token: str, auth_takes_s: float) -> AsyncIterator[None]:
    async def fetched() -> str:
        await asyncio.sleep(auth_takes_s)
        return token

    def connection(up: bool) -> None:
        told.say("connect" if up else "disconnect")

    async with DeviceClient(url, fetched, on_connection=connection) as device:

        async def run() -> None:
            for number in range(1_000_000):
                await device.send([SentPoint("temperature", number, TS + number)])
                await device.flush()
                told.say("accepted")
                await asyncio.sleep(0.1)

        async with running(run):
            yield


@asynccontextmanager
async def running(run: Callable[[], object]) -> AsyncIterator[None]:
    """Run it beside; what it raises is raised at the end."""
    task: asyncio.Future[object] = asyncio.ensure_future(run())  # type: ignore[call-overload]
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
