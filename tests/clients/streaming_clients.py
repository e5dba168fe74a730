"""Real clients that stream until they are stopped, each with its own reconnection."""

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
from simulator.reading import DeviceReading
from testing.node import node_with
from tests.gateway.harness import TS, reading

HERE = Path(__file__).parent
JAVASCRIPT = ("socket.io-client-3.1.3", "socket.io-client-4.0.0", "socket.io-client")
PYTHON = "python-socketio"
SIMULATOR = "tidegate's simulator"
ALL = (*JAVASCRIPT, PYTHON, SIMULATOR)


@dataclass
class ClientLog:
    """The events of one client, with monotonic times."""

    name: str
    lines: list[tuple[float, str, object]] = field(default_factory=list)

    def add(self, event: str, data: object = None) -> None:
        self.lines.append((time.monotonic(), event, data))

    def events(self, since: float = 0.0) -> list[str]:
        return [event for at, event, _ in self.lines if at >= since]


@asynccontextmanager
async def streaming_clients(
    url: str, token: str, *names: str, auth_takes_s: float = 0.0
) -> AsyncIterator[list[ClientLog]]:
    """Run one client of each name against `url`; yields their logs."""
    logs = [ClientLog(name) for name in names]
    run = {PYTHON: python_client, SIMULATOR: simulator_client}
    async with AsyncExitStack() as stack:
        for one in logs:
            client = run.get(one.name, javascript_client)
            await stack.enter_async_context(client(one, url, token, auth_takes_s))
        yield logs


async def wait_for_event(logs: list[ClientLog], event: str, since: float, within_s: float) -> None:
    """Return when each client has logged `event` since `since`; AssertionError names those that have not."""
    late = logs
    deadline = time.monotonic() + within_s
    while late := [one for one in late if event not in one.events(since)]:
        assert time.monotonic() < deadline, (
            f"no {event!r} within {within_s:g} s: {[(one.name, one.lines) for one in late]}"
        )
        await asyncio.sleep(0.05)


@asynccontextmanager
async def javascript_client(log: ClientLog, url: str, token: str, auth_takes_s: float) -> AsyncIterator[None]:
    node = node_with(HERE, log.name)
    environment = os.environ | {
        "URL": url,
        "CLIENT": log.name,
        "TOKEN": token,
        "AUTH_TAKES_MS": str(round(auth_takes_s * 1000)),
        "DEVICES": "1",
    }
    script = str(HERE / "stream.js")
    process = await asyncio.create_subprocess_exec(node, script, env=environment, stdout=PIPE, stderr=sys.stderr)
    assert process.stdout
    reading = asyncio.ensure_future(read_lines(process.stdout, log))
    try:
        yield
    finally:
        if process.returncode is None:  # a client that has given up exits by itself
            process.kill()
        await process.wait()
        await reading


async def read_lines(stream: asyncio.StreamReader, log: ClientLog) -> None:
    while line := await stream.readline():
        entry = json.loads(line)
        log.add(entry["event"], entry.get("data"))


@asynccontextmanager
async def python_client(log: ClientLog, url: str, token: str, auth_takes_s: float) -> AsyncIterator[None]:
    client = socketio.AsyncClient()
    client.on("connect", lambda: log.add("connect"))
    client.on("connect_error", lambda data=None: log.add("connect_error", data))
    client.on("disconnect", lambda reason=None: log.add("disconnect", reason))

    async def auth() -> dict[str, str]:
        await asyncio.sleep(auth_takes_s)
        return {"token": token}

    async def run() -> None:
        with suppress(socketio.exceptions.ConnectionError):  # of the first connect; the client retries by itself
            await client.connect(url, auth=auth, transports=["websocket"], retry=True)
        for number in range(1_000_000):
            with suppress(socketio.exceptions.SocketIOError):
                answer = await client.call("reading", reading(number, ts=TS + number), timeout=3)
                log.add(answer["status"], answer.get("code"))
            await asyncio.sleep(0.1)

    async with in_background(run):
        try:
            yield
        finally:
            await client.shutdown()
            if client.eio.http is not None:
                await client.eio.http.close()


@asynccontextmanager
async def simulator_client(log: ClientLog, url: str, token: str, auth_takes_s: float) -> AsyncIterator[None]:
    async def fetched() -> str:
        await asyncio.sleep(auth_takes_s)
        return token

    def connection(up: bool) -> None:
        log.add("connect" if up else "disconnect")

    async with DeviceClient(url, fetched, on_connection=connection) as device:

        async def run() -> None:
            for number in range(1_000_000):
                await device.send([DeviceReading("temperature", number, TS + number)])
                await device.flush()
                log.add("accepted")
                await asyncio.sleep(0.1)

        async with in_background(run):
            yield


@asynccontextmanager
async def in_background(run: Callable[[], object]) -> AsyncIterator[None]:
    """Run it in the background; its exception is raised on exit."""
    task: asyncio.Future[object] = asyncio.ensure_future(run())  # type: ignore[call-overload]
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
