"""The broker on RabbitMQ: quorum queues, publisher confirms, a connection each for publishing and for consuming.

Plain aio-pika connections under a loop of our own rather than its "robust" ones: every connection is a generation, its
topology is declared anew, and what belonged to an earlier generation is known to be stale.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError, PublishError
from yarl import URL

from broker.interface import BrokerUnavailable, ConfirmLate, Delivery, QueueFull, Unroutable
from broker.message import CONTENT_TYPE, Header, Message
from broker.rabbitmq_link import CONNECT_TIMEOUT_S, LOST, Link, kept_open
from broker.topology import QUEUES, Exchange, Queue

# Above every confirm timeout, so that a hung broker is met by our deadline first and by the heartbeat second.
HEARTBEAT_S = 10


class RabbitMQBroker:
    """A RabbitMQ node or cluster at an `amqp://` address. Nothing connects before a context is entered."""

    def __init__(self, url: str, queues: tuple[Queue, ...] = QUEUES) -> None:
        self._url = str(URL(url).update_query(heartbeat=HEARTBEAT_S))
        self._queues = queues

    @asynccontextmanager
    async def publisher(self, *, confirm_timeout_s: float = 4.0) -> AsyncIterator["RabbitMQPublisher"]:
        """Open a publisher with a connection of its own."""
        publisher = RabbitMQPublisher(self._queues, confirm_timeout_s)
        async with kept_open(self._url, "tidegate publisher", publisher.prepare) as link:
            publisher.link = link
            yield publisher

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator["RabbitMQConsumer"]:
        """Open a consumer with a connection of its own."""
        consumer = RabbitMQConsumer(self._queues, queue, prefetch)
        async with kept_open(self._url, f"tidegate consumer of {queue.name}", consumer.prepare) as link:
            consumer.link = link
            yield consumer

    async def depth(self, queue: Queue) -> int:
        """Ask the broker itself, over a connection of this question: a declared queue keeps an old count."""
        try:
            connection = await aio_pika.connect(self._url, timeout=CONNECT_TIMEOUT_S)
            async with connection:
                channel = await connection.channel()
                declared = await (await channel.get_underlay_channel()).queue_declare(queue.name, passive=True)
                return int(declared.message_count or 0)
        except LOST as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error


async def declare(channel: AbstractChannel, queues: tuple[Queue, ...]) -> dict[str, AbstractExchange]:
    """Declare exchanges, queues and bindings, and return the exchanges by name."""
    exchanges: dict[str, AbstractExchange] = {}
    for queue in queues:
        name = queue.exchange.name
        exchanges[name] = await channel.declare_exchange(name, queue.exchange.kind, durable=True)
        declared = await channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
        await declared.bind(exchanges[name], queue.binding)
    return exchanges


class RabbitMQPublisher:
    """Publishes persistent, mandatory messages and awaits each confirm."""

    link: Link

    def __init__(self, queues: tuple[Queue, ...], confirm_timeout_s: float) -> None:
        self._queues = queues
        self._timeout_s = confirm_timeout_s
        self._exchanges: dict[str, AbstractExchange] = {}

    async def prepare(self, channel: AbstractChannel) -> None:
        """Declare the topology on a fresh channel."""
        self._exchanges = await declare(channel, self._queues)

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the broker has confirmed; BrokerError in every other case."""
        self.link.check()
        outgoing = aio_pika.Message(
            message.body,
            headers=dict(message.headers),
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message.message_id,
        )
        target = self._exchanges.get(exchange.name)
        if target is None:
            raise Unroutable(f"no queue is bound to {exchange.name}")
        try:
            async with asyncio.timeout(self._timeout_s):
                await target.publish(outgoing, exchange.routing_key, mandatory=True)
        except TimeoutError as error:
            raise ConfirmLate(f"no confirm within {self._timeout_s:g} s") from error
        except asyncio.CancelledError as error:
            # The driver cancels publishes when a connection dies under them; only a cancellation of ours goes on.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise BrokerUnavailable("the connection died during the publish") from error
        except PublishError as error:
            raise Unroutable(f"no queue takes {exchange.routing_key} from {exchange.name}") from error
        except DeliveryError as error:
            raise QueueFull(f"the queue behind {exchange.name} is full") from error
        except LOST as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error

    async def check(self) -> None:
        """Raise while there is no connection."""
        self.link.check()


class RabbitMQConsumer:
    """Takes messages from one queue with a bounded prefetch."""

    link: Link

    def __init__(self, queues: tuple[Queue, ...], queue: Queue, prefetch: int) -> None:
        self._queues = queues
        self._queue = queue
        self._prefetch = prefetch
        self._channel: AbstractChannel | None = None
        self._generation = 0
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    async def prepare(self, channel: AbstractChannel) -> None:
        """Declare the topology on a fresh channel and consume; what an earlier one delivered is dropped as stale."""
        await channel.set_qos(prefetch_count=self._prefetch)
        await declare(channel, self._queues)
        self._generation += 1
        self._arrived = _emptied(self._arrived)
        self._channel = channel
        generation = self._generation

        async def arrived(incoming: AbstractIncomingMessage) -> None:
            if generation == self._generation:
                self._arrived.put_nowait(_delivery(incoming, generation))

        queue = await channel.get_queue(self._queue.name, ensure=False)
        await queue.consume(arrived)

    async def get(self) -> Delivery:
        """Wait for the next message of the present connection."""
        while True:
            delivery = await self._arrived.get()
            if delivery.generation == self._generation:
                return delivery

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Settle one message, or all up to it."""
        await self._settle(delivery, lambda channel: channel.basic_ack(delivery.tag, multiple=multiple))

    async def reject(self, delivery: Delivery) -> None:
        """Reject without requeue: the broker hands it to the dead-letter queue."""
        await self._settle(delivery, lambda channel: channel.basic_reject(delivery.tag, requeue=False))

    async def _settle(self, delivery: Delivery, settle: Callable[[Any], Awaitable[object]]) -> None:
        if delivery.generation != self._generation or self._channel is None:
            return
        with suppress(*LOST):  # lost with its connection: the broker delivers it again
            await settle(await self._channel.get_underlay_channel())

    async def check(self) -> None:
        """Raise while there is no connection."""
        self.link.check()


def _emptied(queue: "asyncio.Queue[Delivery]") -> "asyncio.Queue[Delivery]":
    while not queue.empty():
        queue.get_nowait()
    return queue


def _delivery(incoming: AbstractIncomingMessage, generation: int) -> Delivery:
    headers: dict[str, Header] = {}
    for name, found in incoming.headers.items():
        if isinstance(found, (str, int)):
            headers[name] = found
        elif isinstance(found, bytes):
            headers[name] = found.decode("utf-8", "replace")
    seen = headers.pop("x-delivery-count", 0)
    message = Message(incoming.body, headers, incoming.message_id or "")
    return Delivery(message, incoming.delivery_tag or 0, int(seen), generation)
