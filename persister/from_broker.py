"""BROKER → PERSISTER: gathers what has arrived into batches, whose size so follows the depth of the queue.

Whoever is ready to write takes all that has arrived by then, up to a full batch, and where that is little waits once
for more: no device waits for what is written here, and a write costs as much for ten readings as for five hundred.
While one batch is written the next gathers in the consumer's window.
"""

import asyncio
import time
from collections.abc import Callable

from broker.interface import Consumer, Delivery

# A reading with short names and no tags has some 180 bytes.
TYPICAL_DOCUMENT_BYTES = 180
# No more is added to a batch that has so much, as one of large documents may. The driver takes 16 MiB in one command,
# and a message has up to 1.
MAX_BATCH_BYTES = 14 * 1024 * 1024
# A message that was delivered so often and never settled may be what ends its workers: it is written alone.
ALONE_FROM = 3
# Whoever lingers looks so often whether more can still come.
LOOK_EVERY_S = 0.01


class FromBroker:
    """Takes batches from one consumer."""

    def __init__(
        self, consumer: Consumer, *, batch_readings: int, linger_ms: int, prefetch: int, held: Callable[[], int]
    ) -> None:
        self._consumer = consumer
        self._prefetch = prefetch
        self._held = held
        self._batch_readings = batch_readings
        self._linger_s = linger_ms / 1000
        # What was taken and does not go with the batch before it.
        self._next: Delivery | None = None
        # What was taken for a batch that nobody waits for any more.
        self._left: list[Delivery] = []

    async def first(self) -> None:
        """Return when there is something to take."""
        if self._next is None:
            self._next = await self._consumer.get()

    async def batch(self) -> list[Delivery]:
        """Take what has arrived, up to a full batch; of less, also what comes while it lingers.

        To be called after `first`. When it is cancelled, what it has taken is in the rest.
        """
        found: list[Delivery] = []
        self._left = found
        lingers_until = time.monotonic() + self._linger_s
        # Once the window is used up nothing comes before something is settled: many small messages are a backlog, too.
        while not self._take(found) and self._held() + len(found) < self._prefetch:
            left_s = lingers_until - time.monotonic()
            if left_s <= 0:
                break
            await asyncio.sleep(min(left_s, LOOK_EVERY_S))
        self._left = []
        return found

    def rest(self) -> list[Delivery]:
        """Return what has arrived and is in no batch yet: it goes back to the queue with its consumer."""
        found, self._left = self._left, []
        if self._next is not None:
            found.append(self._next)
            self._next = None
        while (delivery := self._consumer.get_nowait()) is not None:
            found.append(delivery)
        return found

    def _take(self, found: list[Delivery]) -> bool:
        """Add what has arrived; return whether the batch is full."""
        size = sum(len(delivery.message.body) for delivery in found)
        # An estimate: opening the message comes later, once.
        readings = sum(_readings(delivery) for delivery in found)
        while readings < self._batch_readings and size < MAX_BATCH_BYTES:
            delivery = self._next or self._consumer.get_nowait()
            self._next = None
            if delivery is None:
                return False
            if found and not _together(found[0], delivery):
                self._next = delivery
                return True
            found.append(delivery)
            size += len(delivery.message.body)
            readings += _readings(delivery)
        return True


def _readings(delivery: Delivery) -> int:
    return max(1, len(delivery.message.body) // TYPICAL_DOCUMENT_BYTES)


def _together(first: Delivery, other: Delivery) -> bool:
    """Say whether two deliveries may be written in one batch: none is suspect, and one connection delivered both."""
    alone = first.delivery_count >= ALONE_FROM or other.delivery_count >= ALONE_FROM
    return not alone and first.generation == other.generation
