"""What one consumer has delivered and is not settled: acknowledged in order, with as few frames as that takes.

Batches end in any order, and a broker's `multiple` covers everything before a message. So what is done waits until all
before it is done, too. A message whose dead letter cannot be published is parked: from then on, and until it is
settled, the others are acknowledged one by one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from broker.interface import Consumer, Delivery


class Ledger:
    """The open deliveries of one consumer, oldest first."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._generation = -1
        # By tag: whether it is done and only waits for those before it.
        self._open: OrderedDict[int, tuple[Delivery, bool]] = OrderedDict()
        self._parked: dict[int, Delivery] = {}
        self._telling = asyncio.Lock()
        # How many deliveries there were, ever.
        self.delivered = 0

    def __len__(self) -> int:
        return len(self._open) + len(self._parked)

    @property
    def open(self) -> int:
        """How many messages are not settled and not parked."""
        return len(self._open)

    @property
    def parked(self) -> int:
        """How many messages wait for the dead-letter queue."""
        return len(self._parked)

    @property
    def oldest(self) -> Delivery | None:
        """The message that has been open for longest."""
        for delivery, done in self._open.values():
            if not done:
                return delivery
        return next(iter(self._parked.values()), None)

    def held(self) -> list[Delivery]:
        """Return what is neither settled nor done: when the consumer ends, it goes back to the queue."""
        return [delivery for delivery, done in self._open.values() if not done] + list(self._parked.values())

    def add(self, delivery: Delivery) -> None:
        """Note a delivery. A new connection's first one ends all earlier ones: the broker delivers them again."""
        self.delivered += 1
        if delivery.generation != self._generation:
            self._generation = delivery.generation
            self._open.clear()
            self._parked.clear()
        self._open[delivery.tag] = (delivery, False)

    def park(self, delivery: Delivery) -> bool:
        """Take a message out of the order: it is settled on its own, later. False when it is delivered again anyhow."""
        if not self._mine(delivery) or self._open.pop(delivery.tag, None) is None:
            return False
        self._parked[delivery.tag] = delivery
        return True

    def holds(self, delivery: Delivery) -> bool:
        """Say whether a message is parked still, and not gone with its connection."""
        return self._mine(delivery) and delivery.tag in self._parked

    async def give_back_parked(self, delivery: Delivery) -> None:
        """Return a parked message to the queue; BrokerError when the broker could not be told."""
        await self._consumer.requeue(delivery)
        if self._mine(delivery):
            self._parked.pop(delivery.tag, None)
        await self.settle(())

    async def settle_parked(self, delivery: Delivery) -> bool:
        """Acknowledge a parked message; False when it is delivered again, BrokerError when the broker was not told."""
        told = await self._consumer.acknowledge(delivery)
        if self._mine(delivery):
            self._parked.pop(delivery.tag, None)
        await self.settle(())  # what could not go with it may go now
        return told

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Note that these are done, and acknowledge what nothing holds back."""
        for delivery in deliveries:
            if self._mine(delivery) and delivery.tag in self._open:
                self._open[delivery.tag] = (delivery, True)
        # One at a time: RabbitMQ ends the channel of whoever acknowledges a message twice.
        async with self._telling:
            await self._tell(self._done_and_first())

    def _done_and_first(self) -> list[Delivery]:
        ready: list[Delivery] = []
        for delivery, done in self._open.values():
            if not done:
                break
            ready.append(delivery)
        return ready

    async def _tell(self, ready: list[Delivery]) -> None:
        # Forgotten only afterwards: what the broker could not be told of is told with the next attempt.
        if self._parked:
            for delivery in ready:
                await self._consumer.acknowledge(delivery)
                self._forget([delivery])
        elif ready:
            await self._consumer.acknowledge(ready[-1], multiple=True)
            self._forget(ready)

    def _forget(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self._mine(delivery):
                self._open.pop(delivery.tag, None)

    async def settle_what_is_done(self) -> None:
        """Acknowledge what only waits for its turn, one by one: the consumer ends, and the rest is delivered again."""
        for delivery, done in list(self._open.values()):
            if done:
                await self._consumer.acknowledge(delivery)
                self._forget([delivery])

    def _mine(self, delivery: Delivery) -> bool:
        return delivery.generation == self._generation
