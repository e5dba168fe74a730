"""Announcing and listening, held against both brokers."""

import asyncio
import time
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aio_pika
import pytest

from broker.interface import Broadcaster, BrokerUnavailable, Subscriber
from broker.rabbitmq.broker import RabbitMQBroker
from broker.rabbitmq.fanout import MAX_BUFFERED
from broker.topology import LIVE_EXCHANGE, PRESENCE_EXCHANGE, READINGS
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.broker.system import System


async def receive(subscriber: Subscriber, count: int) -> list[bytes]:
    received: list[bytes] = []
    async with asyncio.timeout(60):
        async for payload in subscriber:
            received.append(payload)
            if len(received) == count:
                break
    return received


async def test_every_subscriber_receives_everything_in_order_and_nothing_of_other_exchanges(system: System) -> None:
    payloads = [f"payload {number}".encode() for number in range(200)]
    async with system.opened() as broker:
        await broker.declare()
    async with (
        system.opened() as broker,
        broker.subscriber(LIVE_EXCHANGE, bound=1000) as one,
        broker.subscriber(LIVE_EXCHANGE, bound=1000) as other,
        broker.subscriber(PRESENCE_EXCHANGE, bound=1000) as elsewhere,
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        broker.broadcaster(PRESENCE_EXCHANGE) as presence,
    ):
        for payload in payloads:
            broadcaster.broadcast(payload)
        assert await receive(one, 200) == payloads
        assert await receive(other, 200) == payloads
        presence.broadcast(b"present")
        assert await receive(elsewhere, 1) == [b"present"]
        assert broadcaster.dropped == one.dropped == other.dropped == 0
        await one.check()
        # Announcements are never kept among readings.
        assert await broker.depth(READINGS) == 0


async def test_a_large_payload_arrives_whole_and_an_empty_one_too(system: System) -> None:
    large = bytes(range(256)) * 4096
    async with (
        system.opened() as broker,
        broker.subscriber(LIVE_EXCHANGE, bound=10) as subscriber,
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
    ):
        for payload in (large, b"", b"small"):
            broadcaster.broadcast(payload)
        assert await receive(subscriber, 3) == [large, b"", b"small"]


async def test_a_subscriber_that_does_not_read_keeps_the_newest_and_blocks_nobody(system: System) -> None:
    async with (
        system.opened() as broker,
        broker.subscriber(LIVE_EXCHANGE, bound=5) as slow,
        broker.subscriber(LIVE_EXCHANGE, bound=5000) as quick,
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
    ):
        for number in range(1000):
            broadcaster.broadcast(str(number).encode())
        await receive(quick, 1000)
        broadcaster.broadcast(b"last")
        await receive(quick, 1)

        async def the_last_is_there() -> bool:
            waiting = slow._buffer  # type: ignore[attr-defined]
            return bool(waiting) and waiting[-1] == b"last"

        await eventually(the_last_is_there, "the newest has arrived")
        # RabbitMQ drops from the listener's queue as well; which ones of the newest are left is its choice.
        kept = [await anext(aiter(slow)) for _ in range(len(slow._buffer))]  # type: ignore[attr-defined]
        assert 1 <= len(kept) <= 5
        assert kept[-1] == b"last"
        if system.embedded:
            assert (kept, slow.dropped) == ([b"996", b"997", b"998", b"999", b"last"], 996)


async def test_a_subscriber_that_left_receives_nothing_and_leaves_no_queue(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    vhost = urlsplit(rabbitmq_url).path[1:]
    broker = RabbitMQBroker(rabbitmq_url)
    async with broker.subscriber(LIVE_EXCHANGE, bound=7):
        (queue,) = await asyncio.to_thread(rabbitmq_server.api, "GET", f"queues/{vhost}")
        assert queue["name"].startswith("tidegate.live.")
        assert (queue["exclusive"], queue["auto_delete"]) == (True, True)
        assert queue["arguments"] == {"x-max-length": 7, "x-overflow": "drop-head"}

    async def gone() -> bool:
        return not await asyncio.to_thread(rabbitmq_server.api, "GET", f"queues/{vhost}")

    await eventually(gone, "the listener's queue is gone")


async def test_broadcaster_and_subscriber_reconnect_after_their_connections_were_closed(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    vhost = urlsplit(rabbitmq_url).path[1:]
    async with (
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        broker.subscriber(LIVE_EXCHANGE, bound=10) as subscriber,
    ):
        broadcaster.broadcast(b"before")
        assert await receive(subscriber, 1) == [b"before"]
        await asyncio.to_thread(rabbitmq_server.rabbitmqctl, "close_all_connections", "--vhost", vhost, "a test")
        await broadcast_until_received(broadcaster, subscriber)


async def test_a_subscriber_whose_queue_was_deleted_subscribes_again(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    vhost = urlsplit(rabbitmq_url).path[1:]
    async with (
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        broker.subscriber(LIVE_EXCHANGE, bound=10) as subscriber,
    ):
        (queue,) = await asyncio.to_thread(rabbitmq_server.api, "GET", f"queues/{vhost}")
        # An exclusive queue is its connection's alone; the management API may still end it.
        await asyncio.to_thread(rabbitmq_server.rabbitmqctl, "eval", _delete_queue(vhost, queue["name"]))
        await broadcast_until_received(broadcaster, subscriber)


def _delete_queue(vhost: str, queue: str) -> str:
    return (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)), '
        'rabbit_amqqueue:delete(Q, false, false, <<"a test">>).'
    )


async def broadcast_until_received(broadcaster: Broadcaster, subscriber: Subscriber) -> None:
    hearing = asyncio.create_task(receive(subscriber, 1))
    async with asyncio.timeout(60):
        while not hearing.done():
            broadcaster.broadcast(b"after")
            await asyncio.sleep(0.05)
    assert hearing.result() == [b"after"]


async def test_announcing_while_the_broker_is_away_neither_waits_nor_fails_and_is_counted() -> None:
    broker = RabbitMQBroker("amqp://guest:guest@127.0.0.1:9/nowhere")
    async with (
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        broker.subscriber(LIVE_EXCHANGE, bound=1) as subscriber,
    ):
        started = time.monotonic()
        for _ in range(1000):
            broadcaster.broadcast(b"nobody hears it")
        assert time.monotonic() - started < 1
        assert broadcaster.dropped == 1000
        with pytest.raises(BrokerUnavailable):
            await subscriber.check()


async def test_announcing_faster_than_the_socket_takes_drops_the_oldest(rabbitmq_url: str) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    async with (
        broker.broadcaster(LIVE_EXCHANGE) as broadcaster,
        broker.subscriber(LIVE_EXCHANGE, bound=20_000) as subscriber,
    ):
        for number in range(MAX_BUFFERED + 500):  # without a turn of the event loop between
            broadcaster.broadcast(str(number).encode())
        assert broadcaster.dropped == 500
        assert (await receive(subscriber, MAX_BUFFERED))[0] == b"500"


async def test_a_broadcast_of_a_newer_schema_is_dropped(rabbitmq_url: str) -> None:
    async with AsyncExitStack() as stack:
        broker = RabbitMQBroker(rabbitmq_url)
        broadcaster = await stack.enter_async_context(broker.broadcaster(LIVE_EXCHANGE))
        subscriber = await stack.enter_async_context(broker.subscriber(LIVE_EXCHANGE, bound=10))
        connection = await stack.enter_async_context(await aio_pika.connect(rabbitmq_url))
        exchange = await (await connection.channel()).get_exchange(LIVE_EXCHANGE.name)
        await exchange.publish(aio_pika.Message(b"new form", headers={"x-schema": 2}), "live.v2")
        broadcaster.broadcast(b"old form")
        assert await receive(subscriber, 1) == [b"old form"]
        assert subscriber.dropped == 1
