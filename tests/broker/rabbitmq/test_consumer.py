"""A message that is held for longer than the consumer time-out goes back, and nobody believes it to be settled.

Since RabbitMQ 4.3 the channel stays open then: only the consumer is cancelled, a late acknowledgement is taken without
a word, and what the cancelled consumer is lent next would be read by nobody.
"""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from yarl import URL

from broker.interface import Delivery
from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import READINGS, READINGS_EXCHANGE
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually

TIMEOUT_S = 3
WITHIN_S = 20.0


@pytest.fixture
def impatient_url(newest_rabbitmq_server: RabbitMQServer) -> Iterator[str]:
    """A vhost in which a message may be held for 3 s."""
    url = newest_rabbitmq_server.create_vhost()
    newest_rabbitmq_server.api(
        "PUT",
        f"policies/{URL(url).path[1:]}/impatient",
        {"pattern": ".*", "apply-to": "queues", "definition": {"consumer-timeout": TIMEOUT_S * 1000}},
    )
    yield url
    newest_rabbitmq_server.delete_vhost(url)


async def test_what_was_held_for_too_long_comes_again_and_a_late_acknowledgement_settles_nothing(
    impatient_url: str,
) -> None:
    broker = RabbitMQBroker(impatient_url, durable_after_s=0)
    bodies = [b"message %d" % number for number in range(8)]
    async with broker.publisher(READINGS_EXCHANGE) as publisher:
        for body in bodies:
            await publisher.publish(Message(body), READINGS_EXCHANGE)
    with capture_logs() as logs:
        async with broker.consumer(READINGS, prefetch=3) as consumer, asyncio.timeout(WITHIN_S):
            held = [await consumer.get() for _ in range(3)]
            settled: list[bytes] = []
            again = await consumer.get()  # the time-out is over
            assert again.generation != held[0].generation
            for late in held:
                assert await consumer.acknowledge(late) is False
            assert await consumer.acknowledge(held[-1], multiple=True) is False
            # Everything comes, those too that the cancelled consumer may have been lent.
            while again is not None:
                assert await consumer.acknowledge(again) is True
                settled.append(again.message.body)
                if len(settled) == len(bodies):
                    break
                again = await consumer.get()
    assert sorted(settled) == bodies
    lost = [line for line in logs if "lost" in line["event"]]
    assert len(lost) == 1
    assert "stayed unsettled for too long" in lost[0]["error"]

    async def empty() -> bool:
        return await broker.depth(READINGS) == 0

    await eventually(empty, "nothing is left over")


async def test_in_the_moment_of_the_cancellation_all_that_was_delivered_is_stale(impatient_url: str) -> None:
    broker = RabbitMQBroker(impatient_url, durable_after_s=0)
    async with broker.publisher(READINGS_EXCHANGE) as publisher:
        await publisher.publish(Message(b"held"), READINGS_EXCHANGE)
    async with broker.consumer(READINGS, prefetch=3) as consumer:
        async with asyncio.timeout(WITHIN_S):
            held = await consumer.get()
            while consumer.connection.usable.is_set():  # until the broker's word is there; no later connection is yet
                await asyncio.sleep(0)
        assert await consumer.acknowledge(held) is False
        async with asyncio.timeout(WITHIN_S):
            assert (await consumer.get()).message.body == b"held"


async def test_a_message_parked_for_too_long_is_redelivered_as_well(impatient_url: str) -> None:
    broker = RabbitMQBroker(impatient_url, durable_after_s=0)
    async with broker.publisher(READINGS_EXCHANGE) as publisher:
        for number in range(6):
            await publisher.publish(Message(b"message %d" % number), READINGS_EXCHANGE)
    async with broker.consumer(READINGS, prefetch=2) as consumer, asyncio.timeout(WITHIN_S):
        aside: list[Delivery] = [await consumer.get() for _ in range(2)]
        for delivery in aside:
            await consumer.park(delivery)
        settled: list[bytes] = []
        while len(settled) < 6:
            delivery = await consumer.get()
            assert await consumer.acknowledge(delivery) is True
            settled.append(delivery.message.body)
        assert sorted(settled) == [b"message %d" % number for number in range(6)]
        assert not any([await consumer.acknowledge(delivery) for delivery in aside])
