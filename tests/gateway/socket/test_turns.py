"""Devices that send much at once: all of it is taken, in order, and a live reading does not stand behind it."""

import asyncio
import json
import random
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from gateway.socket.output import INPUT_A_TURN
from readings.document import decode_document
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import ISSUING, RunningGateway, gateway

DEVICES, EVENTS, READINGS = 60, 3, 100


def event(ack_id: int, values: range) -> str:
    readings = [{"sensorType": "temperature", "value": value, "unit": "celsius"} for value in values]
    return f"42{ack_id}" + json.dumps(["readings", readings])


async def session(
    stack: AsyncExitStack, running: RunningGateway, device: str, **auth: Any
) -> aiohttp.ClientWebSocketResponse:
    token = ISSUING.device(sub=device, device=device)
    socket = await stack.enter_async_context(running.raw({"token": token, **auth}))
    assert (await socket.receive_str(timeout=5)).startswith("40{")
    return socket


async def test_all_of_it_is_taken_in_order_and_a_live_reading_is_not_behind_it(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, max_in_flight_events=1000) as running, AsyncExitStack() as stack:
        fleet = [await session(stack, running, f"device-{number}") for number in range(DEVICES)]
        live = await session(stack, running, "live")
        # Nothing here lets the gateway, which shares this event loop, read until all is sent.
        for ack_id in range(EVENTS):
            for socket in fleet:
                await socket.send_str(event(ack_id, range(ack_id * READINGS, (ack_id + 1) * READINGS)))
        await live.send_str('420["reading",{"value":-1}]')
        assert await live.receive_str(timeout=10) == '430[{"status":"accepted","accepted":1}]'
        for socket in fleet:
            answers = [await socket.receive_str(timeout=10) for _ in range(EVENTS)]
            assert answers == [f'43{n}[{{"status":"accepted","accepted":{READINGS}}}]' for n in range(EVENTS)]
    stored = [decode_document(one) for message in fake_broker.outgoing.messages for one in message.documents()]
    assert len(stored) == DEVICES * EVENTS * READINGS + 1
    for number in range(DEVICES):
        of = [one["value"] for one in stored if one["_id"]["device"] == f"device-{number}"]
        assert of == list(range(EVENTS * READINGS))
    before = next(at for at, one in enumerate(stored) if one["_id"]["device"] == "live")
    # A turn, and the input that has begun within it.
    size = len(event(0, range(READINGS)))
    assert before <= (INPUT_A_TURN // size + EVENTS) * READINGS < len(stored) / 2


async def test_one_that_goes_while_its_input_waits_disturbs_nobody(fake_broker: FakeBroker) -> None:
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker) as running, AsyncExitStack() as stack:
        fleet = [await session(stack, running, f"device-{number}") for number in range(DEVICES)]
        for socket in fleet:
            await socket.send_str(event(0, range(READINGS)))
        for socket in fleet[::2]:
            connection = socket._response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.abort()
        for socket in fleet[1::2]:
            assert (await socket.receive_str(timeout=10)).startswith('430[{"status":"accepted"')


@pytest.mark.parametrize("seed", range(5))
async def test_input_in_any_parts_is_answered_in_order(fake_broker: FakeBroker, seed: int) -> None:
    dice = random.Random(seed)
    fake_broker.outgoing.auto_confirm = True
    async with gateway(fake_broker, max_in_flight_events=1000) as running, AsyncExitStack() as stack:

        async def streams(device: str) -> None:
            socket = await session(stack, running, device)
            connection = socket._response.connection
            assert connection is not None
            assert connection.transport is not None
            counts = [dice.choice([2, 5, 100, 700]) for _ in range(12)]
            data = b"".join(frame(event(number, range(count))) for number, count in enumerate(counts))
            while data:
                part = dice.choice([1, 7, 300, 2048, 40_000, 500_000])
                connection.transport.write(data[:part])
                data = data[part:]
                await asyncio.sleep(dice.choice([0, 0, 0.002]))
            for number, count in enumerate(counts):
                answer = await socket.receive_str(timeout=10)
                assert answer == f'43{number}[{{"status":"accepted","accepted":{count}}}]'

        await asyncio.gather(*(streams(f"device-{number}") for number in range(20)))


def frame(text: str) -> bytes:
    """A client's text frame; the mask is zero."""
    payload = text.encode()
    size = len(payload)
    head = b"\x81\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\x81\xff" + size.to_bytes(8, "big")
    assert size >= 126
    return head + b"\0\0\0\0" + payload
