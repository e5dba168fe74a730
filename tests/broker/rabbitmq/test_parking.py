"""Which consumers are started on a channel as messages are parked, whatever the order of what happens."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from broker.interface import Delivery
from broker.rabbitmq.consumer import RabbitMQConsumer
from broker.topology import READINGS
from testing.waiting import eventually

PREFETCH = 4


class FakeChannel:
    """Starts and ends consumers when it is told to, as a driver does that waits for the broker's answers."""

    number = 1

    def __init__(self) -> None:
        self.started = 0
        self.answers = asyncio.Semaphore(0)

    async def basic_qos(self, *, prefetch_count: int) -> None:
        assert prefetch_count == PREFETCH

    async def basic_consume(self, _queue: str, _callback: object) -> SimpleNamespace:
        self.started += 1
        tag = f"consumer {self.started}"
        await self.answers.acquire()
        return SimpleNamespace(consumer_tag=tag)

    async def basic_cancel(self, _tag: str, **_: float) -> None:
        await self.answers.acquire()


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> FakeChannel:
    channel = FakeChannel()

    async def as_it_is(driver: Any) -> Any:
        return driver

    async def nothing(*_: object) -> None:
        pass

    monkeypatch.setattr("broker.rabbitmq.consumer.driver_channel", as_it_is)
    monkeypatch.setattr("broker.rabbitmq.consumer.ensure_queue", nothing)
    monkeypatch.setattr("broker.rabbitmq.consumer.take_over", lambda *_: None)
    return channel


def delivered(consumer: RabbitMQConsumer, tags: range) -> list[Delivery]:
    for tag in tags:
        consumer.receive(tag, b"\0\0", b"message", consumer.generation)
    found = [consumer.get_nowait() for _ in tags]
    return [delivery for delivery in found if delivery is not None]


async def started(channel: FakeChannel, count: int) -> None:
    async def enough() -> bool:
        return channel.started == count

    await eventually(enough, f"{count} consumers were started")


async def test_a_window_that_is_parked_before_the_first_consumers_start_is_known_makes_room(
    channel: FakeChannel,
) -> None:
    consumer = RabbitMQConsumer((READINGS,), READINGS, PREFETCH)
    async with asyncio.TaskGroup() as group:
        preparing: Any = consumer.prepare(channel, channel)  # type: ignore[arg-type]
        group.create_task(preparing)
        await started(channel, 1)
        for delivery in delivered(consumer, range(1, PREFETCH + 1)):  # what the broker sends right behind its answer
            await consumer.park(delivery)
        for _ in range(3):
            channel.answers.release()
        await started(channel, 2)


async def test_what_is_parked_while_its_consumer_ends_asks_for_no_further_one(channel: FakeChannel) -> None:
    consumer = RabbitMQConsumer((READINGS,), READINGS, PREFETCH)
    channel.answers.release()
    await consumer.prepare(channel, channel)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        for delivery in delivered(consumer, range(1, PREFETCH + 1)):
            group.create_task(consumer.park(delivery))
        await asyncio.sleep(0)
        for _ in range(6):
            channel.answers.release()
    assert channel.started == 2


async def test_no_consumer_is_started_on_a_channel_whose_consumer_the_broker_has_cancelled_meanwhile(
    channel: FakeChannel,
) -> None:
    consumer = RabbitMQConsumer((READINGS,), READINGS, PREFETCH)
    reopened: list[str] = []
    connection: Any = SimpleNamespace(reopen=reopened.append)
    consumer.connection = connection
    channel.answers.release()
    await consumer.prepare(channel, channel)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        for delivery in delivered(consumer, range(1, PREFETCH + 1)):
            group.create_task(consumer.park(delivery))
        await asyncio.sleep(0)
        consumer.cancelled(consumer.generation)
        for _ in range(2):
            channel.answers.release()
    assert (channel.started, len(reopened)) == (1, 1)
