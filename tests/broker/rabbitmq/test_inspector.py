"""Questions about queues, over a connection that stays open."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from broker.interface import BrokerUnavailable
from broker.message import Message
from broker.rabbitmq import inspector
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import QUEUES, READINGS, READINGS_EXCHANGE, Queue
from testing.servers.ports import free_port
from testing.waiting import eventually
from tests.broker.rabbitmq.nodes import Node, url_of

MISSING = Queue("tidegate.missing", READINGS_EXCHANGE, "missing")


@pytest.fixture
async def node(rabbitmq_url: str) -> AsyncIterator[Node]:
    async with Node("127.0.0.14", free_port(), URL(rabbitmq_url).port or 0).running() as running:
        yield running


@pytest.fixture
async def broker(node: Node, rabbitmq_url: str) -> RabbitMQBroker:
    await RabbitMQBroker(rabbitmq_url, durable_after_s=0).declare()
    return RabbitMQBroker(url_of([node], rabbitmq_url), durable_after_s=0)


async def test_the_length_of_now_is_found_again_and_again_over_one_connection(
    broker: RabbitMQBroker, node: Node, rabbitmq_url: str
) -> None:
    async with RabbitMQBroker(rabbitmq_url).publisher(READINGS_EXCHANGE) as publisher, broker.inspector() as inspecting:
        assert node.connections == 0
        for count in range(3):

            async def found(count: int = count) -> bool:
                return await inspecting.depth(READINGS) == count

            await eventually(found, f"{count} messages")
            await publisher.publish(Message(b"x"), READINGS_EXCHANGE)
        depths = await asyncio.gather(*(inspecting.depth(queue) for queue in QUEUES))
        assert len(depths) == len(QUEUES)
        assert node.connections == 1
    assert await broker.depth(READINGS) == 3


async def test_after_a_lost_connection_and_a_question_that_failed_the_next_one_is_answered(
    broker: RabbitMQBroker, node: Node
) -> None:
    async with broker.inspector() as inspecting:
        assert await inspecting.depth(READINGS) == 0
        node.drop_all()

        async def answered() -> bool:
            try:
                return await inspecting.depth(READINGS) == 0
            except BrokerUnavailable:
                return False

        await eventually(answered, "another connection is opened")
        with pytest.raises(BrokerUnavailable, match=MISSING.name):
            await inspecting.depth(MISSING)
        assert await inspecting.depth(READINGS) == 0


async def test_a_node_that_says_nothing_is_not_waited_for(
    broker: RabbitMQBroker, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "ANSWER_TIMEOUT_S", 0.3)
    async with broker.inspector() as inspecting:
        assert await inspecting.depth(READINGS) == 0
        node.carries.clear()
        with pytest.raises(BrokerUnavailable, match=r"no answer within 0\.3 s"):
            await inspecting.depth(READINGS)
        node.carries.set()
        assert await inspecting.depth(READINGS) == 0
