"""Each service works with just its rights on RabbitMQ, and with no more than it needs.

Since RabbitMQ 4.3 whoever asks whether a name is there needs a right on it, so all of this holds on both.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from yarl import URL

from broker.interface import BrokerError, BrokerUnavailable
from broker.message import Message
from broker.rabbitmq import connection as rabbitmq_connection
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import (
    COMMANDS_EXCHANGE,
    DEAD_EXCHANGE,
    DEAD_LETTERS,
    DELETED_OWNERS,
    LIVE_EXCHANGE,
    OWNERS_EXCHANGE,
    PRESENCE_EXCHANGE,
    READINGS,
    READINGS_EXCHANGE,
    REPLIES_EXCHANGE,
    STORED_EXCHANGE,
    Exchange,
)
from testing.servers.rabbitmq import RabbitMQServer

RIGHTS = json.loads((Path(__file__).parents[3] / "deploy" / "rabbitmq" / "rights.json").read_text())
SERVICES = ("auth", "gateway", "persister", "reader")


@pytest.fixture
def urls(each_rabbitmq_server: RabbitMQServer, each_rabbitmq_url: str) -> Iterator[dict[str, str]]:
    """The vhost's URL with each service's own user."""
    rabbitmq_server, rabbitmq_url = each_rabbitmq_server, each_rabbitmq_url
    vhost = URL(rabbitmq_url).path[1:]
    users = {name: f"{name}-{vhost}" for name in SERVICES}
    for name, user in users.items():
        rabbitmq_server.api("PUT", f"users/{user}", {"password": "secret", "tags": ""})
        rabbitmq_server.api("PUT", f"permissions/{vhost}/{user}", RIGHTS[name])
    yield {name: str(URL(rabbitmq_url).with_user(user).with_password("secret")) for name, user in users.items()}
    for user in users.values():
        rabbitmq_server.api("DELETE", f"users/{user}")


@pytest.fixture
async def brokers(urls: dict[str, str], each_rabbitmq_url: str) -> dict[str, RabbitMQBroker]:
    await RabbitMQBroker(each_rabbitmq_url, durable_after_s=0).declare()
    return {name: RabbitMQBroker(url) for name, url in urls.items()}


async def test_what_each_service_does_is_allowed(brokers: dict[str, RabbitMQBroker]) -> None:
    async with asyncio.timeout(20), brokers["auth"].publisher() as auth:
        await auth.publish(Message(b"deleted"), OWNERS_EXCHANGE)
    async with (
        asyncio.timeout(20),
        brokers["gateway"].publisher() as gateway,
        brokers["gateway"].broadcaster(PRESENCE_EXCHANGE) as presence,
        brokers["persister"].publisher() as persister,
        brokers["persister"].broadcaster(LIVE_EXCHANGE) as live,
        brokers["persister"].consumer(READINGS, prefetch=1) as readings,
        brokers["persister"].consumer(DELETED_OWNERS, prefetch=1) as owners,
        brokers["reader"].subscriber(LIVE_EXCHANGE, bound=5) as live_subscriber,
        brokers["reader"].subscriber(PRESENCE_EXCHANGE, bound=5) as presence_subscriber,
    ):
        await gateway.publish(Message(b"reading"), READINGS_EXCHANGE)
        for consumer, body in ((readings, b"reading"), (owners, b"deleted")):
            delivery = await consumer.get()
            assert delivery.message.body == body
            await consumer.acknowledge(delivery)
        await persister.publish(Message(b"dead"), DEAD_EXCHANGE)
        assert await brokers["persister"].depth(READINGS) == 0
        presence.broadcast(b"here")
        live.broadcast(b"stored")
        assert await anext(aiter(presence_subscriber)) == b"here"
        assert await anext(aiter(live_subscriber)) == b"stored"
    async with (
        asyncio.timeout(20),
        brokers["gateway"].subscriber(COMMANDS_EXCHANGE, bound=5) as orders,
        brokers["gateway"].broadcaster(REPLIES_EXCHANGE) as replies,
        brokers["gateway"].broadcaster(PRESENCE_EXCHANGE) as presence,
        brokers["auth"].broadcaster(COMMANDS_EXCHANGE) as commands,
        brokers["auth"].subscriber(REPLIES_EXCHANGE, bound=5) as outcomes,
        brokers["auth"].subscriber(PRESENCE_EXCHANGE, bound=5) as sessions,
    ):
        commands.broadcast(b"command")
        replies.broadcast(b"outcome")
        presence.broadcast(b"here")
        assert await anext(aiter(orders)) == b"command"
        assert await anext(aiter(outcomes)) == b"outcome"
        assert await anext(aiter(sessions)) == b"here"
    async with (
        asyncio.timeout(20),
        brokers["gateway"].subscriber(STORED_EXCHANGE, bound=5) as receipts,
        brokers["persister"].broadcaster(STORED_EXCHANGE) as stored,
    ):
        stored.broadcast(b"receipt")
        assert await anext(aiter(receipts)) == b"receipt"


@pytest.mark.parametrize(
    ("service", "exchange"),
    [
        ("auth", READINGS_EXCHANGE),
        ("auth", DEAD_EXCHANGE),
        ("gateway", OWNERS_EXCHANGE),
        ("gateway", DEAD_EXCHANGE),
        ("persister", READINGS_EXCHANGE),
        ("persister", OWNERS_EXCHANGE),
        ("reader", READINGS_EXCHANGE),
        ("reader", DEAD_EXCHANGE),
        ("reader", OWNERS_EXCHANGE),
    ],
)
async def test_nobody_publishes_what_is_not_its_own_to_publish(
    brokers: dict[str, RabbitMQBroker], service: str, exchange: Exchange
) -> None:
    async with asyncio.timeout(20), brokers[service].publisher(confirm_timeout_s=2) as publisher:
        with pytest.raises(BrokerError):
            await publisher.publish(Message(b"forged"), exchange)


@pytest.mark.parametrize("service", ["auth", "gateway", "reader"])
async def test_only_persisters_take_readings_and_nobody_takes_dead_letters(
    brokers: dict[str, RabbitMQBroker], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_connection, "START_TIMEOUT_S", 1.0)  # what is refused is tried again, for ever
    for queue in (READINGS, DELETED_OWNERS, DEAD_LETTERS):
        async with brokers[service].consumer(queue, prefetch=1) as consumer:
            with pytest.raises(BrokerUnavailable):
                await consumer.check()
    async with brokers["persister"].consumer(DEAD_LETTERS, prefetch=1) as consumer:
        with pytest.raises(BrokerUnavailable):
            await consumer.check()
