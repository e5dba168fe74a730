"""Looks into a queue of RabbitMQ: gets message after message without acknowledging, and lets them go at the end.

Messages that are let go return to their queue with a higher delivery count, and their order may change.
"""

from pamqp import commands

from broker.interface import Delivery
from broker.rabbitmq.connection import DriverChannel
from broker.rabbitmq.consumer import delivery_of
from broker.rabbitmq.errors import translating_errors
from broker.topology import Queue

TIMEOUT_S = 10.0


class RabbitMQQueueBrowser:
    """One walk through one queue, over a channel of its own that lives as long as the walk."""

    def __init__(self, channel: DriverChannel, queue: Queue) -> None:
        self._channel = channel
        self._queue = queue
        # What was in the queue at the first look; what a replay brings back meanwhile is not met again.
        self._left: int | None = None

    def __aiter__(self) -> "RabbitMQQueueBrowser":
        return self

    async def __anext__(self) -> Delivery:
        if self._left == 0:
            raise StopAsyncIteration
        with translating_errors():
            incoming = await self._channel.basic_get(self._queue.name, timeout=TIMEOUT_S)
        if not isinstance(incoming.delivery, commands.Basic.GetOk):
            raise StopAsyncIteration
        self._left = (incoming.delivery.message_count or 0) if self._left is None else self._left - 1
        return delivery_of(incoming)

    async def settle(self, delivery: Delivery) -> None:
        """Acknowledge one message. The channel's next answer shows that the broker has read it."""
        with translating_errors():
            await self._channel.basic_ack(delivery.tag)
            await self._channel.basic_qos(prefetch_count=0, timeout=TIMEOUT_S)
