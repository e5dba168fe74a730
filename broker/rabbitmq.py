"""The broker on RabbitMQ: quorum queues, publisher confirms, a connection for each publisher, consumer and listener.

Plain aio-pika connections under a loop of our own rather than its "robust" ones: every connection is a generation, what
it needs is asked for anew and declared where it is missing, and what belonged to an earlier one is known to be stale.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aio_pika.abc import AbstractConnection

from broker.rabbitmq_address import parse_hosts
from broker.rabbitmq_connect import Connector
from broker.rabbitmq_consumer import RabbitMQConsumer
from broker.rabbitmq_fanout import RabbitMQAnnouncer, RabbitMQListener
from broker.rabbitmq_inspection import RabbitMQInspection
from broker.rabbitmq_link import close, driver_channel, kept_open
from broker.rabbitmq_publisher import RabbitMQPublisher
from broker.rabbitmq_refusals import as_unavailable
from broker.rabbitmq_topology import SETTLE_S, Questions, declare_all, ensure_queue
from broker.topology import QUEUES, Exchange, Queue
from runtime.beside import beside

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
        async with kept_open(self._hosts, "tidegate publisher", publisher.prepare, confirms=True) as link:
            publisher.link = link
            yield publisher

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator[RabbitMQConsumer]:
        """Open a consumer with a connection of its own."""
        consumer = RabbitMQConsumer(self._queues, queue, prefetch)
        async with kept_open(self._hosts, f"tidegate consumer of {queue.name}", consumer.prepare) as link:
            consumer.link = link
            yield consumer

    @asynccontextmanager
    async def announcer(self, exchange: Exchange) -> AsyncIterator[RabbitMQAnnouncer]:
        """Open an announcer with a connection of its own: a confirm never waits behind an announcement."""
        announcer = RabbitMQAnnouncer(exchange)
        async with kept_open(self._hosts, f"tidegate announcer to {exchange.name}", announcer.prepare) as link:
            announcer.link = link
            async with beside(announcer.run(), name=f"announcer to {exchange.name}"):
                yield announcer

    @asynccontextmanager
    async def listener(self, exchange: Exchange, *, bound: int) -> AsyncIterator[RabbitMQListener]:
        """Listen with a connection and a queue of its own."""
        listener = RabbitMQListener(exchange, bound)
        async with kept_open(self._hosts, f"tidegate listener to {exchange.name}", listener.prepare) as link:
            listener.link = link
            yield listener

    @asynccontextmanager
    async def inspection(self, queue: Queue) -> AsyncIterator[RabbitMQInspection]:
        """Look into a queue over a connection of this question."""
        async with self._connected() as connection:
            with as_unavailable():
                await ensure_queue(connection, self._queues, queue, Questions())
                channel = await driver_channel(await connection.channel(publisher_confirms=False))
            yield RabbitMQInspection(channel, queue)

    async def declare(self) -> None:
        """Declare everything; about 1.5 s where anything is fresh, until it would outlive a crash."""
        async with self._connected() as connection:
            with as_unavailable():
                await declare_all(connection, self._queues, settle_s=self._settle_s)

    async def depth(self, queue: Queue) -> int:
        """Ask the broker itself, over a connection of this question: a declared queue keeps an old count."""
        async with self._connected() as connection:
            with as_unavailable():
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
