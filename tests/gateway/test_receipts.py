"""`stored` events: who gets them, in which form, and what marks readings for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from broker.receipts import MAX_IDENTITIES, stored_payloads
from broker.topology import READINGS, STORED_EXCHANGE
from gateway.receipts import MAX_READINGS
from testing.waiting import eventually
from tests.gateway.harness import ISSUING, TS, RunningGateway, gateway, reading

Positions = list[tuple[int, int]]


class Listener:
    """A connected device and the `stored` events that it got."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.events: list[Any] = []
        client.on("stored", self.events.append)

    @property
    def readings(self) -> list[tuple[str, int, int]]:
        return [
            (item["sensorType"], ts, seq)
            for event in self.events
            for item in event["items"]
            for ts, seq in item["readings"]
        ]

    async def wait(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.readings) >= count

        await eventually(enough, f"{count} receipts arrive")


@asynccontextmanager
async def listening(running: RunningGateway, *, asks: object = True, **claims: Any) -> AsyncIterator[Listener]:
    auth: dict[str, Any] = {"token": ISSUING.device(**claims)}
    if asks is not None:
        auth["receipts"] = asks
    async with running.connected(auth) as client:
        yield Listener(client)


async def announce(broker: EmbeddedBroker, *stored: tuple[str, str, str, Positions]) -> None:
    async with broker.broadcaster(STORED_EXCHANGE) as broadcaster:
        for payload in stored_payloads(
            ((owner, device, sensor), positions) for owner, device, sensor, positions in stored
        ):
            broadcaster.broadcast(payload)
    await asyncio.sleep(0.05)


async def headers_of_next(broker: EmbeddedBroker) -> dict[str, Any]:
    async with asyncio.timeout(5), broker.consumer(READINGS, prefetch=1) as consumer:
        delivery = await consumer.get()
        await consumer.acknowledge(delivery)
    return dict(delivery.message.headers)


async def test_every_session_that_asked_is_told_and_no_other(embedded: EmbeddedBroker) -> None:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(gateway(embedded)) for _ in range(2)]
        one = await stack.enter_async_context(listening(first))
        other = await stack.enter_async_context(listening(second))
        silent = [
            await stack.enter_async_context(listening(first, asks=asks)) for asks in (None, False, 1, "true", [True])
        ]
        silent.append(await stack.enter_async_context(listening(first, device="device-2", sub="device-2")))
        silent.append(await stack.enter_async_context(listening(first, owner="user-2")))
        await announce(
            embedded, ("user-1", "device-1", "temperature", [(TS, 1), (TS, 2)]), ("user-1", "device-1", "t2", [(7, 0)])
        )
        for listener in (one, other):
            await listener.wait(3)
            assert listener.events == [
                {
                    "items": [
                        {"sensorType": "temperature", "readings": [[TS, 1], [TS, 2]]},
                        {"sensorType": "t2", "readings": [[7, 0]]},
                    ]
                }
            ]
        assert [listener.events for listener in silent] == [[]] * len(silent)
        assert first.registry.get_sample_value("tidegate_gateway_receipts_total", {"outcome": "sent"}) == 3


async def test_an_event_has_at_most_1000_readings(embedded: EmbeddedBroker, running: RunningGateway) -> None:
    many = [(TS + number, number) for number in range(2500)]
    async with listening(running) as listener:
        await announce(embedded, ("user-1", "device-1", "temperature", many), ("user-1", "device-1", "t2", many[:700]))
        await listener.wait(3200)
    sizes = [sum(len(item["readings"]) for item in event["items"]) for event in listener.events]
    assert sizes == [MAX_READINGS] * 3 + [200]
    assert [(ts, seq) for sensor, ts, seq in listener.readings if sensor == "temperature"] == many


async def test_a_client_that_reads_gets_every_receipt_of_a_large_payload(
    embedded: EmbeddedBroker, running: RunningGateway
) -> None:
    many = [(TS + number, 2**53 - 1 - number) for number in range(MAX_IDENTITIES)]
    async with listening(running) as listener:
        for _ in range(5):
            await announce(embedded, ("user-1", "device-1", "temperature", many))
        await listener.wait(5 * MAX_IDENTITIES)
    assert running.registry.get_sample_value("tidegate_gateway_receipts_total", {"outcome": "dropped"}) == 0


async def test_a_client_that_does_not_read_misses_receipts_and_costs_little(
    embedded: EmbeddedBroker, running: RunningGateway
) -> None:
    many = [(TS + number, number) for number in range(MAX_IDENTITIES)]
    auth = {"token": ISSUING.device(), "receipts": True}
    async with running.raw(auth) as socket, listening(running, device="device-2", sub="device-2") as other:
        assert (await socket.receive_str(timeout=5)).startswith("40")
        assert socket._conn is not None
        assert socket._conn.transport is not None
        socket._conn.transport.pause_reading()

        async def missed() -> bool:
            await announce(embedded, *(("user-1", "device-1", f"t{number}", many) for number in range(10)))
            value = running.registry.get_sample_value("tidegate_gateway_receipts_total", {"outcome": "dropped"})
            return (value or 0) > 10 * MAX_IDENTITIES

        await eventually(missed, "receipts are dropped")
        await announce(embedded, ("user-1", "device-2", "temperature", [(TS, 1)]))
        await other.wait(1)
        assert running.count("connections") == 2


async def test_a_session_that_is_renewed_is_still_told(embedded: EmbeddedBroker, running: RunningGateway) -> None:
    async with listening(running) as listener:
        assert (await listener.client.call("authenticate", {"token": ISSUING.device()}))["status"] == "accepted"
        await announce(embedded, ("user-1", "device-1", "temperature", [(TS, 1)]))
        await listener.wait(1)


@pytest.mark.usefixtures("path")
async def test_readings_of_devices_that_asked_are_marked(embedded: EmbeddedBroker) -> None:
    async with gateway(embedded) as running, listening(running) as asks, listening(running, asks=None) as does_not:
        await does_not.client.call("reading", reading(1))
        assert "x-receipts" not in await headers_of_next(embedded)
        await asks.client.call("readings", [reading(number, seq=number) for number in range(3)])
        assert (await headers_of_next(embedded))["x-receipts"] == "0-3"


async def test_a_session_that_has_ended_is_told_nothing(embedded: EmbeddedBroker, running: RunningGateway) -> None:
    async with listening(running):
        pass
    async with listening(running) as again:
        await announce(embedded, ("user-1", "device-1", "temperature", [(TS, 1)]))
        await again.wait(1)
    await announce(embedded, ("user-1", "device-1", "temperature", [(TS, 2)]))
    assert running.registry.get_sample_value("tidegate_gateway_receipts_total", {"outcome": "sent"}) == 1


async def test_a_payload_of_another_form_is_ignored(embedded: EmbeddedBroker, running: RunningGateway) -> None:
    async with listening(running) as listener:
        async with embedded.broadcaster(STORED_EXCHANGE) as broadcaster:
            broadcaster.broadcast(b'{"later": "version"}')
        await announce(embedded, ("user-1", "device-1", "temperature", [(TS, 1)]))
        await listener.wait(1)
