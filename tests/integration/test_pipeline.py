"""From sign-up to the stored document, on RabbitMQ, MariaDB and MongoDB, with every service a process of its own."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import bson

from broker.interface import Delivery
from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import DEAD_LETTERS, READINGS_EXCHANGE
from tests.integration.conftest import Pipeline
from tests.integration.device import connected, readings


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def test_readings_of_one_device_through_two_gateways_are_stored_once_and_unchanged(pipeline: Pipeline) -> None:
    first, second = pipeline.gateways
    sent = readings(0, 1000)
    async with (
        connected(first.url, pipeline.token, pipeline.device) as one,
        connected(second.url, pipeline.token, pipeline.device) as other,
    ):
        await asyncio.gather(*(device.send_until_accepted(sent) for device in (one, other)))
        accepted = one.acknowledged | other.acknowledged
    await until(lambda: pipeline.identities() >= accepted)
    stored = pipeline.stored()
    assert [document["value"] for document in stored] == [reading["value"] for reading in sent]
    assert list(stored[0]) == ["_id", "value", "receivedAt", "location"]
    assert list(stored[0]["_id"]) == ["owner", "device", "sensorType", "ts", "seq"]
    assert isinstance(stored[0]["_id"]["ts"], datetime)
    assert stored[0]["location"] == "roof"


async def test_the_good_readings_among_invalid_ones_are_stored(pipeline: Pipeline) -> None:
    wrong: list[Any] = [
        {"sensorType": "temperature", "value": None},
        {"sensorType": "temperature", "value": 1, "ts": "soon"},
        7,
    ]
    async with connected(pipeline.gateways[0].url, pipeline.token, pipeline.device) as device:
        answer = await device.send([*readings(0, 2), *wrong, *readings(2, 1)])
    assert (answer["status"], answer["accepted"]) == ("partial", 3)
    codes = [(item["index"], item["code"]) for item in answer["rejected"]]
    assert codes == [(2, "invalid_value"), (3, "invalid_ts"), (4, "invalid_reading")]
    await until(lambda: len(pipeline.identities()) == 3)


async def test_a_killed_persister_loses_nothing_that_was_acknowledged(pipeline: Pipeline) -> None:
    async with connected(pipeline.gateways[0].url, pipeline.token, pipeline.device) as device:
        for start in range(0, 20_000, 500):
            await device.send_until_accepted(readings(start, 500))
            if start == 10_000:
                await pipeline.persisters[0].kill()
    await until(lambda: pipeline.identities() >= device.acknowledged)
    assert len(pipeline.stored()) == len(device.acknowledged) == 20_000


async def test_a_killed_gateway_loses_nothing_that_was_acknowledged(pipeline: Pipeline) -> None:
    first, second = pipeline.gateways
    async with connected(first.url, pipeline.token, pipeline.device) as device:
        sending = [asyncio.ensure_future(device.send(readings(start, 100))) for start in range(0, 5000, 100)]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        await first.kill()
        await asyncio.wait(sending)
        for task in sending:
            task.exception()
    async with connected(second.url, pipeline.token, pipeline.device) as again:
        for start in range(0, 5000, 500):
            await again.send_until_accepted(readings(start, 500))
    await until(lambda: pipeline.identities() >= device.acknowledged | again.acknowledged)
    assert len(pipeline.stored()) == 5000


async def test_every_process_stops_cleanly_on_sigterm_with_everything_stored(pipeline: Pipeline) -> None:
    async with connected(pipeline.gateways[0].url, pipeline.token, pipeline.device) as device:
        for start in range(0, 3000, 500):
            await device.send_until_accepted(readings(start, 500))
        assert [await gateway.stop() for gateway in pipeline.gateways] == [0, 0]
    await until(lambda: pipeline.identities() >= device.acknowledged)
    assert [await persister.stop() for persister in pipeline.persisters] == [0, 0]
    assert await pipeline.auth.stop() == 0


async def test_what_cannot_be_read_goes_to_the_dead_letters_with_its_bytes_and_its_reason(
    pipeline: Pipeline, rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    good = bson.encode({"not": "a reading"})
    poison = {
        b"\x05\x00\x00\x00": ("undecodable", {"x-schema": 1}),
        b"from the future": ("newer_schema", {"x-schema": 2}),
        good: ("undecodable", {"x-schema": 1}),
    }
    async with broker.publisher() as publisher:
        for body, (_, headers) in poison.items():
            await publisher.publish(Message(body, headers), READINGS_EXCHANGE)
    async with connected(pipeline.gateways[0].url, pipeline.token, pipeline.device) as device:
        await device.send_until_accepted(readings(0, 10))
    async with broker.consumer(DEAD_LETTERS, prefetch=10) as consumer, asyncio.timeout(15):
        dead_letters: list[Delivery] = [await consumer.get() for _ in poison]
        for dead_letter in dead_letters:
            await consumer.acknowledge(dead_letter)
    assert {dead_letter.message.body: dead_letter.message.headers["x-reason"] for dead_letter in dead_letters} == {
        body: reason for body, (reason, _) in poison.items()
    }
    assert all(
        {"x-error", "x-service", "x-first-seen"} <= set(dead_letter.message.headers) for dead_letter in dead_letters
    )
    await until(lambda: pipeline.identities() >= device.acknowledged)
