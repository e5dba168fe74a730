"""Consumes from one queue of RabbitMQ, over a connection that is reopened after every loss.

Every connection is a generation; deliveries of an earlier one are known to be stale. If the broker cancels the consumer
by itself (its queue was deleted or moved, or, since RabbitMQ 4.3, a message stayed unsettled for longer than the
consumer timeout), that counts as a lost connection from then on: its messages are back in the queue, the broker accepts
a late acknowledgement silently and without effect, and may deliver more to the cancelled consumer of the open channel,
where nothing would read it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage

from broker.interface import BrokerUnavailable, Delivery
from broker.rabbitmq.connection import DriverChannel, ReconnectingConnection, driver_channel
from broker.rabbitmq.connector import take_over
from broker.rabbitmq.errors import translating_errors
from broker.rabbitmq.properties import decode_message
from broker.rabbitmq.topology import NameProbe, ensure_queue
from broker.topology import Queue

CANCEL_TIMEOUT_S = 5.0
CANCELLED = "the broker has cancelled the consumer: its queue is gone, or a message stayed unsettled for too long"


class RabbitMQConsumer:
    """Receives messages from one queue with a bounded prefetch."""

    connection: ReconnectingConnection

    def __init__(self, queues: tuple[Queue, ...], queue: Queue, prefetch: int) -> None:
        self._queues = queues
        self._queue = queue
        self._prefetch = prefetch
        self._probe = NameProbe()
        self._channel: DriverChannel | None = None
        # Of the consumer on this channel; None while there is none.
        self._consumer_tag: str | None = None
        self._stopped = False
        # Messages parked in the window of the current consumer, which starts behind the last tag of the previous one.
        self._parked = self._last_tag = self._window_start = 0
        self._generation = 0
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    @property
    def generation(self) -> int:
        """How many connections there were, the current one included."""
        return self._generation

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Consume over a new connection; unread deliveries of an earlier one are dropped."""
        await ensure_queue(connection, self._queues, self._queue, self._probe)
        driver = await driver_channel(channel)
        await driver.basic_qos(prefetch_count=self._prefetch)
        self._generation += 1
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._channel = driver
        generation = self._generation
        take_over(connection, driver.number, _Deliveries(self, generation))
        self._parked = self._last_tag = self._window_start = 0
        self._consumer_tag = None
        await self._consume(driver)
        await self._make_room(driver, generation)  # what arrived before the consumer's start was known may be parked

    async def _consume(self, driver: DriverChannel) -> None:
        """Start a consumer, unless this one was stopped, or is meanwhile."""
        if not self._stopped:
            self._consumer_tag = (await driver.basic_consume(self._queue.name, _taken_over)).consumer_tag or ""
            await self._cancel_if_stopped(driver)

    async def _cancel_if_stopped(self, driver: DriverChannel) -> None:
        if self._stopped:
            await self._cancel(driver)

    def receive(self, tag: int, properties: bytes, body: bytes, generation: int) -> None:
        """Take a delivery of this connection."""
        if generation == self._generation:
            self._last_tag = max(self._last_tag, tag)
            message, delivery_count = decode_message(properties, body)
            self._arrived.put_nowait(Delivery(message, tag, delivery_count, generation))

    def cancelled(self, generation: int) -> None:
        """Make all deliveries of this consumer stale and reconnect."""
        if generation == self._generation:
            self._generation += 1
            self._channel = self._consumer_tag = None
            self.connection.reopen(CANCELLED)

    async def get(self) -> Delivery:
        """Wait for the next message of the current connection."""
        while True:
            delivery = await self._arrived.get()
            if delivery.generation == self._generation:
                return delivery

    def get_nowait(self) -> Delivery | None:
        """Return the next message of the current connection if it has arrived already, else None."""
        while not self._arrived.empty():
            delivery = self._arrived.get_nowait()
            if delivery.generation == self._generation:
                return delivery
        return None

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Settle one message, or all up to it; False, and nothing is settled, when they will be redelivered."""
        return await self._settle(delivery, lambda channel: channel.basic_ack(delivery.tag, multiple=multiple))

    async def reject(self, delivery: Delivery) -> None:
        """Reject without requeue: the broker dead-letters the message."""
        await self._settle(delivery, lambda channel: channel.basic_reject(delivery.tag, requeue=False))

    async def requeue(self, delivery: Delivery) -> None:
        """Return one message to the queue."""
        await self._settle(delivery, lambda channel: channel.basic_nack(delivery.tag, requeue=True))

    async def park(self, delivery: Delivery) -> None:
        """Exclude this message from the window, in batches of half a window: start another consumer on the channel.

        The window of a consumer cannot be changed, and quorum queues do not support one for a whole channel. Deliveries
        of the ended consumer stay with the channel and are settled as before.
        """
        channel = self._channel
        if channel is None or delivery.generation != self._generation or delivery.tag <= self._window_start:
            return
        self._parked += 1
        try:
            with translating_errors():
                await self._make_room(channel, delivery.generation)
        except BrokerUnavailable as error:
            if delivery.generation == self._generation:
                self.connection.reopen(str(error))  # it must not go on without a consumer

    async def _make_room(self, channel: DriverChannel, generation: int) -> None:
        """Start the next consumer for as long as half a window is parked in that of the current one.

        Where there is no consumer, the call that awaits its start looks at what was parked meanwhile.
        """
        while (
            generation == self._generation
            and self._consumer_tag is not None
            and self._parked >= (self._prefetch + 1) // 2
        ):
            await self._cancel(channel)
            if generation != self._generation:
                return  # the broker has cancelled it as well: this channel is given up
            self._parked, self._window_start = 0, self._last_tag
            await self._consume(channel)

    async def stop(self) -> None:
        """End this consumer; its channel stays open."""
        self._stopped = True
        if self._channel is not None:
            with suppress(BrokerUnavailable), translating_errors():
                await self._cancel(self._channel)

    async def _cancel(self, channel: DriverChannel) -> None:
        tag, self._consumer_tag = self._consumer_tag, None
        if tag is not None:
            await channel.basic_cancel(tag, timeout=CANCEL_TIMEOUT_S)

    async def _settle(self, delivery: Delivery, settle: Callable[[DriverChannel], Awaitable[object]]) -> bool:
        if delivery.generation != self._generation or self._channel is None:
            return False
        with suppress(BrokerUnavailable), translating_errors():
            await settle(self._channel)
            return True
        return False  # the connection is lost: the broker redelivers it

    async def check(self) -> None:
        """Raise BrokerUnavailable while there is no connection."""
        self.connection.check()


class _Deliveries:
    """Receives for a consumer over one of its connections."""

    def __init__(self, consumer: RabbitMQConsumer, generation: int) -> None:
        self._consumer = consumer
        self._generation = generation

    def on_delivery(self, tag: int, properties: bytes, body: bytes) -> None:
        """Take a message."""
        self._consumer.receive(tag, properties, body, self._generation)

    def on_confirm(self, tag: int, *, multiple: bool, accepted: bool) -> None:
        """Do nothing: nothing is published here."""

    def on_cancelled(self) -> None:
        """Take what comes behind this for stale."""
        self._consumer.cancelled(self._generation)


async def _taken_over(_: DeliveredMessage) -> None:
    raise AssertionError("the driver has received a delivery")
