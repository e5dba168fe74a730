"""Tracks the unsettled deliveries of one consumer and acknowledges them in order, with as few frames as possible.

Batches finish in any order, and a broker's `multiple` covers every message before the one that it names. A finished
message therefore waits until all before it are finished too. A message whose dead letter cannot be published is parked:
until it is settled, the others are acknowledged one by one.

If the process dies, the broker redelivers every unacknowledged message, done and parked ones too: stored readings end
as duplicates of the key, and a dead letter may be published twice (docs/decisions/0001).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from broker.interface import Consumer, Delivery


class AckTracker:
    """The unsettled deliveries of one consumer, oldest first."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._generation = -1
        # By tag: the delivery, and whether it is done and only waits for those before it.
        self._open: OrderedDict[int, tuple[Delivery, bool]] = OrderedDict()
        self._parked: dict[int, Delivery] = {}
        self._flushing = asyncio.Lock()
        # The number of deliveries since the start.
        self.delivered = 0

    def __len__(self) -> int:
        return len(self._open) + len(self._parked)

    @property
    def unsettled_count(self) -> int:
        """The number of messages that are neither settled nor parked."""
        return len(self._open)

    @property
    def parked(self) -> int:
        """The number of messages that wait for the dead-letter queue."""
        return len(self._parked)

    @property
    def oldest(self) -> Delivery | None:
        """The message that has been open the longest; a parked one only if no other is open."""
        for delivery, done in self._open.values():
            if not done:
                return delivery
        return next(iter(self._parked.values()), None)

    def unfinished(self) -> list[Delivery]:
        """Return what is neither settled nor done: it goes back to the queue when the consumer ends."""
        return [delivery for delivery, done in self._open.values() if not done] + list(self._parked.values())

    def add(self, delivery: Delivery) -> None:
        """Track a delivery. The first one of a new connection drops all earlier ones: the broker redelivers them."""
        self.delivered += 1
        if delivery.generation != self._generation:
            self._generation = delivery.generation
            self._open.clear()
            self._parked.clear()
        self._open[delivery.tag] = (delivery, False)

    def park(self, delivery: Delivery) -> bool:
        """Take a message out of the order, to be settled by itself; False if it is redelivered anyway."""
        if not self._is_current(delivery) or self._open.pop(delivery.tag, None) is None:
            return False
        self._parked[delivery.tag] = delivery
        return True

    def is_parked(self, delivery: Delivery) -> bool:
        """Return whether a message is still parked; one whose connection was lost is not."""
        return self._is_current(delivery) and delivery.tag in self._parked

    async def requeue_parked(self, delivery: Delivery) -> None:
        """Return a parked message to the queue; BrokerError if the broker cannot be reached."""
        await self._consumer.requeue(delivery)
        if self._is_current(delivery):
            self._parked.pop(delivery.tag, None)
        await self.settle(())

    async def settle_parked(self, delivery: Delivery) -> bool:
        """Acknowledge a parked message; False if it is redelivered, BrokerError if the broker cannot be reached."""
        settled = await self._consumer.acknowledge(delivery)
        if self._is_current(delivery):
            self._parked.pop(delivery.tag, None)
        await self.settle(())  # nothing may be parked now: the rest can go with one frame
        return settled

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Mark deliveries as done, and acknowledge what no unfinished delivery holds back.

        BrokerError if the broker cannot be reached: they stay done and are acknowledged with the next call.
        """
        for delivery in deliveries:
            if self._is_current(delivery) and delivery.tag in self._open:
                self._open[delivery.tag] = (delivery, True)
        # One flush at a time: RabbitMQ closes the channel if a message is acknowledged twice.
        async with self._flushing:
            await self._flush(self._done_prefix())

    def _done_prefix(self) -> list[Delivery]:
        """Return the done deliveries that have no unfinished one before them."""
        ready: list[Delivery] = []
        for delivery, done in self._open.values():
            if not done:
                break
            ready.append(delivery)
        return ready

    async def _flush(self, ready: list[Delivery]) -> None:
        # Forgotten only afterwards: what the broker did not get is sent with the next flush.
        if self._parked:
            for delivery in ready:
                await self._consumer.acknowledge(delivery)
                self._forget([delivery])
        elif ready:
            await self._consumer.acknowledge(ready[-1], multiple=True)
            self._forget(ready)

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._is_current(delivery):
                self._open.pop(delivery.tag, None)

    async def flush_done(self) -> None:
        """Acknowledge each done message by itself, before the consumer ends; BrokerError if that fails.

        Everything else is redelivered.
        """
        for delivery, done in list(self._open.values()):
            if done:
                await self._consumer.acknowledge(delivery)
                self._forget([delivery])

    def _is_current(self, delivery: Delivery) -> bool:
        return delivery.generation == self._generation
