"""Faults that the contract's ordinary course does not meet: cancelled consumers, late commits, full dead letters."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aio_pika
import pytest

from broker.interface import BrokerError, BrokerUnavailable, QueueFull
from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import (
    DEAD_LETTERS,
    DECLARED_EXCHANGE,
    LIVE_EXCHANGE,
    READINGS,
    READINGS_EXCHANGE,
    Queue,
)
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.broker.system import System


class BodyFailed(Exception):
    pass


@pytest.mark.parametrize("context", ["publisher", "consumer", "broadcaster", "subscriber"])
async def test_what_the_body_of_a_context_raises_comes_out_as_itself(system: System, context: str) -> None:
    async with system.opened() as broker:
        opened: Any = {
            "publisher": broker.publisher,
            "consumer": lambda: broker.consumer(READINGS, prefetch=1),
            "broadcaster": lambda: broker.broadcaster(LIVE_EXCHANGE),
            "subscriber": lambda: broker.subscriber(LIVE_EXCHANGE, bound=1),
        }[context]
        with pytest.raises(BodyFailed):
            async with opened():
                raise BodyFailed


async def test_a_consumer_whose_queue_was_deleted_declares_it_and_consumes_again(rabbitmq_url: str) -> None:
    broker = RabbitMQBroker(rabbitmq_url, durable_after_s=0)
    async with broker.publisher() as publisher, broker.consumer(READINGS, prefetch=5) as consumer:
        await publisher.publish(Message(b"before"), READINGS_EXCHANGE)
        async with asyncio.timeout(60):
            await consumer.acknowledge(await consumer.get())
        async with await aio_pika.connect(rabbitmq_url) as connection:
            channel = await connection.channel()
            await channel.queue_delete(READINGS.name)

        async def published() -> bool:
            try:
                await publisher.publish(Message(b"after"), READINGS_EXCHANGE)
            except BrokerError:
                return False
            return True

        await eventually(published, "the queue is there again")
        async with asyncio.timeout(60):
            assert (await consumer.get()).message.body == b"after"


async def test_many_publishes_in_flight_are_each_confirmed_or_refused_on_their_own(rabbitmq_url: str) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=20_000, dead_letter_queue=DEAD_LETTERS)
    broker = RabbitMQBroker(rabbitmq_url, (DEAD_LETTERS, small), durable_after_s=0)
    async with broker.publisher() as publisher:
        outcomes = await asyncio.gather(
            *(publisher.publish(Message(bytes(500)), READINGS_EXCHANGE) for _ in range(500)), return_exceptions=True
        )
        confirmed = outcomes.count(None)
        assert all(outcome is None or isinstance(outcome, QueueFull) for outcome in outcomes)
        assert 40 <= confirmed < 500

        async def all_there() -> bool:
            return await broker.depth(small) == confirmed

        await eventually(all_there, f"{confirmed} messages are in the queue")


async def test_publishes_in_flight_fail_with_their_connection_and_not_with_their_timeout() -> None:
    with TemporaryDirectory(prefix="tidegate-tests-") as folder:
        server = RabbitMQServer(Path(folder))
        server.start()
        async with RabbitMQBroker(server.url, durable_after_s=0).publisher(confirm_timeout_s=3600) as publisher:
            server.pause()
            # More than the driver's queue and the socket take: some of them wait to be written.
            publishes = [
                asyncio.create_task(publisher.publish(Message(bytes(1_000_000)), READINGS_EXCHANGE)) for _ in range(40)
            ]
            await asyncio.sleep(0.1)
            assert not any(publish.done() for publish in publishes)
            server.resume()
            await asyncio.to_thread(server.kill)
            async with asyncio.timeout(60):
                outcomes = await asyncio.gather(*publishes, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, BrokerUnavailable) for outcome in outcomes)
        assert any(isinstance(outcome, BrokerUnavailable) for outcome in outcomes)


async def test_a_message_confirmed_right_after_the_first_declaration_outlives_kill_9_of_the_node() -> None:
    with TemporaryDirectory(prefix="tidegate-tests-") as folder, RabbitMQServer(Path(folder)) as server:
        broker = RabbitMQBroker(server.url)
        # A consumer that declares the queues first must not make a publisher believe that they are old.
        async with broker.consumer(READINGS, prefetch=1), broker.publisher() as publisher:
            await publisher.publish(Message(b"the first message"), READINGS_EXCHANGE)
            (register,) = (server.folder / "mnesia").glob("*/quorum/*/names.dets")
            registered = READINGS.name.encode() in register.read_bytes()
            await asyncio.to_thread(server.kill)
            assert registered  # it may also survive by luck, as the register is written once a second
        await asyncio.to_thread(server.restart)
        async with broker.consumer(READINGS, prefetch=1) as consumer, asyncio.timeout(60):
            assert (await consumer.get()).message.body == b"the first message"


async def test_declaring_waits_the_first_time_also_after_a_consumer_and_the_second_time_not(rabbitmq_url: str) -> None:
    async with RabbitMQBroker(rabbitmq_url).consumer(READINGS, prefetch=1):
        started = time.monotonic()
        await RabbitMQBroker(rabbitmq_url, durable_after_s=1.0).declare()
        assert time.monotonic() - started >= 1.0
    async with asyncio.timeout(5):
        await RabbitMQBroker(rabbitmq_url, durable_after_s=3600).declare()
    async with await aio_pika.connect(rabbitmq_url) as connection:
        await (await connection.channel()).get_exchange(DECLARED_EXCHANGE.name)


async def test_a_user_who_may_not_declare_publishes_and_consumes_what_another_has_declared(
    each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str
) -> None:
    rabbitmq_server, rabbitmq_url = each_rabbitmq_server, each_rabbitmq_url
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    vhost = rabbitmq_url.rsplit("/", 1)[1]
    rabbitmq_server.api("PUT", f"users/{vhost}", {"password": "secret", "tags": ""})
    rights = {"configure": "^$", "write": r"^tidegate\.readings$", "read": r"^tidegate\.readings$"}
    rabbitmq_server.api("PUT", f"permissions/{vhost}/{vhost}", rights)
    broker = RabbitMQBroker(rabbitmq_url.replace("guest:guest", f"{vhost}:secret"))
    async with broker.publisher() as publisher, broker.consumer(READINGS, prefetch=1) as consumer:
        await publisher.publish(Message(b"allowed"), READINGS_EXCHANGE)
        async with asyncio.timeout(60):
            await consumer.acknowledge(await consumer.get())
