"""BROKER → PERSISTER: gathers deliveries into a batch, by size and by linger."""

import asyncio

from broker.interface import Consumer, Delivery

# A reading with short names and no tags has some 180 bytes.
TYPICAL_DOCUMENT_BYTES = 180


class FromBroker:
    """Takes batches from one consumer."""

    def __init__(self, consumer: Consumer, *, batch_readings: int, linger_s: float, prefetch: int) -> None:
        self._consumer = consumer
        self._batch_readings = batch_readings
        self._linger_s = linger_s
        # With the window empty nothing more can arrive, and lingering would be waiting for nothing.
        self._most_messages = prefetch

    async def batch(self) -> list[Delivery]:
        """Wait for a message, then for more until the batch is full or has lingered long enough."""
        first = await self._consumer.get()
        deliveries = [first]
        readings = _readings(first)
        try:
            async with asyncio.timeout(self._linger_s):
                while readings < self._batch_readings and len(deliveries) < self._most_messages:
                    delivery = await self._consumer.get()
                    deliveries.append(delivery)
                    readings += _readings(delivery)
        except TimeoutError:
            pass
        return deliveries

    async def acknowledge(self, deliveries: list[Delivery]) -> None:
        """Settle a whole batch: everything up to its last message. One batch is written at a time, so none is open."""
        await self._consumer.acknowledge(deliveries[-1], multiple=True)


def _readings(delivery: Delivery) -> int:
    """Estimate how many readings a message holds from its size: opening it comes later, once."""
    return max(1, len(delivery.message.body) // TYPICAL_DOCUMENT_BYTES)
