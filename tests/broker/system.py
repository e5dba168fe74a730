"""A broker at an address: opened, left and opened again on the same messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.embedded.broker import EmbeddedBroker
from broker.interface import Broker
from broker.rabbitmq.broker import RabbitMQBroker
from broker.topology import QUEUES, Queue


class System:
    """Where a test's broker is, whichever one it is."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def embedded(self) -> bool:
        return self.url.startswith("embedded://")

    @asynccontextmanager
    async def opened(self, queues: tuple[Queue, ...] = QUEUES) -> AsyncIterator[Broker]:
        if self.embedded:
            async with EmbeddedBroker.open_at(Path(self.url.removeprefix("embedded://")), queues) as broker:
                yield broker
        else:
            # Nobody kills the node under these tests, so there is no need to wait until fresh queues would outlive it.
            yield RabbitMQBroker(self.url, queues, durable_after_s=0)
