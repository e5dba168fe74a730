"""More bad messages than the prefetch window, while the dead-letter queue refuses them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.interface import Broker, Delivery
from broker.message import Message
from broker.topology import BACKFILL, DEAD_EXCHANGE, DELETED_OWNERS, READINGS, READINGS_EXCHANGE, Queue
from persister import dead_letters, retry
from persister.app import persister_service
from persister.settings import PersisterSettings
from testing.waiting import eventually
from tests.broker.system import System
from tests.persister.harness import Harness, document

PREFETCH = 8
POISON = 5 * PREFETCH
FULL_AT_ONCE = Queue("tidegate.readings.dead", DEAD_EXCHANGE, "#", max_bytes=1)
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


@asynccontextmanager
async def storing(broker: Broker, mongodb_database: tuple[str, str]) -> AsyncIterator[CollectorRegistry]:
    url, name = mongodb_database
    registry = CollectorRegistry()
    settings = PersisterSettings(
        broker_url="embedded://unused", readings_url=url, readings_database=name, prefetch=PREFETCH
    )
    async with persister_service(settings, broker=broker, registry=registry):
        yield registry


def count(mongodb_database: tuple[str, str]) -> int:
    url, name = mongodb_database
    with MongoClient[dict[str, object]](url) as client:
        return client[name]["readings"].count_documents({})


async def test_good_messages_behind_more_bad_ones_than_the_window_are_stored_while_dead_letters_are_refused(
    system: System, mongodb_database: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.05, 0.1))
    async with system.opened(QUEUES) as broker, broker.publisher() as publisher:
        await broker.declare()
        # It holds one message and has no room for another.
        await publisher.publish(Message(b"full"), DEAD_EXCHANGE) if not system.embedded else None
        for number in range(POISON):
            await publisher.publish(Message(b"poison %d" % number), READINGS_EXCHANGE)
        for number in range(50):
            await publisher.publish(Message.of([document(number)]), READINGS_EXCHANGE)
        async with storing(broker, mongodb_database) as registry:

            async def stored() -> bool:
                return count(mongodb_database) == 50

            await eventually(stored, "the good ones are stored")
            assert (registry.get_sample_value("tidegate_persister_parked") or 0) >= POISON - 2
            published = registry.get_sample_value("tidegate_persister_dead_letters_total", {"reason": "undecodable"})
            assert (published or 0) <= 2


def parking_harness(monkeypatch: pytest.MonkeyPatch, poison: int, hold_s: float = 60) -> Harness:
    monkeypatch.setattr(dead_letters, "REQUEUE_EVERY_S", 0.01)
    monkeypatch.setattr(retry, "BACKOFF_S", (0.05, 0.1))
    return Harness([Message(b"poison %03d" % number) for number in range(poison)], dead_failures=10**9, hold_s=hold_s)


@pytest.mark.parametrize(("name", "bound"), [("MAX_PARKED", 20), ("MAX_PARKED_BYTES", 20 * len(b"poison 000"))])
async def test_what_waits_for_dead_letters_is_bounded_and_goes_back_one_by_one_beyond(
    monkeypatch: pytest.MonkeyPatch, name: str, bound: int
) -> None:
    monkeypatch.setattr(dead_letters, name, bound)
    harness = parking_harness(monkeypatch, 40)
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def some_are_requeued() -> bool:
        return len(harness.queue.requeued) > 5

    await eventually(some_are_requeued, "messages are requeued")
    assert len(harness.queue.parked) <= 20 + len(harness.queue.requeued)
    assert len(set(harness.queue.requeued)) > 5, "each in its turn"
    harness.dead.failures = 0

    async def all_dead() -> bool:
        return not harness.queue.open

    await eventually(all_dead, "every one is a dead letter")
    harness.stop.set()
    await task
    assert {dead.body for dead in harness.dead.messages} == {b"poison %03d" % number for number in range(40)}
    assert {dead.headers["x-reason"] for dead in harness.dead.messages} == {"undecodable"}


async def test_every_bad_message_goes_back_at_its_own_deadline_also_one_that_waits_in_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold_s = 1.0
    monkeypatch.setattr(dead_letters, "DEADLINE_CHECK_EVERY_S", 0.05)
    harness = parking_harness(monkeypatch, 4 * dead_letters.MAX_WORKERS, hold_s=hold_s)
    held_s: dict[int, list[float]] = {}
    requeue = harness.queue.requeue

    async def noting(delivery: Delivery) -> None:
        held_s.setdefault(delivery.tag, []).append(time.monotonic() - delivery.arrived_at)
        await requeue(delivery)

    monkeypatch.setattr(harness.queue, "requeue", noting)
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def each_is_requeued() -> bool:
        return len(held_s) == 4 * dead_letters.MAX_WORKERS

    await eventually(each_is_requeued, "each is requeued, and none waits for those before it")
    assert all(times[0] >= hold_s for times in held_s.values())
    # Twice the hold is what RabbitMQ's time-out has by default.
    assert max(max(times) for times in held_s.values()) < 2 * hold_s
    assert not task.done()
    recorded = {delivery.tag for delivery in harness.requeues.recorded}
    assert recorded == set(held_s)
    assert harness.requeues.writes
    harness.dead.failures = 0

    async def all_dead() -> bool:
        return not harness.queue.open

    await eventually(all_dead, "every one is a dead letter")
    harness.stop.set()
    await task


async def test_few_ask_a_dead_letter_queue_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = parking_harness(monkeypatch, 100)
    bodies: set[bytes] = set()
    publish = harness.dead.publish

    async def noting(message: Message, exchange: object) -> None:
        bodies.add(message.body)
        await publish(message, exchange)

    harness.dead.publish = noting  # type: ignore[method-assign,assignment]
    task = asyncio.ensure_future(harness.persister.run(harness.stop))

    async def parked() -> bool:
        return harness.persister.acks.parked == 100

    await eventually(parked, "all are parked")
    await asyncio.sleep(0.2)
    assert len(bodies) == dead_letters.MAX_WORKERS
    harness.dead.failures = 0
    async with asyncio.timeout(60):
        await harness.queue.settled.wait()
    harness.stop.set()
    await task
