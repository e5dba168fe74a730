"""Takes messages from one queue of RabbitMQ, over a connection that is opened again after every loss.

Every connection is a generation; what belonged to an earlier one is known to be stale. A consumer that the broker
cancels by itself (its queue was deleted or moved, or, since RabbitMQ 4.3, a message was held for longer than the
consumer time-out) counts as a lost connection from that moment on: its messages are back in the queue, the broker
takes a late acknowledgement without a word and without effect, and may lend more to the cancelled consumer of the open
channel, where nobody would read it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage

from broker.interface import BrokerUnavailable, Delivery
from broker.message import Header, Message
from broker.rabbitmq.connection import DriverChannel, ReconnectingConnection, driver_channel
from broker.rabbitmq.errors import translating_errors
from broker.rabbitmq.topology import Questions, ensure_queue
from broker.topology import Queue

CANCEL_TIMEOUT_S = 5.0
CANCELLED = "the broker has cancelled the consumer: its queue is gone, or a message was held for too long"


class RabbitMQConsumer:
    """Takes messages from one queue with a bounded prefetch."""

    link: ReconnectingConnection

    def __init__(self, queues: tuple[Queue, ...], queue: Queue, prefetch: int) -> None:
        self._queues = queues
        self._queue = queue
        self._prefetch = prefetch
        self._questions = Questions()
        self._channel: DriverChannel | None = None
        # Of the consumer on this channel; None while there is none.
        self._tag: str | None = None
        self._stopped = False
        # What was put aside in this consumer's window, which began after the last tag of the one before it.
        self._aside = self._last_tag = self._window_after = 0
        self._generation = 0
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    @property
    def generation(self) -> int:
        """How many connections there were, the present one included."""
        return self._generation

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Consume over a fresh connection; what an earlier one delivered is dropped."""
        await ensure_queue(connection, self._queues, self._queue, self._questions)
        driver = await driver_channel(channel)
        await driver.basic_qos(prefetch_count=self._prefetch)
        self._generation += 1
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._channel = driver
        generation = self._generation
        driver.on_consumer_cancel_callbacks.add(lambda _: self._cancelled(generation))
        self._aside = self._last_tag = self._window_after = 0
        self._tag = None if self._stopped else await self._consume(driver)

    async def _consume(self, driver: DriverChannel) -> str:
        generation = self._generation

        async def arrived(incoming: DeliveredMessage) -> None:
            if generation == self._generation:
                self._last_tag = max(self._last_tag, incoming.delivery_tag or 0)
                self._arrived.put_nowait(delivery_of(incoming, generation))

        return (await driver.basic_consume(self._queue.name, arrived)).consumer_tag or ""

    def _cancelled(self, generation: int) -> None:
        """Make everything stale that this consumer was delivered, and begin anew on a fresh connection."""
        if generation == self._generation:
            self._generation += 1
            self._channel = self._tag = None
            self.link.reopen(CANCELLED)

    async def get(self) -> Delivery:
        """Wait for the next message of the present connection."""
        while True:
            delivery = await self._arrived.get()
            if delivery.generation == self._generation:
                return delivery

    def get_nowait(self) -> Delivery | None:
        """Return the next message of the present connection if it is there already."""
        while not self._arrived.empty():
            delivery = self._arrived.get_nowait()
            if delivery.generation == self._generation:
                return delivery
        return None

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Settle one message, or all up to it; False when they are delivered again."""
        return await self._settle(delivery, lambda channel: channel.basic_ack(delivery.tag, multiple=multiple))

    async def reject(self, delivery: Delivery) -> None:
        """Reject without requeue: the broker hands it to the dead-letter queue."""
        await self._settle(delivery, lambda channel: channel.basic_reject(delivery.tag, requeue=False))

    async def requeue(self, delivery: Delivery) -> None:
        """Return one message to the queue."""
        await self._settle(delivery, lambda channel: channel.basic_nack(delivery.tag, requeue=True))

    async def park(self, delivery: Delivery) -> None:
        """Make room for others, half a window at a time: end this consumer and begin another on the same channel.

        The window of a consumer cannot be changed, and a quorum queue knows none of a whole channel. What the ended
        one was delivered stays with the channel, and is settled as before.
        """
        channel = self._channel
        if channel is None or delivery.generation != self._generation or delivery.tag <= self._window_after:
            return
        self._aside += 1
        if self._tag is None or self._aside < (self._prefetch + 1) // 2:
            return
        self._aside = 0
        try:
            with translating_errors():
                await self._cancel(channel)
                self._window_after = self._last_tag
                self._tag = await self._consume(channel)
        except BrokerUnavailable as error:
            self.link.reopen(str(error))  # it must not go on without a consumer

    async def stop(self) -> None:
        """End this consumer; its channel stays."""
        self._stopped = True
        if self._channel is not None:
            with suppress(BrokerUnavailable), translating_errors():
                await self._cancel(self._channel)

    async def _cancel(self, channel: DriverChannel) -> None:
        tag, self._tag = self._tag, None
        if tag is not None:
            await channel.basic_cancel(tag, timeout=CANCEL_TIMEOUT_S)

    async def _settle(self, delivery: Delivery, settle: Callable[[DriverChannel], Awaitable[object]]) -> bool:
        if delivery.generation != self._generation or self._channel is None:
            return False
        with suppress(BrokerUnavailable), translating_errors():
            await settle(self._channel)
            return True
        return False  # lost with its connection: the broker delivers it again

    async def check(self) -> None:
        """Raise while there is no connection."""
        self.link.check()


def delivery_of(incoming: DeliveredMessage, generation: int = 0) -> Delivery:
    """Translate what the driver delivers."""
    properties = incoming.header.properties
    headers = plain_headers(properties.headers or {})
    seen = headers.pop("x-delivery-count", 0)
    headers.pop("x-acquired-count", None)  # of RabbitMQ 4: it grows with each look, and what was published has none
    message = Message(bytes(incoming.body), headers, properties.message_id or "")
    return Delivery(message, incoming.delivery_tag or 0, int(seen), generation)


def plain_headers(found: Mapping[str, Any]) -> dict[str, Header]:
    """Keep texts and numbers, and of `x-death`, the broker's own account, when it was and how often."""
    headers: dict[str, Header] = {}
    for name, value in found.items():
        if isinstance(value, (str, int)):
            headers[name] = value
        elif isinstance(value, bytes):
            headers[name] = value.decode("utf-8", "replace")
    deaths = found.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[-1], dict):
        first = deaths[-1]  # the latest stands first
        if hasattr(first.get("time"), "isoformat"):
            headers["x-first-death-time"] = first["time"].isoformat().replace("+00:00", "Z")
        if isinstance(first.get("count"), int):
            headers["x-first-death-count"] = first["count"]
    return headers
