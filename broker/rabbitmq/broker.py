"""The broker on RabbitMQ: quorum queues, publisher confirms, a connection for each publisher, consumer and listener.

Plain aio-pika connections under a loop of our own rather than its "robust" ones: every connection is a generation, what
it needs is asked for anew and declared where it is missing, and what belonged to an earlier one is known to be stale.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aio_pika.abc import AbstractConnection

from broker.rabbitmq.address import parse_hosts
from broker.rabbitmq.connection import close, driver_channel, keep_open
from broker.rabbitmq.connector import Connector
from broker.rabbitmq.consumer import RabbitMQConsumer
from broker.rabbitmq.errors import translating_errors
from broker.rabbitmq.fanout import RabbitMQBroadcaster, RabbitMQSubscriber
from broker.rabbitmq.publisher import RabbitMQPublisher
from broker.rabbitmq.queue_browser import RabbitMQQueueBrowser
from broker.rabbitmq.topology import SETTLE_S, Questions, declare_all, ensure_queue
from broker.topology import QUEUES, Exchange, Queue
from runtime.background import background

# Above every confirm timeout, so that a hung broker is met by our deadline first and by the heartbeat second.
HEARTBEAT_S = 10


class RabbitMQBroker:
    """A RabbitMQ node or cluster at an `amqp://` address. Nothing connects before a context is entered."""

    def __init__(self, url: str, queues: tuple[Queue, ...] = QUEUES, *, settle_s: float = SETTLE_S) -> None:
        """Use the hosts that an address names (see rabbitmq_address); ValueError where it is none."""
        self._hosts = tuple(
            replace(host, url=host.url.update_query(heartbeat=HEARTBEAT_S)) for host in parse_hosts(url)
        )
        self._queues = queues
        self._settle_s = settle_s

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[RabbitMQPublisher]:
        """Open a publisher with a connection of its own; with no exchange named, to all."""
        publisher = RabbitMQPublisher(self._queues, exchanges, confirm_timeout_s, self._settle_s)
        async with keep_open(self._hosts, "tidegate publisher", publisher.prepare, confirms=True) as link:
            publisher.link = link
            yield publisher

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator[RabbitMQConsumer]:
        """Open a consumer with a connection of its own."""
        consumer = RabbitMQConsumer(self._queues, queue, prefetch)
        async with keep_open(self._hosts, f"tidegate consumer of {queue.name}", consumer.prepare) as link:
            consumer.link = link
            yield consumer

    @asynccontextmanager
    async def broadcaster(self, exchange: Exchange) -> AsyncIterator[RabbitMQBroadcaster]:
        """Open an announcer with a connection of its own: a confirm never waits behind an announcement."""
        broadcaster = RabbitMQBroadcaster(exchange)
        async with keep_open(self._hosts, f"tidegate announcer to {exchange.name}", broadcaster.prepare) as link:
            broadcaster.link = link
            async with background(broadcaster.run(), name=f"announcer to {exchange.name}"):
                yield broadcaster

    @asynccontextmanager
    async def subscriber(self, exchange: Exchange, *, bound: int) -> AsyncIterator[RabbitMQSubscriber]:
        """Listen with a connection and a queue of its own."""
        subscriber = RabbitMQSubscriber(exchange, bound)
        async with keep_open(self._hosts, f"tidegate listener to {exchange.name}", subscriber.prepare) as link:
            subscriber.link = link
            yield subscriber

    @asynccontextmanager
    async def browser(self, queue: Queue) -> AsyncIterator[RabbitMQQueueBrowser]:
        """Look into a queue over a connection of this question."""
        async with self._connected() as connection:
            with translating_errors():
                await ensure_queue(connection, self._queues, queue, Questions())
                channel = await driver_channel(await connection.channel(publisher_confirms=False))
            yield RabbitMQQueueBrowser(channel, queue)

    async def declare(self) -> None:
        """Declare everything; about 1.5 s where anything is fresh, until it would outlive a crash."""
        async with self._connected() as connection:
            with translating_errors():
                await declare_all(connection, self._queues, settle_s=self._settle_s)

    async def depth(self, queue: Queue) -> int:
        """Ask the broker itself, over a connection of this question: a declared queue keeps an old count."""
        async with self._connected() as connection:
            with translating_errors():
                channel = await driver_channel(await connection.channel(publisher_confirms=False))
                declared = await channel.queue_declare(queue.name, passive=True)
            return int(declared.message_count or 0)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        connection = await Connector(self._hosts).connect("tidegate question")
        try:
            yield connection
        finally:
            await close(connection)
