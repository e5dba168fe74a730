"""Browses a queue of RabbitMQ: gets message after message without acknowledging, and releases them at the end.

Released messages return to their queue with a higher delivery count, and their order may change.
"""

from pamqp import commands

from broker.interface import Delivery
from broker.rabbitmq.connection import DriverChannel
from broker.rabbitmq.errors import translating_errors
from broker.rabbitmq.properties import delivery_of
from broker.topology import Queue

TIMEOUT_S = 10.0


class RabbitMQQueueBrowser:
    """One pass over one queue, on a channel of its own that is closed with the pass."""

    def __init__(self, channel: DriverChannel, queue: Queue) -> None:
        self._channel = channel
        self._queue = queue
        # Of the messages in the queue at the first get. Later ones, such as a replayed one that came back, are not
        # visited.
        self._remaining: int | None = None

    def __aiter__(self) -> "RabbitMQQueueBrowser":
        return self

    async def __anext__(self) -> Delivery:
        if self._remaining == 0:
            raise StopAsyncIteration
        with translating_errors():
            incoming = await self._channel.basic_get(self._queue.name, timeout=TIMEOUT_S)
        if not isinstance(incoming.delivery, commands.Basic.GetOk):
            raise StopAsyncIteration
        if self._remaining is None:
            self._remaining = incoming.delivery.message_count or 0
        else:
            self._remaining -= 1
        return delivery_of(incoming)

    async def settle(self, delivery: Delivery) -> None:
        """Acknowledge one message. The reply to the next command on the channel proves that the broker has read it."""
        with translating_errors():
            await self._channel.basic_ack(delivery.tag)
            await self._channel.basic_qos(prefetch_count=0, timeout=TIMEOUT_S)
