"""Receipts on real servers: behind the write, through any gateway, and what a device does when one is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import socketio

from testing.waiting import eventually
from tests.integration.conftest import Pipeline
from tests.integration.device import Device, connected, readings
from tests.integration.services import Running, started

SENSOR = "temperature"


async def test_a_device_is_told_what_is_stored_and_asks_for_what_it_missed(
    pipeline: Pipeline, rabbitmq_url: str
) -> None:
    first, second = pipeline.gateways
    told: list[tuple[int, int]] = []
    listener = socketio.AsyncClient(reconnection=False)

    def on_stored(event: Any) -> None:
        told.extend((ts, seq) for item in event["items"] for ts, seq in item["readings"])
        assert {item["sensorType"] for item in event["items"]} == {SENSOR}

    listener.on("stored", on_stored)
    # The device has come back to another gateway than the one that its readings went through.
    asks = {"token": pipeline.token, "receipts": True}
    await listener.connect(second.url, auth=asks, transports=["websocket"])
    sender = socketio.AsyncClient(reconnection=False)
    await sender.connect(first.url, auth=asks, transports=["websocket"])
    sent = readings(0, 500)
    assert (await sender.call("readings", sent))["status"] == "accepted"

    async def all_told() -> bool:
        return len(told) >= len(sent)

    await eventually(all_told, "every reading has a receipt")
    assert set(told) == {(reading["ts"], reading["seq"]) for reading in sent}
    assert pipeline.identities() >= {(pipeline.device, SENSOR, ts, seq) for ts, seq in told}

    async with connected(first.url, pipeline.token, pipeline.device) as silent:
        await silent.send_until_accepted(readings(1000, 100))
    await listener.disconnect()
    await sender.call("readings", readings(2000, 100))
    await sender.disconnect()
    url, database = pipeline.mongodb
    async with started(
        "reader", BROKER_URL=rabbitmq_url, READINGS_URL=url, READINGS_DATABASE=database, AUTH_URL=pipeline.auth.url
    ) as reader:
        wanted = [(one["ts"], one["seq"]) for one in readings(2000, 100) + readings(5000, 3)]
        found: list[tuple[int, int]] = []

        async def all_found() -> bool:
            found[:] = await _listed(reader.url, pipeline.token, wanted)
            return len(found) == 100

        await eventually(all_found, "all but those that were never sent are stored")
        assert found == wanted[:100]
    assert len(told) == len(sent), "nothing was announced to a device that is away, nor of a session that did not ask"


async def test_nothing_is_announced_while_workers_die_before_they_have_stored_it(pipeline: Pipeline) -> None:
    told: list[tuple[int, int]] = []
    device = socketio.AsyncClient(reconnection=False)
    device.on("stored", lambda event: told.extend(map(tuple, event["items"][0]["readings"])))
    auth = {"token": pipeline.token, "receipts": True}
    await device.connect(pipeline.gateways[0].url, auth=auth, transports=["websocket"])
    sending = asyncio.ensure_future(_send(device, 0, 20_000))

    async def some_told() -> bool:
        return bool(told)

    await eventually(some_told, "the first receipts")
    await pipeline.persisters[0].kill()
    await sending
    sent_later = await _send(device, 20_000, 5_000)

    async def quiet() -> bool:
        before = len(told)
        await asyncio.sleep(0.5)
        return len(told) == before and len(pipeline.stored()) == 25_000

    await eventually(quiet, "everything is stored")
    stored = {(ts, seq) for _, _, ts, seq in pipeline.identities()}
    assert set(told) <= stored
    assert sent_later <= set(told), "a killed worker loses the receipts of what it had stored last, no others"
    await device.disconnect()


@pytest.mark.parametrize(("point", "stored"), [("persister.before_insert", 0), ("persister.inserted", 100)])
async def test_what_a_killed_worker_did_not_tell_is_listed_if_stored_and_told_when_redelivered(
    pipeline: Pipeline, rabbitmq_url: str, point: str, stored: int
) -> None:
    url, database = pipeline.mongodb
    settings = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": database}
    sent = readings(0, 100)
    identities = [(one["ts"], one["seq"]) for one in sent]
    told: list[tuple[int, int]] = []

    @asynccontextmanager
    async def device_at(gateway: Running) -> AsyncIterator[Device]:
        async with connected(gateway.url, pipeline.token, pipeline.device, receipts=True) as device:
            device.client.on("stored", lambda event: told.extend(_identities(event)))
            yield device

    async def all_told() -> bool:
        return set(told) == set(identities)

    for one in pipeline.persisters:
        assert await one.stop() == 0
    async with started("reader", **settings, AUTH_URL=pipeline.auth.url) as reader:
        async with (
            started("persister", **settings, TIDEGATE_FAILPOINT=f"{point}:1") as killed,
            device_at(pipeline.gateways[0]) as device,
        ):
            await device.send_until_accepted(sent)
            await asyncio.wait_for(killed.process.wait(), 20)
            await asyncio.sleep(0.5)
            assert told == []
            assert len(await _listed(reader.url, pipeline.token, identities)) == stored
        # The device is at another gateway when its readings are redelivered to another worker.
        async with device_at(pipeline.gateways[1]), started("persister", **settings):
            await eventually(all_told, "what was redelivered has receipts")
        assert await _listed(reader.url, pipeline.token, identities) == identities
    assert len(pipeline.stored()) == 100


def _identities(event: Any) -> list[tuple[int, int]]:
    return [(ts, seq) for item in event["items"] for ts, seq in item["readings"]]


async def _listed(url: str, token: str, identities: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ask which of these readings are stored."""
    body = {"items": [{"sensorType": SENSOR, "readings": identities}]}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
        session.post(f"{url}/readings/stored", json=body) as response,
    ):
        assert response.status == 200, await response.text()
        return _identities(await response.json())


async def _send(device: Any, first: int, count: int) -> set[tuple[int, int]]:
    """Return what was accepted: all of it."""
    accepted: set[tuple[int, int]] = set()
    for start in range(first, first + count, 500):
        sent = readings(start, 500)
        answer = await device.call("readings", sent)
        assert answer["status"] == "accepted"
        accepted |= {(one["ts"], one["seq"]) for one in sent}
    return accepted
