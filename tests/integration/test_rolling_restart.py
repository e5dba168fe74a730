"""Gateways replaced one after the other under load: nothing accepted is lost, and no device waits for long."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from typing import Any

import pytest
import socketio

from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import Identity
from tests.integration.services import started

DEVICES = 30
TS = 1_750_000_000_000
PROMISED_S = 5.0
# python-socketio waits that long for the answer to an event that was lost with its connection, then the device resends.
ANSWER_WITHIN_S = 2.0


class Balancer:
    """Hands connections on to whichever gateway takes them, in turns: what nginx does in front."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._next = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            for _ in self.ports:
                self._next += 1
                with suppress(OSError):
                    back, forth = await asyncio.open_connection("127.0.0.1", self.ports[self._next % len(self.ports)])
                    with closing(forth):
                        await asyncio.gather(carry(reader, forth), carry(back, writer))
                    return


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def balanced(ports: list[int]) -> AsyncIterator[str]:
    server = await asyncio.start_server(Balancer(ports).connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


class Streaming:
    """A device that sends without a pause until it is stopped, and notes when it was last acknowledged.

    It is not cancelled: python-socketio's `call` waits with `asyncio.wait_for`, which before Python 3.12 swallows a
    cancellation that arrives together with the answer.
    """

    def __init__(self, client: Any, sensor_type: str, device: str) -> None:
        self.client = client
        self.sensor_type = sensor_type
        self.device = device
        self.accepted: set[Identity] = set()
        self.last_at = time.monotonic()
        self.longest_s = 0.0
        self.stopped = False

    async def run(self) -> None:
        number = 0
        while not self.stopped:
            number += 1
            reading = {"sensorType": self.sensor_type, "value": number, "ts": TS + number, "seq": 0}
            while not await self._accepted(reading):
                await asyncio.sleep(0.05)
            now = time.monotonic()
            self.longest_s, self.last_at = max(self.longest_s, now - self.last_at), now
            self.accepted.add((self.device, self.sensor_type, TS + number, 0))
            await asyncio.sleep(0.02)

    async def _accepted(self, reading: dict[str, Any]) -> bool:
        try:
            answer = await self.client.call("reading", reading, timeout=ANSWER_WITHIN_S)
        except socketio.exceptions.SocketIOError:  # lost with its connection: nothing was promised
            return False
        return bool(answer["status"] == "accepted")


async def leave(client: Any) -> None:
    await client.disconnect()
    if client.eio.http is not None:  # one that has reconnected leaves it open
        await client.eio.http.close()


@pytest.mark.alone
async def test_gateways_are_replaced_in_turn_and_nobody_loses_anything_or_waits_long(pipeline: Pipeline) -> None:
    auth_url = pipeline.auth.url
    ports = [one.port for one in pipeline.gateways]
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(balanced(ports))
        fleet: list[Streaming] = []
        for number in range(DEVICES):
            client = socketio.AsyncClient(reconnection_delay=0.2, reconnection_delay_max=0.5)
            await client.connect(url, auth={"token": pipeline.token}, transports=["websocket"])
            fleet.append(Streaming(client, f"s-{number}", pipeline.device))
        streams = [asyncio.ensure_future(one.run()) for one in fleet]
        await asyncio.sleep(1)
        broker_url = pipeline.gateways[0].settings["BROKER_URL"]
        for old in pipeline.gateways:
            stopped = time.monotonic()
            assert await old.stop() == 0
            assert time.monotonic() - stopped < 10
            await stack.enter_async_context(
                started("gateway", BROKER_URL=broker_url, AUTH_URL=auth_url, PORT=str(old.port))
            )
            await asyncio.sleep(1)
        for device, stream in zip(fleet, streams, strict=True):
            assert not stream.done(), stream.exception()
            device.stopped = True
        async with asyncio.timeout(2 * PROMISED_S):
            await asyncio.gather(*streams)
        await asyncio.gather(*(leave(one.client) for one in fleet))
        accepted = set().union(*(one.accepted for one in fleet))
        longest_s = max(one.longest_s for one in fleet)
        print(f"{len(accepted)} accepted, the longest wait of a device was {longest_s:.2f} s")

        async def all_stored() -> bool:
            return accepted <= pipeline.identities()

        await eventually(all_stored, "everything accepted is stored")
    stored = [str(document["_id"]) for document in pipeline.stored()]
    assert len(stored) == len(set(stored))
    assert len(accepted) > DEVICES * 20
    assert longest_s <= PROMISED_S
