"""BROKER → PERSISTER: gathers what has arrived into batches, whose size so follows the depth of the queue.

Whoever is ready to write takes all that has arrived by then, up to a full batch: a quiet queue is stored without
delay, a deep one in large batches; while one is written the next gathers in the consumer's window. No timer decides.
"""

from broker.interface import Consumer, Delivery

# A reading with short names and no tags has some 180 bytes.
TYPICAL_DOCUMENT_BYTES = 180
# What one bulk write may have at most: a third of what MongoDB takes in a message.
MAX_BATCH_BYTES = 16 * 1024 * 1024
# A message that was delivered so often and never settled may be what ends its workers: it is written alone.
ALONE_FROM = 3


class FromBroker:
    """Takes batches from one consumer."""

    def __init__(self, consumer: Consumer, *, batch_readings: int) -> None:
        self._consumer = consumer
        self._batch_readings = batch_readings
        # What was taken and does not go with the batch before it.
        self._next: Delivery | None = None

    async def first(self) -> None:
        """Return when there is something to take."""
        if self._next is None:
            self._next = await self._consumer.get()

    def batch(self) -> list[Delivery]:
        """Take what has arrived, up to a full batch; to be called after `first`."""
        found: list[Delivery] = []
        readings = size = 0
        while readings < self._batch_readings and size < MAX_BATCH_BYTES:
            delivery = self._next or self._consumer.get_nowait()
            self._next = None
            if delivery is None:
                break
            if found and not _together(found[0], delivery):
                self._next = delivery
                break
            found.append(delivery)
            size += len(delivery.message.body)
            # An estimate: opening the message comes later, once.
            readings += max(1, len(delivery.message.body) // TYPICAL_DOCUMENT_BYTES)
        return found


def _together(first: Delivery, other: Delivery) -> bool:
    """Say whether two deliveries may be written in one batch: none is suspect, and one connection delivered both."""
    alone = first.delivery_count >= ALONE_FROM or other.delivery_count >= ALONE_FROM
    return not alone and first.generation == other.generation
