"""Faults that the contract's ordinary course does not meet: cancelled consumers, late commits, full dead letters."""

import asyncio
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aio_pika
import pamqp.frame
import pytest
from yarl import URL

from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerError, BrokerUnavailable, ConfirmLate, QueueFull
from broker.message import Message
from broker.rabbitmq import connection as rabbitmq_connection
from broker.rabbitmq.broker import RabbitMQBroker
from broker.rabbitmq.frames import PERSISTENT, publish_frames
from broker.topology import (
    DEAD_EXCHANGE,
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

SMALL_DEAD = Queue(DEAD_LETTERS.name, DEAD_EXCHANGE, DEAD_LETTERS.binding, max_bytes=1_000)
READINGS_OVER_SMALL = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, dead=SMALL_DEAD)


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
        async with asyncio.timeout(10):
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
        async with asyncio.timeout(10):
            assert (await consumer.get()).message.body == b"after"


async def test_many_publishes_in_flight_are_each_confirmed_or_refused_on_their_own(rabbitmq_url: str) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=20_000, dead=DEAD_LETTERS)
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
            async with asyncio.timeout(10):
                outcomes = await asyncio.gather(*publishes, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, BrokerUnavailable) for outcome in outcomes)
        assert any(isinstance(outcome, BrokerUnavailable) for outcome in outcomes)


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
        async with broker.consumer(READINGS, prefetch=1) as consumer, asyncio.timeout(10):
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
        async with asyncio.timeout(10):
            await consumer.acknowledge(await consumer.get())


# The embedded broker's accounts


def committed(path: Path, queue: Queue = READINGS) -> tuple[int, int]:
    with sqlite3.connect(path) as db:
        found = db.execute(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(body)), 0) FROM messages WHERE queue = ?", (queue.name,)
        ).fetchone()
    db.close()
    return int(found[0]), int(found[1])


def counted(broker: EmbeddedBroker, queue: Queue = READINGS) -> tuple[int, int]:
    state = broker._states[queue.name]
    assert state.pending_bytes == 0
    return state.messages, state.bytes


async def test_a_publish_that_timed_out_is_not_stored_later_nor_counted(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with EmbeddedBroker.open_at(path) as broker, broker.publisher(confirm_timeout_s=0.1) as publisher:
        await publisher.publish(Message(b"first"), READINGS_EXCHANGE)
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(ConfirmLate):
                await publisher.publish(Message(b"late"), READINGS_EXCHANGE)
        blocker.execute("ROLLBACK")
        blocker.close()
        async with broker.publisher() as patient:
            await patient.publish(Message(b"last!"), READINGS_EXCHANGE)
        assert committed(path) == counted(broker) == (2, 10)


async def test_acknowledging_twice_at_once_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    async with EmbeddedBroker.open_at(path) as broker, broker.publisher() as publisher:
        for _ in range(6):
            await publisher.publish(Message(bytes(100)), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=5) as consumer:
            held = [await consumer.get() for _ in range(5)]
            await asyncio.gather(
                consumer.acknowledge(held[3], multiple=True),
                consumer.acknowledge(held[2]),
                consumer.acknowledge(held[3], multiple=True),
                consumer.reject(held[1]),
                consumer.acknowledge(held[4]),
            )
            assert committed(path) == counted(broker) == (1, 100)
        assert counted(broker, DEAD_LETTERS) == (0, 0)


async def test_what_the_full_dead_letters_refuse_stays_and_moves_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    queues = (SMALL_DEAD, READINGS_OVER_SMALL)
    async with EmbeddedBroker.open_at(path, queues) as broker, broker.publisher() as publisher:
        for _ in range(4):
            await publisher.publish(Message(bytes(400)), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=4) as consumer:
            for _ in range(4):
                await consumer.reject(await consumer.get())
            # Two fit; the others are nobody's loan, and neither lost nor delivered again meanwhile.
            assert committed(path, SMALL_DEAD) == counted(broker, SMALL_DEAD) == (2, 800)
            assert committed(path) == counted(broker) == (2, 800)
            await publisher.publish(Message(b"good"), READINGS_EXCHANGE)
            async with asyncio.timeout(5):
                good = await consumer.get()
            assert good.message.body == b"good"
            await consumer.acknowledge(good)
            async with broker.browser(SMALL_DEAD) as browser:
                async for letter in browser:
                    await browser.settle(letter)
            assert committed(path, SMALL_DEAD) == counted(broker, SMALL_DEAD) == (2, 800)
            assert committed(path) == counted(broker) == (0, 0)


async def test_what_the_full_dead_letters_refused_is_delivered_again_after_a_restart(tmp_path: Path) -> None:
    queues = (SMALL_DEAD, READINGS_OVER_SMALL)
    async with EmbeddedBroker.open_at(tmp_path / "queue.db", queues) as broker, broker.publisher() as publisher:
        await publisher.publish(Message(bytes(1_200)), READINGS_EXCHANGE)
        async with broker.consumer(READINGS, prefetch=4) as consumer:
            await consumer.reject(await consumer.get())
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db", queues) as broker,
        broker.consumer(READINGS, prefetch=4) as consumer,
        asyncio.timeout(5),
    ):
        again = await consumer.get()
        assert (len(again.message.body), again.delivery_count) == (1_200, 1)


async def test_what_another_process_moves_in_the_file_is_noticed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=1_000, dead=DEAD_LETTERS)
    async with EmbeddedBroker.open_at(path, (DEAD_LETTERS, small)) as owner, owner.publisher() as publisher:
        await publisher.publish(Message(bytes(900)), READINGS_EXCHANGE)
        with pytest.raises(QueueFull):
            await publisher.publish(Message(bytes(900)), READINGS_EXCHANGE)
        async with EmbeddedBroker.open_at(path, (DEAD_LETTERS, small)) as other, other.browser(small) as browser:
            async for message in browser:
                await browser.settle(message)
        await publisher.publish(Message(bytes(800)), READINGS_EXCHANGE)
        assert counted(owner) == (1, 800)


async def test_an_operation_whose_commit_fails_counts_nothing(tmp_path: Path) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        broker._store._connection.execute("PRAGMA query_only=ON")
        with pytest.raises(BrokerUnavailable):
            await publisher.publish(Message(b"refused"), READINGS_EXCHANGE)
        broker._store._connection.execute("PRAGMA query_only=OFF")
        assert counted(broker) == (0, 0)


async def test_a_connection_that_dies_at_any_point_of_its_handshake_is_opened_again(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "RECONNECT_S", (0.001, 0.001))
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 20)
    url = URL(rabbitmq_url)
    # How many bytes of answers pass before a connection is cut: all of the handshake's, and some of what follows it.
    cuts = [*range(0, 40, 5), *range(40, 1000, 40), *range(500, 660, 2)]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = cuts.pop(0) if cuts else 10**9
        back, forth = await asyncio.open_connection("127.0.0.1", url.port)
        with closing(writer), closing(forth):
            asking = asyncio.ensure_future(carry(reader, forth))
            while left > 0 and (data := await back.read(min(left, 65536))):
                writer.write(data)
                left -= len(data)
            asking.cancel()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        broker = RabbitMQBroker(str(url.with_port(server.sockets[0].getsockname()[1])), durable_after_s=0)
        async with broker.publisher() as publisher:
            assert not cuts
            await publisher.publish(Message(b"through"), READINGS_EXCHANGE)
