"""Announcing and listening, held against both brokers."""

import asyncio
import time
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import aio_pika
import pytest

from broker.interface import Announcer, BrokerUnavailable, Listener
from broker.rabbitmq import RabbitMQBroker
from broker.rabbitmq_fanout import MAX_WAITING
from broker.topology import LIVE_EXCHANGE, PRESENCE_EXCHANGE, READINGS
from tests.broker.system import System
from tests.broker.waiting import eventually
from tests.servers.rabbitmq import RabbitMQServer


async def hear(listener: Listener, count: int) -> list[bytes]:
    heard: list[bytes] = []
    async with asyncio.timeout(10):
        async for payload in listener:
            heard.append(payload)
            if len(heard) == count:
                break
    return heard


async def test_every_listener_hears_everything_in_order_and_other_exchanges_nothing(system: System) -> None:
    payloads = [f"payload {number}".encode() for number in range(200)]
    async with system.opened() as broker:
        await broker.declare()
    async with (
        system.opened() as broker,
        broker.listener(LIVE_EXCHANGE, bound=1000) as one,
        broker.listener(LIVE_EXCHANGE, bound=1000) as other,
        broker.listener(PRESENCE_EXCHANGE, bound=1000) as elsewhere,
        broker.announcer(LIVE_EXCHANGE) as announcer,
        broker.announcer(PRESENCE_EXCHANGE) as presence,
    ):
        for payload in payloads:
            announcer.announce(payload)
        assert await hear(one, 200) == payloads
        assert await hear(other, 200) == payloads
        presence.announce(b"present")
        assert await hear(elsewhere, 1) == [b"present"]
        assert announcer.dropped == one.dropped == other.dropped == 0
        await one.check()
        # Announcements are never kept among readings.
        assert await broker.depth(READINGS) == 0


async def test_a_large_payload_arrives_whole_and_an_empty_one_too(system: System) -> None:
    large = bytes(range(256)) * 4096
    async with (
        system.opened() as broker,
        broker.listener(LIVE_EXCHANGE, bound=10) as listener,
        broker.announcer(LIVE_EXCHANGE) as announcer,
    ):
        for payload in (large, b"", b"small"):
            announcer.announce(payload)
        assert await hear(listener, 3) == [large, b"", b"small"]


async def test_a_listener_that_does_not_listen_keeps_the_newest_and_holds_nobody(system: System) -> None:
    async with (
        system.opened() as broker,
        broker.listener(LIVE_EXCHANGE, bound=5) as slow,
        broker.listener(LIVE_EXCHANGE, bound=5000) as quick,
        broker.announcer(LIVE_EXCHANGE) as announcer,
    ):
        for number in range(1000):
            announcer.announce(str(number).encode())
        await hear(quick, 1000)
        announcer.announce(b"last")
        await hear(quick, 1)

        async def the_last_is_there() -> bool:
            waiting = slow._heard  # type: ignore[attr-defined]
            return bool(waiting) and waiting[-1] == b"last"

        await eventually(the_last_is_there, "the newest has arrived")
        # RabbitMQ drops from the listener's queue as well; which ones of the newest are left is its choice.
        kept = [await anext(aiter(slow)) for _ in range(len(slow._heard))]  # type: ignore[attr-defined]
        assert 1 <= len(kept) <= 5
        assert kept[-1] == b"last"
        if system.embedded:
            assert (kept, slow.dropped) == ([b"996", b"997", b"998", b"999", b"last"], 996)


async def test_a_listener_that_left_hears_nothing_and_leaves_no_queue(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    vhost = urlsplit(rabbitmq_url).path[1:]
    broker = RabbitMQBroker(rabbitmq_url)
    async with broker.listener(LIVE_EXCHANGE, bound=7):
        (queue,) = await asyncio.to_thread(rabbitmq_server.api, "GET", f"queues/{vhost}")
        assert queue["name"].startswith("tidegate.live.")
        assert (queue["exclusive"], queue["auto_delete"]) == (True, True)
        assert queue["arguments"] == {"x-max-length": 7, "x-overflow": "drop-head"}

    async def gone() -> bool:
        return not await asyncio.to_thread(rabbitmq_server.api, "GET", f"queues/{vhost}")

    await eventually(gone, "the listener's queue is gone")


async def test_announcer_and_listener_come_back_after_their_connections_were_closed(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    vhost = urlsplit(rabbitmq_url).path[1:]
    async with broker.announcer(LIVE_EXCHANGE) as announcer, broker.listener(LIVE_EXCHANGE, bound=10) as listener:
        announcer.announce(b"before")
        assert await hear(listener, 1) == [b"before"]
        await asyncio.to_thread(rabbitmq_server.rabbitmqctl, "close_all_connections", "--vhost", vhost, "a test")
        await announce_until_heard(announcer, listener)


async def test_a_listener_whose_queue_was_deleted_listens_again(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    vhost = urlsplit(rabbitmq_url).path[1:]
    async with broker.announcer(LIVE_EXCHANGE) as announcer, broker.listener(LIVE_EXCHANGE, bound=10) as listener:
        (queue,) = await asyncio.to_thread(rabbitmq_server.api, "GET", f"queues/{vhost}")
        # An exclusive queue is its connection's alone; the management API may still end it.
        await asyncio.to_thread(rabbitmq_server.rabbitmqctl, "eval", _delete_queue(vhost, queue["name"]))
        await announce_until_heard(announcer, listener)


def _delete_queue(vhost: str, queue: str) -> str:
    return (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)), '
        'rabbit_amqqueue:delete(Q, false, false, <<"a test">>).'
    )


async def announce_until_heard(announcer: Announcer, listener: Listener) -> None:
    hearing = asyncio.create_task(hear(listener, 1))
    async with asyncio.timeout(10):
        while not hearing.done():
            announcer.announce(b"after")
            await asyncio.sleep(0.05)
    assert hearing.result() == [b"after"]


async def test_announcing_while_the_broker_is_away_neither_waits_nor_fails_and_is_counted() -> None:
    broker = RabbitMQBroker("amqp://guest:guest@127.0.0.1:9/nowhere")
    async with broker.announcer(LIVE_EXCHANGE) as announcer, broker.listener(LIVE_EXCHANGE, bound=1) as listener:
        started = time.monotonic()
        for _ in range(1000):
            announcer.announce(b"nobody hears it")
        assert time.monotonic() - started < 1
        assert announcer.dropped == 1000
        with pytest.raises(BrokerUnavailable):
            await listener.check()


async def test_announcing_faster_than_the_socket_takes_drops_the_oldest(rabbitmq_url: str) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    async with broker.announcer(LIVE_EXCHANGE) as announcer, broker.listener(LIVE_EXCHANGE, bound=20_000) as listener:
        for number in range(MAX_WAITING + 500):  # without a turn of the event loop between
            announcer.announce(str(number).encode())
        assert announcer.dropped == 500
        assert (await hear(listener, MAX_WAITING))[0] == b"500"


async def test_what_a_newer_version_announces_is_not_heard(rabbitmq_url: str) -> None:
    async with AsyncExitStack() as stack:
        broker = RabbitMQBroker(rabbitmq_url)
        announcer = await stack.enter_async_context(broker.announcer(LIVE_EXCHANGE))
        listener = await stack.enter_async_context(broker.listener(LIVE_EXCHANGE, bound=10))
        connection = await stack.enter_async_context(await aio_pika.connect(rabbitmq_url))
        exchange = await (await connection.channel()).get_exchange(LIVE_EXCHANGE.name)
        await exchange.publish(aio_pika.Message(b"new form", headers={"x-schema": 2}), "live.v2")
        announcer.announce(b"old form")
        assert await hear(listener, 1) == [b"old form"]
        assert listener.dropped == 1
