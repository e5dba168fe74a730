"""What a worker requeues itself, on real servers: no outage makes a dead letter of a good message."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import bson
import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.interface import Broker, Delivery, QueueFull
from broker.message import Message
from broker.topology import BACKFILL, DEAD_EXCHANGE, DEAD_LETTERS, DELETED_OWNERS, READINGS, READINGS_EXCHANGE, Queue
from persister import dead_letters, retry
from persister.app import persister_service
from persister.batch import MAX_DELIVERIES
from persister.mongodb_errors import WriteFailed
from persister.requeues import MAX_REMEMBERED, Requeues
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from runtime.mongodb import mongodb_client
from testing.servers.mongodb import MongoDBServer
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.broker.system import System
from tests.persister.harness import document

# In place of 100, so that an outage of a few seconds is long enough.
OFTEN = 6
HOLD_S = 0.1
FULL_AT_ONCE = Queue(DEAD_LETTERS.name, DEAD_EXCHANGE, "#", max_bytes=1)
QUEUES = (
    FULL_AT_ONCE,
    Queue(READINGS.name, READINGS_EXCHANGE, READINGS.binding, dead_letter_queue=FULL_AT_ONCE),
    BACKFILL,
    DELETED_OWNERS,
)


@pytest.fixture(params=["embedded", "rabbitmq"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> System:
    if request.param == "embedded":
        return System(f"embedded://{tmp_path}/queue.db")
    return System(request.getfixturevalue("rabbitmq_url"))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything that takes hours take seconds."""
    for module in ("batch", "persister"):
        monkeypatch.setattr(f"persister.{module}.MAX_DELIVERIES", OFTEN)
    monkeypatch.setattr(retry, "BACKOFF_S", (0.02, 0.05))
    monkeypatch.setattr(dead_letters, "DEADLINE_CHECK_EVERY_S", 0.05)


@asynccontextmanager
async def storing(broker: Broker, url: str, name: str, hold_s: float = HOLD_S) -> AsyncIterator[CollectorRegistry]:
    registry = CollectorRegistry()
    settings = PersisterSettings(
        broker_url="embedded://unused",
        readings_url=url,
        readings_database=name,
        prefetch=8,
        hold_seconds=hold_s,
        write_timeout_seconds=1,
    )
    async with persister_service(settings, broker=broker, registry=registry):
        yield registry


async def publish(broker: Broker, messages: Iterable[Message]) -> None:
    async with broker.publisher() as publisher:
        for message in messages:
            await publisher.publish(message, READINGS_EXCHANGE)


async def dead_letters_in(broker: Broker) -> list[Message]:
    async with broker.browser(DEAD_LETTERS) as browser:
        return [delivery.message async for delivery in browser]


def count(url: str, name: str) -> int:
    with MongoClient[dict[str, object]](url, timeoutMS=5000) as client:
        return client[name]["readings"].count_documents({})


async def all_stored(url: str, name: str, number: int) -> None:
    async def stored() -> bool:
        return await asyncio.to_thread(count, url, name) == number

    await eventually(stored, "all are stored")


async def test_no_primary_for_longer_than_too_often_takes_makes_no_dead_letter_of_a_good_message(
    system: System, tmp_path: Path
) -> None:
    async with system.opened() as broker:
        await broker.declare()
        with MongoDBServer(tmp_path / "m", replica_set=True) as mongodb:
            # A node that answers every ping and takes no write.
            direct = f"mongodb://127.0.0.1:{mongodb.port}/?directConnection=true"
            async with storing(broker, direct, "tidegate") as registry:
                await publish(broker, [Message.of([document(0)])])
                await all_stored(direct, "tidegate", 1)
                await asyncio.to_thread(mongodb.step_down, 60)
                await publish(broker, (Message.of([document(number)]) for number in range(1, 20)))
                # As long as a worker that kept consuming would need to requeue its messages too often.
                asked = registry.get_sample_value("tidegate_persister_retries_total", {"what": "probe"}) or 0

                async def asked_long_enough() -> bool:
                    tries = registry.get_sample_value("tidegate_persister_retries_total", {"what": "probe"}) or 0
                    return tries > asked + 20

                await eventually(asked_long_enough, "it only asks for a primary")
                with MongoClient[dict[str, Any]](direct) as client:
                    client.admin.command({"replSetFreeze": 0})
                await all_stored(direct, "tidegate", 20)
        assert await dead_letters_in(broker) == []


async def test_a_mongodb_that_takes_every_write_but_those_of_readings_makes_no_dead_letter_of_a_good_message(
    system: System, mongodb_database: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, refused = ToMongoDB.write, 0

    async def refusing(_: ToMongoDB, __: Any) -> Any:
        nonlocal refused
        refused += 1
        raise WriteFailed("this shard is away")

    monkeypatch.setattr(ToMongoDB, "write", refusing)
    async with system.opened() as broker:
        await broker.declare()
        await publish(broker, (Message.of([document(number)]) for number in range(20)))
        async with storing(broker, *mongodb_database):

            async def returned_too_often() -> bool:
                return await asyncio.to_thread(returns, *mongodb_database) > 2 * OFTEN

            await eventually(returned_too_often, "the first message was requeued very often", 60)
            monkeypatch.setattr(ToMongoDB, "write", write)
            await all_stored(*mongodb_database, 20)
        assert await dead_letters_in(broker) == []
        assert refused > 2 * OFTEN


def returns(url: str, name: str) -> int:
    """The highest number of requeues of one message. Browsing the queue would count too."""
    with MongoClient[dict[str, Any]](url, timeoutMS=5000) as client:
        found = client[name]["requeues"].find({"by": {"$exists": True}})
        return max((sum(one["by"].values()) for one in found), default=0)


async def test_a_message_whose_consumers_were_lost_too_often_is_dead_as_ever(
    system: System, mongodb_database: tuple[str, str]
) -> None:
    async with system.opened() as broker:
        await broker.declare()
        await publish(broker, [Message.of([document(1)])])
        for _ in range(OFTEN):
            async with broker.consumer(READINGS, prefetch=1) as consumer:
                await asyncio.wait_for(consumer.get(), 60)
        await publish(broker, [Message.of([document(2)])])
        async with storing(broker, *mongodb_database):

            async def dead() -> bool:
                return bool(await dead_letters_in(broker))

            await eventually(dead, "it is dead")
            await all_stored(*mongodb_database, 1)
        (dead_letter,) = await dead_letters_in(broker)
        assert (dead_letter.documents(), dead_letter.headers["x-reason"]) == ([document(1)], "too_often")


async def test_however_long_dead_letters_are_refused_only_what_is_bad_becomes_one_and_with_its_own_reason(
    system: System, mongodb_database: tuple[str, str]
) -> None:
    bad = bson.encode({"no": "reading"})
    async with system.opened(QUEUES) as broker:
        await broker.declare()
        await refusing(broker, embedded=system.embedded)
        await publish(broker, [Message.of([document(1), bad, document(2)])])
        async with storing(broker, *mongodb_database):
            await all_stored(*mongodb_database, 2)

            async def returned_too_often() -> bool:
                return await asyncio.to_thread(returns, *mongodb_database) > 2 * OFTEN

            await eventually(returned_too_often, "it was requeued very often")
            assert len(await dead_letters_in(broker)) == (0 if system.embedded else 1), "nothing got in"
            await making_room(broker, embedded=system.embedded)

            async def dead() -> bool:
                return bool(await dead_letters_in(broker))

            await eventually(dead, "it is dead")
        (dead_letter,) = await dead_letters_in(broker)
        assert (dead_letter.documents(), dead_letter.headers["x-reason"]) == ([bad], "undecodable")


async def refusing(broker: Broker, *, embedded: bool) -> None:
    """Fill the dead-letter queue, and check that it refuses."""
    async with broker.publisher() as publisher:
        if not embedded:  # RabbitMQ takes one message too many; the embedded queue takes none
            await publisher.publish(Message(b"full"), DEAD_EXCHANGE)
        with pytest.raises(QueueFull):
            await publisher.publish(Message(b"full"), DEAD_EXCHANGE)
    assert len(await dead_letters_in(broker)) == (0 if embedded else 1)


async def making_room(broker: Broker, *, embedded: bool) -> None:
    """Make room in the dead-letter queue."""
    if embedded:
        broker._states[DEAD_LETTERS.name].queue = DEAD_LETTERS  # type: ignore[attr-defined]
        return
    async with broker.consumer(DEAD_LETTERS, prefetch=1) as consumer:
        await consumer.acknowledge(await asyncio.wait_for(consumer.get(), 60))


TIMEOUT_S = 5.0


async def test_rabbitmqs_consumer_timeout_ends_no_channel_while_more_bad_messages_wait_than_are_tried_at_once(
    tmp_path: Path, mongodb_database: tuple[str, str]
) -> None:
    with RabbitMQServer(tmp_path / "r") as rabbitmq:
        await asyncio.to_thread(rabbitmq.set_consumer_timeout, TIMEOUT_S)
        system, url = System(rabbitmq.url), mongodb_database
        async with system.opened(QUEUES) as broker:
            await broker.declare()
            await refusing(broker, embedded=False)
            poison = [Message(b"poison %d" % number) for number in range(4 * dead_letters.MAX_WORKERS)]
            await publish(broker, poison)
            async with storing(broker, *url, hold_s=TIMEOUT_S / 2), broker.publisher() as publisher:
                since, slowest = time.monotonic(), 0.0
                number = 0
                while time.monotonic() - since < 3 * TIMEOUT_S:
                    await publisher.publish(Message.of([document(number)]), READINGS_EXCHANGE)
                    number, published = number + 1, time.monotonic()
                    await all_stored(*url, number)
                    slowest = max(slowest, time.monotonic() - published)
            assert slowest < TIMEOUT_S / 2, "good readings stood still"
            assert "timed out" not in rabbitmq.log_text(), "a channel was ended"
            # All are there still: nothing got into the dead letters, and nothing was lost.
            await making_room(broker, embedded=False)
            assert await broker.depth(READINGS) == len(poison)


async def test_what_this_worker_returned_counts_before_it_is_written_and_what_others_did_after(
    mongodb_database: tuple[str, str],
) -> None:
    async with opened(mongodb_database) as (ours, others):
        message, other = Message.of([document(1)]), Message.of([document(2)])
        ours.record([Delivery(message, 1, 0)])
        ours.record([Delivery(message, 2, 1)])
        assert await ours.count(message) == 2
        assert await others.count(message) == 0
        for _ in range(3):  # the same again changes nothing
            await ours.write()
            await ours.probe()
        others.record([Delivery(message, 1, 2), Delivery(other, 2, 0)])
        await others.write()
        assert await ours.count(message) == await others.count(message) == 3
        assert await ours.count(other) == 1
        assert await ours.count(Message.of([document(3)])) == 0


async def test_messages_without_an_id_are_told_apart_by_their_bytes(mongodb_database: tuple[str, str]) -> None:
    async with opened(mongodb_database) as (ours, others):
        ours.record([Delivery(Message(b"one", message_id=""), 1, 0)])
        await ours.write()
        assert await others.count(Message(b"one", message_id="")) == 1
        assert await others.count(Message(b"two", message_id="")) == 0


async def test_a_worker_remembers_a_bounded_number_of_returns() -> None:
    async with mongodb_client("mongodb://127.0.0.1:9", name="test", timeout_s=0.2) as client:
        requeues = Requeues(client["tidegate"])
        requeues.record(
            Delivery(Message(b"", message_id=str(number)), number, 0) for number in range(MAX_REMEMBERED + 5)
        )
        assert len(requeues._counts) == len(requeues._unwritten) == MAX_REMEMBERED
        with pytest.raises(WriteFailed):
            await requeues.write()
        assert len(requeues._unwritten) == MAX_REMEMBERED, "they are still to be written"


@asynccontextmanager
async def opened(mongodb_database: tuple[str, str]) -> AsyncIterator[tuple[Requeues, Requeues]]:
    """Yield the requeues of two workers on one database."""
    url, name = mongodb_database
    async with mongodb_client(url, name="test", timeout_s=5) as client:
        yield Requeues(client[name]), Requeues(client[name])


def test_too_often_is_what_the_design_says() -> None:
    assert MAX_DELIVERIES == 100
