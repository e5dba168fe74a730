"""The promises of `broker/interface.py`, tested on both brokers."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import aio_pika
import pytest

from broker.connect import check_url, open_broker
from broker.embedded.broker import EmbeddedBroker
from broker.interface import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    ConfirmLate,
    Consumer,
    Delivery,
    Publisher,
    QueueFull,
    Unroutable,
)
from broker.message import Message
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import DEAD_LETTERS, DELETED_OWNERS, OWNERS_EXCHANGE, READINGS, READINGS_EXCHANGE, Queue
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.broker.system import System

# A call to the broker that takes longer than this counts as hanging.
PATIENCE_S = 10


@pytest.fixture(scope="module")
def faulty_server() -> Iterator[RabbitMQServer]:
    """A node of this module's own, to be killed and paused."""
    with TemporaryDirectory(prefix="tidegate-tests-") as folder:
        server = RabbitMQServer(Path(folder))
        try:
            server.start()
            yield server
        finally:
            if server.running:
                server.kill()


def numbered(count: int) -> list[Message]:
    return [Message(f"message {number}".encode()) for number in range(count)]


async def publish_all(publisher: Publisher, messages: list[Message]) -> None:
    for message in messages:
        await publisher.publish(message, READINGS_EXCHANGE)


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    async with asyncio.timeout(PATIENCE_S):
        return [await consumer.get() for _ in range(count)]


async def is_quiet(consumer: Consumer, seconds: float = 0.3) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await consumer.get()
    except TimeoutError:
        return True
    return False


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries]


async def remaining(broker: Broker, queue: Queue = READINGS, *, count: int | None = None) -> list[Delivery]:
    """Return all undelivered messages of the queue, in order; with `count`, exactly that many."""
    deliveries: list[Delivery] = []
    async with broker.consumer(queue, prefetch=50_000) as consumer:
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S if len(deliveries) < (count or 1) else 0.3):
                    deliveries.append(await consumer.get())
            except TimeoutError:
                assert count in (None, len(deliveries))
                return deliveries


async def has_depth(broker: Broker, queue: Queue, count: int) -> None:
    async def found() -> bool:
        return await broker.depth(queue) == count

    await eventually(found, f"{queue.name} holds {count} messages")


async def has_consumers(broker: Broker, count: int) -> None:
    async def found() -> bool:
        return await broker.consumers(READINGS) == count

    await eventually(found, f"{READINGS.name} has {count} consumers")


@contextmanager
def child(what: str, url: str) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.broker.child", what, url]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(count)]
    assert all(lines), "the child has ended too early"
    return [line.strip() for line in lines]


def rest_of(process: subprocess.Popen[str]) -> list[str]:
    """What the dead process had printed; a line that it did not finish is not a promise."""
    assert process.stdout is not None
    return [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]


# The trip


async def test_headers_body_and_message_id_survive_the_trip(system: System) -> None:
    message = Message(bytes(range(256)), {"x-schema": 7, "x-reason": "größer", "x-first-seen": 2**40}, "id-1")
    async with (
        system.opened() as broker,
        broker.publisher() as publisher,
        broker.consumer(READINGS, prefetch=1) as consumer,
    ):
        await publisher.publish(message, READINGS_EXCHANGE)
        (delivery,) = await take(consumer, 1)
        await consumer.acknowledge(delivery)
    assert delivery.message == message
    assert delivery.delivery_count == 0


async def test_messages_are_delivered_in_the_order_of_their_confirms(system: System) -> None:
    messages = numbered(60)
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, messages)
        async with broker.consumer(READINGS, prefetch=7) as consumer:
            received = []
            for _ in messages:
                received += await take(consumer, 1)
                await consumer.acknowledge(received[-1])
    assert [delivery.message.message_id for delivery in received] == [message.message_id for message in messages]


async def test_each_exchange_feeds_its_own_queue_only(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publisher.publish(Message(b"reading"), READINGS_EXCHANGE)
        await publisher.publish(Message(b"owner"), OWNERS_EXCHANGE)
        await has_depth(broker, DEAD_LETTERS, 0)
        assert bodies(await remaining(broker)) == [b"reading"]
        assert bodies(await remaining(broker, DELETED_OWNERS)) == [b"owner"]


async def test_a_message_that_comes_later_wakes_a_waiting_consumer_at_once(system: System) -> None:
    async with (
        system.opened() as broker,
        broker.publisher() as publisher,
        broker.consumer(READINGS, prefetch=5) as consumer,
    ):
        assert await is_quiet(consumer, 0.1)
        await publisher.publish(Message(b"late"), READINGS_EXCHANGE)
        async with asyncio.timeout(0.5):
            delivery = await consumer.get()
    assert delivery.message.body == b"late"


async def test_depth_counts_waiting_messages_and_not_delivered_ones(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(5))
        await has_depth(broker, READINGS, 5)
        async with broker.consumer(READINGS, prefetch=2) as consumer:
            first, _ = await take(consumer, 2)
            await has_depth(broker, READINGS, 3)
            await consumer.acknowledge(first)
            await take(consumer, 1)
            await has_depth(broker, READINGS, 2)
        await has_depth(broker, READINGS, 4)


async def test_the_consumers_of_a_queue_are_counted_also_before_it_was_ever_used(system: System) -> None:
    async with system.opened() as broker:
        await has_consumers(broker, 0)
        async with broker.consumer(READINGS, prefetch=1), broker.consumer(DEAD_LETTERS, prefetch=1):
            await has_consumers(broker, 1)
        await has_consumers(broker, 0)


async def test_publisher_and_consumer_report_a_broker_that_is_there(system: System) -> None:
    async with (
        system.opened() as broker,
        broker.publisher() as publisher,
        broker.consumer(READINGS, prefetch=1) as consumer,
    ):
        await publisher.check()
        await consumer.check()


# Settling


async def test_prefetch_is_never_exceeded(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(20))
        async with broker.consumer(READINGS, prefetch=5) as consumer:
            held = await take(consumer, 5)
            assert await is_quiet(consumer)
            await consumer.acknowledge(held[2])
            assert bodies(await take(consumer, 1)) == [b"message 5"]
            assert await is_quiet(consumer)
            await consumer.acknowledge(held[4], multiple=True)
            assert bodies(await take(consumer, 4)) == [b"message 6", b"message 7", b"message 8", b"message 9"]
            assert await is_quiet(consumer)


async def test_a_parked_message_takes_no_room_and_can_still_be_settled(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(20))
        async with broker.consumer(READINGS, prefetch=4) as consumer:
            held = await take(consumer, 4)
            for delivery in held:
                await consumer.park(delivery)
            more = await take(consumer, 4)
            assert bodies(more) == [b"message 4", b"message 5", b"message 6", b"message 7"]
            assert await is_quiet(consumer)
            await consumer.acknowledge(held[1])
            assert await is_quiet(consumer), "it took no room, so it makes none"
            await consumer.acknowledge(more[3])
            assert bodies(await take(consumer, 1)) == [b"message 8"]
            await consumer.acknowledge(held[3])
        # The order in which parked and other messages come back is not promised.
        settled = {b"message 1", b"message 3", b"message 7"}
        assert set(bodies(await remaining(broker, count=17))) == {one.body for one in numbered(20)} - settled


async def test_what_is_parked_while_room_is_made_makes_room_too(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(40))
        async with broker.consumer(READINGS, prefetch=4) as consumer, asyncio.TaskGroup() as parking:
            for number in range(40):
                delivery = await asyncio.wait_for(consumer.get(), PATIENCE_S)
                assert delivery.message.body == b"message %d" % number
                parking.create_task(consumer.park(delivery))


async def test_one_that_is_stopped_while_room_is_made_is_delivered_nothing_more(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(6))
        async with broker.consumer(READINGS, prefetch=2) as consumer:
            (held,) = await take(consumer, 1)
            async with asyncio.TaskGroup() as group:
                group.create_task(consumer.park(held))
                await asyncio.sleep(0)
                await consumer.stop()
            while consumer.get_nowait():
                pass
            assert await is_quiet(consumer)


async def test_what_is_given_back_comes_again_with_a_higher_count_and_makes_room(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(3))
        async with broker.consumer(READINGS, prefetch=2) as consumer:
            held = await take(consumer, 2)
            await consumer.requeue(held[0])
            (again,) = await take(consumer, 1)
            assert (again.message.body, again.delivery_count) == (b"message 0", 1)
            assert await is_quiet(consumer)


async def test_a_stopped_consumer_is_delivered_nothing_more_and_settles_what_it_has(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(6))
        async with broker.consumer(READINGS, prefetch=2) as consumer:
            held = await take(consumer, 2)
            await consumer.stop()
            await consumer.acknowledge(held[1])
            assert await is_quiet(consumer)
        found = await remaining(broker, count=5)
        assert [(one.message.body, one.delivery_count) for one in found][:2] == [(b"message 0", 1), (b"message 2", 0)]


async def test_multiple_acknowledges_all_up_to_it_and_none_after(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(6))
        async with broker.consumer(READINGS, prefetch=6) as consumer:
            held = await take(consumer, 6)
            await consumer.acknowledge(held[3], multiple=True)
        assert bodies(await remaining(broker, count=2)) == [b"message 4", b"message 5"]


async def test_single_acknowledgements_may_come_in_any_order(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(5))
        async with broker.consumer(READINGS, prefetch=5) as consumer:
            held = await take(consumer, 5)
            for number in (3, 1):
                await consumer.acknowledge(held[number])
            # What is settled already counts among "all up to it" without harm.
            await consumer.acknowledge(held[2], multiple=True)
        assert bodies(await remaining(broker)) == [b"message 4"]


async def test_what_a_left_consumer_did_not_settle_comes_again_first_with_a_higher_count(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(6))
        for earlier in (0, 1):
            async with broker.consumer(READINGS, prefetch=3) as consumer:
                held = await take(consumer, 3)
                assert [delivery.delivery_count for delivery in held] == [earlier] * 3
        received = await remaining(broker, count=6)
    assert bodies(received) == [f"message {number}".encode() for number in range(6)]
    assert [delivery.delivery_count for delivery in received] == [2, 2, 2, 0, 0, 0]


async def test_what_arrived_and_was_never_asked_for_is_not_lost_when_the_consumer_is_left(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(30))
        for _ in range(5):
            async with broker.consumer(READINGS, prefetch=10):
                pass
        assert sorted(bodies(await remaining(broker, count=30))) == sorted(
            f"message {number}".encode() for number in range(30)
        )


async def test_what_was_settled_does_not_come_again_after_a_restart(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(3))
        async with broker.consumer(READINGS, prefetch=3) as consumer:
            held = await take(consumer, 3)
            await consumer.acknowledge(held[1], multiple=True)
    async with system.opened() as broker:
        assert bodies(await remaining(broker)) == [b"message 2"]


async def test_two_consumers_share_a_queue_and_no_message_reaches_both(system: System) -> None:
    messages = numbered(300)
    received: list[str] = []
    shares: list[int] = []
    async with system.opened() as broker, broker.publisher() as publisher:

        async def work() -> None:
            share = 0
            async with broker.consumer(READINGS, prefetch=4) as consumer:
                while len(received) < len(messages):
                    try:
                        async with asyncio.timeout(1):
                            delivery = await consumer.get()
                    except TimeoutError:
                        continue
                    share += 1
                    received.append(delivery.message.message_id)
                    await consumer.acknowledge(delivery)
            shares.append(share)

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(work()) for _ in range(2)]
            await asyncio.sleep(0)
            async with asyncio.TaskGroup() as publishing:
                for message in messages:
                    publishing.create_task(publisher.publish(message, READINGS_EXCHANGE))
            await asyncio.wait(workers)
        assert sorted(received) == sorted(message.message_id for message in messages)
        assert all(share > 20 for share in shares), shares
        await has_depth(broker, READINGS, 0)


async def test_two_consumers_that_open_at_once_on_a_backlog_receive_different_messages(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(20))
        async with broker.consumer(READINGS, prefetch=10) as one, broker.consumer(READINGS, prefetch=10) as other:
            lent = await asyncio.gather(take(one, 10), take(other, 10))
    assert sorted(bodies(lent[0] + lent[1])) == sorted(f"message {number}".encode() for number in range(20))


async def test_a_rejected_message_is_in_the_dead_letters_with_its_body_and_id(system: System) -> None:
    messages = numbered(3)
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, messages)
        async with broker.consumer(READINGS, prefetch=3) as consumer:
            held = await take(consumer, 3)
            await consumer.reject(held[1])
            await has_depth(broker, DEAD_LETTERS, 1)
        dead = await remaining(broker, DEAD_LETTERS)
        alive = await remaining(broker, count=2)
    assert [(found.message.body, found.message.message_id) for found in dead] == [
        (b"message 1", messages[1].message_id)
    ]
    assert dead[0].message.headers["x-schema"] == 1
    assert dead[0].message.headers["x-first-death-reason"] == "rejected"
    assert dead[0].message.headers["x-first-death-queue"] == READINGS.name
    assert bodies(alive) == [b"message 0", b"message 2"]


async def test_dead_letters_survive_a_restart(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(1))
        async with broker.consumer(READINGS, prefetch=1) as consumer:
            await consumer.reject((await take(consumer, 1))[0])
            await has_depth(broker, DEAD_LETTERS, 1)
    async with system.opened() as broker:
        assert bodies(await remaining(broker, DEAD_LETTERS)) == [b"message 0"]


async def test_settling_on_a_consumer_that_was_left_is_ignored(system: System) -> None:
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(2))
        async with broker.consumer(READINGS, prefetch=2) as left:
            held = await take(left, 2)
        await left.acknowledge(held[1], multiple=True)
        await left.reject(held[0])
        assert bodies(await remaining(broker, count=2)) == [b"message 0", b"message 1"]
        await has_depth(broker, DEAD_LETTERS, 0)


# Refusing


async def test_a_full_queue_refuses_and_takes_again_once_there_is_room(system: System) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=5_000, dead_letter_queue=DEAD_LETTERS)
    confirmed: list[str] = []
    async with system.opened((DEAD_LETTERS, small)) as broker, broker.publisher() as publisher:

        async def fill() -> None:
            for _ in range(100):
                message = Message(bytes(500))
                await publisher.publish(message, READINGS_EXCHANGE)
                confirmed.append(message.message_id)

        with pytest.raises(QueueFull):
            await fill()
        assert len(confirmed) >= 8
        # Refused is refused, and what was confirmed is still there.
        received = await remaining(broker, small, count=len(confirmed))
        assert [delivery.message.message_id for delivery in received] == confirmed
        # `remaining` settled nothing; now settle, and there is room.
        async with broker.consumer(small, prefetch=500) as consumer:
            held = await take(consumer, len(confirmed))
            await consumer.acknowledge(held[-1], multiple=True)

            async def taken() -> bool:
                try:
                    await publisher.publish(Message(bytes(500)), READINGS_EXCHANGE)
                except QueueFull:
                    return False
                return True

            await eventually(taken, "the queue takes messages again")


async def test_a_restart_does_not_forget_how_full_the_queue_is(system: System) -> None:
    small = Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, max_bytes=2_000, dead_letter_queue=DEAD_LETTERS)

    async def fill(publisher: Publisher) -> None:
        for _ in range(50):
            await publisher.publish(Message(bytes(500)), READINGS_EXCHANGE)

    for _ in range(2):
        async with system.opened((DEAD_LETTERS, small)) as broker, broker.publisher() as publisher:
            with pytest.raises(QueueFull):
                await fill(publisher)
    async with system.opened((DEAD_LETTERS, small)) as broker:
        assert 3 <= len(await remaining(broker, small, count=None)) < 20


async def test_publishing_where_nothing_is_bound_raises_unroutable(system: System) -> None:
    async with system.opened((DEAD_LETTERS,)) as broker, broker.publisher() as publisher:
        with pytest.raises(Unroutable):
            await publisher.publish(Message(b"nobody takes it"), READINGS_EXCHANGE)


async def test_rabbitmq_with_its_queue_unbound_refuses_instead_of_confirming(rabbitmq_url: str) -> None:
    async with RabbitMQBroker(rabbitmq_url).publisher() as publisher:
        async with await aio_pika.connect(rabbitmq_url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(READINGS.name)
            await queue.unbind(READINGS_EXCHANGE.name, READINGS.binding)
        with pytest.raises(Unroutable):
            await publisher.publish(Message(b"nobody takes it"), READINGS_EXCHANGE)


# Crashes


async def test_every_message_confirmed_by_the_embedded_broker_survives_kill_9_of_its_process(tmp_path: Path) -> None:
    system = System(f"embedded://{tmp_path}/queue.db")
    confirmed: list[str] = []
    for lines in (1, 10, 37, 100, 300):  # killed at another moment each time, on what the earlier ones left
        with child("publish", system.url) as process:
            confirmed += await lines_of(process, lines)
            process.kill()
            confirmed += rest_of(process)
    async with system.opened() as broker:
        stored = {delivery.message.message_id for delivery in await remaining(broker)}
    assert len(set(confirmed)) == len(confirmed) >= 448
    assert set(confirmed) <= stored


async def test_what_a_killed_consumer_held_is_delivered_again_with_its_count_raised(system: System) -> None:
    messages = numbered(5)
    async with system.opened() as broker, broker.publisher() as publisher:
        await publish_all(publisher, messages)
    with child("consume", system.url) as process:
        held = await lines_of(process, 3)
        process.send_signal(signal.SIGKILL)
    assert held == [message.message_id for message in messages[:3]]
    async with system.opened() as broker:
        received = await remaining(broker, count=5)
    assert [delivery.message.message_id for delivery in received] == [message.message_id for message in messages]
    assert [delivery.delivery_count for delivery in received] == [1, 1, 1, 0, 0]


async def test_a_stale_acknowledgement_is_ignored_after_a_reconnect(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str
) -> None:
    broker = RabbitMQBroker(rabbitmq_url)
    async with broker.publisher() as publisher:
        await publish_all(publisher, numbered(3))
    async with broker.consumer(READINGS, prefetch=3) as consumer:
        stale = await take(consumer, 3)
        vhost = urlsplit(rabbitmq_url).path[1:]
        await asyncio.to_thread(rabbitmq_server.rabbitmqctl, "close_all_connections", "--vhost", vhost, "a test")
        fresh = await take(consumer, 3)
        assert [delivery.delivery_count for delivery in fresh] == [1, 1, 1]
        # The same tags on the new connection: they would settle the fresh deliveries if they were not recognised.
        assert [delivery.tag for delivery in stale] == [delivery.tag for delivery in fresh]
        await consumer.acknowledge(stale[2], multiple=True)
        await consumer.reject(stale[0])
        await consumer.acknowledge(fresh[0])
    assert bodies(await remaining(broker, count=2)) == [b"message 1", b"message 2"]
    assert await broker.depth(DEAD_LETTERS) == 0


# A broker that goes away


async def fails_in_time(publisher: Publisher) -> None:
    started = time.monotonic()
    with pytest.raises((BrokerUnavailable, ConfirmLate)):
        await publisher.publish(Message(b"into the void"), READINGS_EXCHANGE)
    assert time.monotonic() - started < 5


async def recovers(publisher: Publisher, consumer: Consumer) -> None:
    """Within 10 s a fresh message is confirmed and delivered."""
    fresh = Message(b"fresh")
    async with asyncio.timeout(10):
        while True:
            try:
                await publisher.publish(fresh, READINGS_EXCHANGE)
                break
            except BrokerError:
                await asyncio.sleep(0.05)
        while True:
            delivery = await consumer.get()
            await consumer.acknowledge(delivery)
            if delivery.message.message_id == fresh.message_id:
                break
        await publisher.check()
        await consumer.check()


async def test_publishing_after_the_embedded_broker_was_closed_raises(tmp_path: Path) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        await publisher.publish(Message(b"open"), READINGS_EXCHANGE)
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(Message(b"closed"), READINGS_EXCHANGE)
    with pytest.raises(BrokerUnavailable):
        await publisher.check()
    with pytest.raises(BrokerUnavailable):
        await broker.depth(READINGS)


async def test_publishing_into_a_file_that_does_not_answer_raises_and_works_again_later(tmp_path: Path) -> None:
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        broker.publisher(confirm_timeout_s=0.3) as publisher,
        broker.consumer(READINGS, prefetch=10) as consumer,
    ):
        blocker = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        await fails_in_time(publisher)
        blocker.execute("ROLLBACK")
        blocker.close()
        await recovers(publisher, consumer)


async def test_the_embedded_broker_delivers_returned_messages_also_after_the_file_failed_once(tmp_path: Path) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        await publish_all(publisher, numbered(2))
        async with broker.consumer(READINGS, prefetch=2) as consumer:
            await take(consumer, 2)
        run = broker._store.run
        failures: list[str] = []

        async def fail_once(operation: object) -> object:
            if not failures:
                failures.append("disk")
                raise BrokerUnavailable("disk I/O error")
            return await run(operation)  # type: ignore[arg-type]

        broker._store.run = fail_once  # type: ignore[assignment,method-assign]
        async with broker.consumer(READINGS, prefetch=2) as consumer:
            again = await take(consumer, 2)
    assert failures == ["disk"]
    assert bodies(again) == [b"message 0", b"message 1"]


async def test_confirmed_messages_survive_kill_9_of_rabbitmq_and_both_sides_recover_after_its_restart(
    faulty_server: RabbitMQServer,
) -> None:
    broker = RabbitMQBroker(faulty_server.create_vhost())
    confirmed: list[str] = []
    refused: list[BrokerError] = []
    async with broker.publisher() as publisher, broker.consumer(READINGS, prefetch=1000) as consumer:
        killed = asyncio.Event()

        async def keep_publishing() -> None:
            while not killed.is_set():
                message = Message(b"a message")
                try:
                    await publisher.publish(message, READINGS_EXCHANGE)
                except BrokerError as error:
                    refused.append(error)
                    await asyncio.sleep(0.01)
                else:
                    confirmed.append(message.message_id)

        async def enough() -> bool:
            return len(confirmed) >= 50

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(keep_publishing())
            await eventually(enough, "50 messages are confirmed")
            await asyncio.to_thread(faulty_server.kill)
            killed.set()
        assert not [error for error in refused if not isinstance(error, (BrokerUnavailable, ConfirmLate))]
        await fails_in_time(publisher)
        for side in (publisher, consumer):
            with pytest.raises(BrokerUnavailable):
                await side.check()
        with pytest.raises(BrokerUnavailable):
            await broker.depth(READINGS)
        await asyncio.to_thread(faulty_server.restart)
        async with asyncio.timeout(10):
            received: set[str] = set()
            while not received.issuperset(confirmed):
                delivery = await consumer.get()
                received.add(delivery.message.message_id)
                await consumer.acknowledge(delivery)
        await recovers(publisher, consumer)


async def test_publishes_fail_while_rabbitmq_hangs_and_both_sides_recover_after_it(
    faulty_server: RabbitMQServer,
) -> None:
    broker = RabbitMQBroker(faulty_server.create_vhost())
    async with broker.publisher() as publisher, broker.consumer(READINGS, prefetch=10) as consumer:
        await recovers(publisher, consumer)
        faulty_server.pause()
        try:
            await fails_in_time(publisher)  # with the timeout that everyone gets who names none
        finally:
            faulty_server.resume()
        await recovers(publisher, consumer)


async def test_a_publisher_opened_while_rabbitmq_is_away_opens_and_refuses() -> None:
    broker = RabbitMQBroker("amqp://guest:guest@127.0.0.1:9/nowhere")
    started = time.monotonic()
    async with broker.publisher() as publisher:
        assert time.monotonic() - started < 5
        await fails_in_time(publisher)


# Addresses


@pytest.mark.parametrize("url", ["", "redis://user:secret@host", "rabbitmq.example", "amqp:/x"])
async def test_an_address_that_means_no_broker_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="BROKER_URL must start with") as refused:
        check_url(url)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="BROKER_URL"):
        async with open_broker(url):
            pass


async def test_the_address_chooses_the_broker(tmp_path: Path) -> None:
    async with open_broker(f"embedded://{tmp_path}/sub/queue.db") as embedded:
        assert isinstance(embedded, EmbeddedBroker)
    assert (tmp_path / "sub" / "queue.db").exists()
    async with open_broker("amqp://guest:guest@127.0.0.1:9/") as rabbitmq:
        assert isinstance(rabbitmq, RabbitMQBroker)
