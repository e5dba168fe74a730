"""Clients that can never connect: where each of them shows the reason."""

import json
import os
import subprocess
from asyncio import to_thread
from typing import Any

import pytest
import socketio

from broker.interface import ConfirmLate
from testing.node import node_with
from tests.clients.streaming_clients import HERE, JAVASCRIPT
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, RunningGateway, gateway

BEFORE_3 = "socket.io-client-2.5.0"


async def first_event(running: RunningGateway, client: str, **options: Any) -> dict[str, Any]:
    """Return the first event of a JavaScript client."""
    node = node_with(HERE, client)
    options = {"auth": {"token": ISSUING.device()}} | options
    environment = os.environ | {"URL": running.url, "CLIENT": client, "OPTIONS": json.dumps(options)}
    script = [node, str(HERE / "first_event.js")]
    done = await to_thread(subprocess.run, script, env=environment, capture_output=True, timeout=30, check=True)
    event: dict[str, Any] = json.loads(done.stdout)
    return event


async def test_the_official_client_without_transports_finds_why_in_the_error_s_context(fake_broker: FakeBroker) -> None:
    async with gateway(fake_broker) as running:
        event = await first_event(running, "socket.io-client")
    assert (event["event"], event["message"]) == ("connect_error", "xhr poll error")
    assert json.loads(event["body"])["message"].startswith("WebSocket only")


async def test_the_python_client_without_transports_is_given_why(fake_broker: FakeBroker) -> None:
    client = socketio.AsyncClient(reconnection=False)
    refusals: list[dict[str, str]] = []
    client.on("connect_error", refusals.append)
    async with gateway(fake_broker) as running:
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(running.url, auth={"token": ISSUING.device()})
    assert [refusal["message"][:14] for refusal in refusals] == ["WebSocket only"]


@pytest.mark.parametrize("transports", [["polling", "websocket"], ["websocket"]])
async def test_a_client_of_before_version_3_never_connects(fake_broker: FakeBroker, transports: list[str]) -> None:
    async with gateway(fake_broker) as running:
        event = await first_event(running, BEFORE_3, transports=transports)
        assert event["event"] == "connect_error"
        assert running.count("connections") == 0


@pytest.mark.parametrize("client", JAVASCRIPT)
async def test_from_version_3_on_every_client_connects_with_the_option(fake_broker: FakeBroker, client: str) -> None:
    async with gateway(fake_broker) as running:
        assert (await first_event(running, client, transports=["websocket"]))["event"] == "connect"


async def test_python_socketio_4_is_refused_with_the_versions_that_connect(fake_broker: FakeBroker) -> None:
    """Its two handshakes, as python-engineio 3.14 sends them."""
    async with gateway(fake_broker) as running:
        for transport in ("polling", "websocket"):
            query = f"transport={transport}&EIO=3&t=1764300000.0"
            async with running.http.get(f"{running.url}/socket.io/?{query}") as answer:
                assert answer.status == 400
                assert "python-socketio 5" in (await answer.json())["message"]


async def test_retries_of_the_official_client_take_a_retry_for_success(fake_broker: FakeBroker) -> None:
    """A caveat in README: when this test fails, the client checks the status, and README can be updated."""
    fake_broker.outgoing.failure = ConfirmLate("no confirm came in time")
    async with gateway(fake_broker) as running:
        event = await first_event(running, "socket.io-client", transports=["websocket"], retries=3, ackTimeout=2000)
    assert (event["event"], event["message"]) == ("acknowledged", "retry")
    assert len(fake_broker.outgoing.messages) == 1, "it is not resent"
