"""The official JavaScript client connects, streams, renews, is expired, and comes back by itself."""

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
    """Node.js, with the client beside the script."""
    return node_with(HERE, "socket.io-client")


class Told:
    """What the device said, line by line."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[tuple[str, Any]] = []

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]

    def data(self, event: str) -> Any:
        return next(data for said, data in self.lines if said == event)

    async def until(self, event: str, times: int = 1) -> None:
        assert self.process.stdout
        async with asyncio.timeout(30):
            while self.events.count(event) < times:
                line = await self.process.stdout.readline()
                assert line, f"the device has ended; it said {self.lines}"
                said = json.loads(line)
                self.lines.append((said["event"], said.get("data")))


@asynccontextmanager
async def device(node: str, running: RunningGateway, connections: int, **tokens: str) -> AsyncIterator[Told]:
    environment = os.environ | {
        "URL": running.url,
        "TOKENS": json.dumps(tokens),
        "CONNECTIONS": str(connections),
    }
    script = str(HERE / "device.js")
    process = await asyncio.create_subprocess_exec(node, script, env=environment, stdout=PIPE, stderr=sys.stderr)
    try:
        yield Told(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def published(fake_broker: FakeBroker) -> set[int]:
    documents = [decode_document(body) for message in fake_broker.outgoing.messages for body in message.documents()]
    return {int(document["_id"]["ts"]) - TS for document in documents}


def token(seconds: float) -> str:
    return ISSUING.device(exp=int(time.time() + seconds) + 1)


async def test_it_streams_renews_is_expired_and_comes_back(node: str, fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, expiring_seconds=1.5) as running:
        tokens = {"first": token(2), "renewal": token(5), "fresh": token(60)}
        async with device(node, running, 2, **tokens) as told:
            await told.until("acknowledged")
            assert await asyncio.wait_for(told.process.wait(), 5) == 0
    assert [event for event in told.events if event != "acknowledged"] == [
        "connect",
        "auth_expiring",
        "renewed",
        "auth_expiring",
        "auth_expired",
        "disconnect",
        "connect",
    ]
    assert told.data("renewed")["status"] == "accepted"
    assert told.data("disconnect") == "transport close"
    acknowledged = set(told.data("acknowledged"))
    assert len(acknowledged) > 100
    assert acknowledged <= published(fake_broker)


async def test_it_comes_back_by_itself_when_its_gateway_is_replaced(node: str, fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with AsyncExitStack() as first, AsyncExitStack() as stack:
        running = await first.enter_async_context(gateway(fake_broker))
        told = await stack.enter_async_context(device(node, running, 2, first=token(60), fresh=token(60)))
        await told.until("connect")
        await asyncio.sleep(0.5)
        await first.aclose()
        async with gateway(fake_broker, at_port=int(running.url.rpartition(":")[2])):
            await told.until("acknowledged")
    acknowledged = set(told.data("acknowledged"))
    assert len(acknowledged) > 20
    assert acknowledged <= published(fake_broker)


async def test_a_refusal_tells_its_code(node: str, fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running, device(node, running, 1, first="garbage") as told:
        await told.until("connect_error")
        assert told.data("connect_error") == {"code": "unauthorized"}
