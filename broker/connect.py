"""From `BROKER_URL` to a broker: `amqp://…` is RabbitMQ, at one host or several, `embedded://PATH` a file here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.embedded.broker import EmbeddedBroker
from broker.interface import Broker
from broker.rabbitmq.address import parse_hosts
from broker.rabbitmq.broker import RabbitMQBroker


def check_url(url: str) -> None:
    """Raise ValueError, without the address and its password, when no broker is meant by it."""
    if not url.startswith(("amqp://", "amqps://", "embedded://")):
        raise ValueError("BROKER_URL must start with amqp://, amqps:// or embedded://")
    if not url.startswith("embedded://"):
        parse_hosts(url)


@asynccontextmanager
async def open_broker(url: str) -> AsyncIterator[Broker]:
    """Open the broker that the address means, as long as the context lasts."""
    check_url(url)
    if url.startswith("embedded://"):
        async with EmbeddedBroker.open_at(Path(url.removeprefix("embedded://"))) as embedded:
            yield embedded
    else:
        yield RabbitMQBroker(url)
