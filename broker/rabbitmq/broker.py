"""The broker on RabbitMQ: quorum queues, publisher confirms, a connection for each publisher, consumer and subscriber.

Plain aio-pika connections, reopened by `ReconnectingConnection` instead of aio-pika's "robust" ones: every connection
is a generation, which probes for the names it needs, declares missing ones, and knows deliveries of earlier generations
to be stale.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aio_pika.abc import AbstractConnection

from broker.rabbitmq.address import parse_hosts
from broker.rabbitmq.connection import HEARTBEAT_S, asking_channel, close, open_connection
from broker.rabbitmq.connector import Connector
from broker.rabbitmq.consumer import RabbitMQConsumer
from broker.rabbitmq.errors import translating_errors
from broker.rabbitmq.fanout import RabbitMQBroadcaster, RabbitMQSubscriber
from broker.rabbitmq.inspector import RabbitMQInspector
from broker.rabbitmq.publisher import RabbitMQPublisher
from broker.rabbitmq.queue_browser import RabbitMQQueueBrowser
from broker.rabbitmq.topology import DURABLE_AFTER_S, NameProbe, declare_all, ensure_queue
from broker.topology import QUEUES, Exchange, Queue
from runtime.background import background


class RabbitMQBroker:
    """A RabbitMQ node or cluster at an `amqp://` URL. Nothing connects before a context is entered."""

    def __init__(
        self, url: str, queues: tuple[Queue, ...] = QUEUES, *, durable_after_s: float = DURABLE_AFTER_S
    ) -> None:
        """Use the hosts of a URL (see `parse_hosts`); ValueError when it is malformed."""
        self._hosts = tuple(
            replace(host, url=host.url.update_query(heartbeat=HEARTBEAT_S)) for host in parse_hosts(url)
        )
        self._queues = queues
        self._durable_after_s = durable_after_s

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[RabbitMQPublisher]:
        """Open a publisher with its own connection, to these exchanges or to all."""
        publisher = RabbitMQPublisher(self._queues, exchanges, confirm_timeout_s, self._durable_after_s)
        async with open_connection(self._hosts, "tidegate publisher", publisher.prepare, confirms=True) as connection:
            publisher.connection = connection
            yield publisher

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator[RabbitMQConsumer]:
        """Open a consumer with its own connection."""
        consumer = RabbitMQConsumer(self._queues, queue, prefetch)
        async with open_connection(self._hosts, f"tidegate consumer of {queue.name}", consumer.prepare) as connection:
            consumer.connection = connection
            yield consumer

    @asynccontextmanager
    async def broadcaster(self, exchange: Exchange) -> AsyncIterator[RabbitMQBroadcaster]:
        """Open a broadcaster with its own connection, so that no confirm waits behind a broadcast."""
        broadcaster = RabbitMQBroadcaster(exchange)
        name = f"tidegate broadcaster to {exchange.name}"
        async with open_connection(self._hosts, name, broadcaster.prepare) as connection:
            broadcaster.connection = connection
            async with background(broadcaster.run(), name=f"broadcaster to {exchange.name}"):
                yield broadcaster

    @asynccontextmanager
    async def subscriber(self, exchange: Exchange, *, bound: int) -> AsyncIterator[RabbitMQSubscriber]:
        """Subscribe with its own connection and queue."""
        subscriber = RabbitMQSubscriber(exchange, bound)
        name = f"tidegate subscriber to {exchange.name}"
        async with open_connection(self._hosts, name, subscriber.prepare) as connection:
            subscriber.connection = connection
            yield subscriber

    @asynccontextmanager
    async def browser(self, queue: Queue) -> AsyncIterator[RabbitMQQueueBrowser]:
        """Browse a queue over a connection that lasts as long as the context."""
        async with self._connected() as connection:
            with translating_errors():
                await ensure_queue(connection, self._queues, queue, NameProbe())
                channel = await asking_channel(connection)
            yield RabbitMQQueueBrowser(channel, queue)

    @asynccontextmanager
    async def inspector(self) -> AsyncIterator[RabbitMQInspector]:
        """Ask over one connection, which is opened again where it is lost."""
        inspector = RabbitMQInspector(self._hosts)
        try:
            yield inspector
        finally:
            await inspector.close()

    async def declare(self) -> None:
        """Declare everything; takes about 1.5 s if anything is new, until it would survive a crash."""
        async with self._connected() as connection:
            with translating_errors():
                await declare_all(connection, self._queues, durable_after_s=self._durable_after_s)

    async def depth(self, queue: Queue) -> int:
        """Return the queue's current length, over a connection of its own."""
        async with self.inspector() as inspector:
            return await inspector.depth(queue)

    async def consumers(self, queue: Queue) -> int:
        """Return how many consumers the queue has, declared if it is missing, over a connection of its own."""
        async with self._connected() as connection:
            with translating_errors():
                await ensure_queue(connection, self._queues, queue, NameProbe())
                channel = await asking_channel(connection)
                return int((await channel.queue_declare(queue.name, passive=True)).consumer_count or 0)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        connection = await Connector(self._hosts).connect("tidegate query")
        try:
            yield connection
        finally:
            await close(connection)
