"""The frames that publish a message."""

import asyncio
from typing import Any

import pamqp.frame

from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.rabbitmq.frames import PERSISTENT, publish_frames
from broker.topology import (
    READINGS,
    READINGS_EXCHANGE,
)


async def test_messages_larger_than_a_frame_arrive_whole(rabbitmq_url: str) -> None:
    broker = RabbitMQBroker(rabbitmq_url, durable_after_s=0)
    bodies = [bytes([size % 251]) * size for size in (131_063, 131_064, 131_065, 131_072, 262_128, 1_048_576)]
    async with broker.publisher() as publisher, broker.consumer(READINGS, prefetch=10) as consumer:
        for body in bodies:
            await publisher.publish(Message(body), READINGS_EXCHANGE)
            async with asyncio.timeout(10):
                delivery = await consumer.get()
            assert delivery.message.body == body
            await consumer.acknowledge(delivery)


def test_frames_name_what_the_driver_would_name() -> None:
    message = Message(b"x" * 25, {"x-schema": 1, "x-error": "größer"}, "id-1")
    rest = publish_frames(message, READINGS_EXCHANGE, 3, 18, delivery_mode=PERSISTENT, mandatory=True)
    frames: list[Any] = []
    while rest:
        length, channel, frame = pamqp.frame.unmarshal(rest)
        assert channel == 3
        frames.append(frame)
        rest = rest[length:]
    method, header, *bodies = frames
    assert (method.exchange, method.routing_key, method.mandatory) == (READINGS_EXCHANGE.name, "readings.v1", True)
    assert header.body_size == 25
    properties = header.properties
    assert (properties.message_id, properties.delivery_mode, properties.headers) == ("id-1", 2, dict(message.headers))
    assert properties.content_type == "application/bson"
    assert [body.value for body in bodies] == [b"x" * 10, b"x" * 10, b"x" * 5]
