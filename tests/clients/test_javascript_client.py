"""The official JavaScript client connects, streams, renews its token, expires, and reconnects by itself."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from readings.document import decode_document
from testing.node import node_with
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, TS, RunningGateway, gateway

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js, with the client installed next to the script."""
    return node_with(HERE, "socket.io-client")


class DeviceLog:
    """The device's events, one per line of its output."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[tuple[str, Any]] = []

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]

    def data(self, event: str) -> Any:
        return next(data for name, data in self.lines if name == event)

    async def until(self, event: str, times: int = 1) -> None:
        assert self.process.stdout
        async with asyncio.timeout(30):
            while self.events.count(event) < times:
                line = await self.process.stdout.readline()
                assert line, f"the device has ended; its output: {self.lines}"
                entry = json.loads(line)
                self.lines.append((entry["event"], entry.get("data")))


@asynccontextmanager
async def device(node: str, running: RunningGateway, connections: int, **tokens: str) -> AsyncIterator[DeviceLog]:
    environment = os.environ | {
        "URL": running.url,
        "TOKENS": json.dumps(tokens),
        "CONNECTIONS": str(connections),
    }
    script = str(HERE / "device.js")
    process = await asyncio.create_subprocess_exec(node, script, env=environment, stdout=PIPE, stderr=sys.stderr)
    try:
        yield DeviceLog(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def published(fake_broker: FakeBroker) -> set[int]:
    documents = [decode_document(body) for message in fake_broker.outgoing.messages for body in message.documents()]
    return {int(document["_id"]["ts"]) - TS for document in documents}


def token(seconds: float) -> str:
    return ISSUING.device(exp=int(time.time() + seconds) + 1)


async def test_it_streams_renews_expires_and_reconnects(node: str, fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, expiring_seconds=1.5) as running:
        tokens = {"first": token(2), "renewal": token(5), "fresh": token(60)}
        async with device(node, running, 2, **tokens) as log:
            await log.until("acknowledged")
            assert await asyncio.wait_for(log.process.wait(), 5) == 0
    assert [event for event in log.events if event != "acknowledged"] == [
        "connect",
        "auth_expiring",
        "renewed",
        "auth_expiring",
        "auth_expired",
        "disconnect",
        "connect",
    ]
    assert log.data("renewed")["status"] == "accepted"
    assert log.data("disconnect") == "transport close"
    acknowledged = set(log.data("acknowledged"))
    assert len(acknowledged) > 100
    assert acknowledged <= published(fake_broker)


async def test_it_reconnects_by_itself_when_its_gateway_is_replaced(node: str, fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with AsyncExitStack() as first, AsyncExitStack() as stack:
        running = await first.enter_async_context(gateway(fake_broker))
        log = await stack.enter_async_context(device(node, running, 2, first=token(60), fresh=token(60)))
        await log.until("connect")
        await asyncio.sleep(0.5)
        await first.aclose()
        async with gateway(fake_broker, at_port=int(running.url.rpartition(":")[2])):
            await log.until("acknowledged")
    acknowledged = set(log.data("acknowledged"))
    assert len(acknowledged) > 20
    assert acknowledged <= published(fake_broker)


async def test_a_refusal_has_a_code(node: str, fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, device(node, running, 1, first="garbage") as log:
        await log.until("connect_error")
        assert log.data("connect_error") == {"code": "unauthorized"}
