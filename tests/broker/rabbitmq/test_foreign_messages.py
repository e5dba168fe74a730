"""What another publisher may write into a message's properties neither ends a consumer nor stays in its window."""

import asyncio

import aiormq

from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.rabbitmq.connection import frame_max
from broker.rabbitmq.frames import PERSISTENT, channel_frame, publish_frames
from broker.topology import READINGS, READINGS_EXCHANGE

NO_UTF8 = b"\xff" * 32
WITHIN_S = 20.0


async def publish_foreign(url: str, message: Message, *, without_utf8: str = "") -> None:
    """Publish a message whose text `without_utf8` becomes one that is no UTF-8."""
    async with aiormq.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        assert isinstance(channel, aiormq.Channel)
        frames = publish_frames(
            message, READINGS_EXCHANGE, channel.number, frame_max(channel), delivery_mode=PERSISTENT, mandatory=True
        )
        if without_utf8:
            frames = frames.replace(without_utf8.encode(), NO_UTF8)
        await channel.write_queue.put(channel_frame(frames, None))
        await channel.basic_qos(prefetch_count=1)  # its answer proves that the broker has read what is in front of it


async def test_what_cannot_be_decoded_arrives_and_what_is_behind_it_too(rabbitmq_url: str) -> None:
    broker = RabbitMQBroker(rabbitmq_url, durable_after_s=0)
    async with broker.publisher(READINGS_EXCHANGE) as publisher:
        await publish_foreign(rabbitmq_url, Message(b"id", message_id="a" * 32), without_utf8="a" * 32)
        await publish_foreign(rabbitmq_url, Message(b"header", {"b" * 32: "text"}), without_utf8="b" * 32)
        await publish_foreign(rabbitmq_url, Message(b"count", {"x-delivery-count": "often"}))
        await publisher.publish(Message(b"good"), READINGS_EXCHANGE)
    async with broker.consumer(READINGS, prefetch=4) as consumer, asyncio.timeout(WITHIN_S):
        arrived = [await consumer.get() for _ in range(4)]
        assert [delivery.message.body for delivery in arrived] == [b"id", b"header", b"count", b"good"]
        assert [dict(delivery.message.headers) for delivery in arrived[:3]] == [{}, {}, {}]
        assert [delivery.delivery_count for delivery in arrived] == [0, 0, 0, 0]
        assert all([await consumer.acknowledge(delivery) for delivery in arrived])
