"""Consumes from a queue of the embedded broker."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from broker.embedded.queue import QueueState
from broker.interface import BrokerUnavailable, Delivery
from broker.topology import Queue

# How soon messages that another process put into the file (a replayed dead letter) are found, and how often
# dead-lettering into a full queue is retried.
POLL_INTERVAL_S = 1.0


class QueueOperations(Protocol):
    """What a consumer needs of its broker. Every method raises BrokerUnavailable when the file fails."""

    async def deliver(self, state: QueueState, limit: int) -> list[Delivery]:
        """Deliver up to `limit` messages."""

    async def delete(self, state: QueueState, tags: Sequence[int]) -> None:
        """Delete settled messages."""

    async def dead_letter(self, state: QueueState, tag: int, size: int) -> None:
        """Move a message of `size` bytes to the dead-letter queue."""

    async def depth(self, queue: Queue) -> int:
        """Return how many messages are waiting to be delivered."""


class EmbeddedConsumer:
    """Receives messages from one queue, at most `prefetch` unsettled ones at a time."""

    def __init__(self, broker: QueueOperations, state: QueueState, prefetch: int) -> None:
        self._broker = broker
        self._state = state
        self._prefetch = prefetch
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        # Tag to size, in the order of delivery. If two tasks settle the same tag at once, the second one finds it gone
        # from the file and counts nothing.
        self._unsettled: dict[int, int] = {}
        # Those of them that are excluded from the prefetch window.
        self._parked: set[int] = set()
        self._has_capacity = asyncio.Event()
        self._has_capacity.set()

    @property
    def generation(self) -> int:
        """Always 0: unlike a connection, the file is never lost."""
        return 0

    async def fetch(self) -> None:
        """Keep the prefetch window filled until cancelled."""
        while True:
            await self._has_capacity.wait()
            self._state.available.clear()
            if not await self._fetch_batch():
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL_S):
                        await self._state.available.wait()

    async def _fetch_batch(self) -> list[Delivery]:
        # Shielded: a fetch that is cancelled half-way must still requeue what was delivered to it, also if it is
        # cancelled again while the disk is slow.
        fetching = asyncio.ensure_future(self._broker.deliver(self._state, self._capacity()))
        try:
            deliveries = await asyncio.shield(fetching)
        except asyncio.CancelledError:
            fetching.add_done_callback(self._requeue_fetched)
            await asyncio.wait((fetching,))
            raise
        except BrokerUnavailable:
            await asyncio.sleep(POLL_INTERVAL_S)
            return []
        for delivery in deliveries:
            self._unsettled[delivery.tag] = len(delivery.message.body)
            self._arrived.put_nowait(delivery)
        self._update_capacity()
        return deliveries

    def _requeue_fetched(self, fetching: "asyncio.Future[list[Delivery]]") -> None:
        if not fetching.cancelled() and fetching.exception() is None:  # otherwise nothing was delivered
            self._state.requeued.extend(delivery.tag for delivery in fetching.result())
            self._state.available.set()

    def _capacity(self) -> int:
        return max(0, self._prefetch - len(self._unsettled) + len(self._parked))

    def _update_capacity(self) -> None:
        if self._capacity() > 0:
            self._has_capacity.set()
        else:
            self._has_capacity.clear()

    async def get(self) -> Delivery:
        """Wait for the next message."""
        return await self._arrived.get()

    def get_nowait(self) -> Delivery | None:
        """Return the next message if it has arrived already, else None."""
        return None if self._arrived.empty() else self._arrived.get_nowait()

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Settle one message, or all delivered up to it; False, and nothing settled, when they will be redelivered."""
        if delivery.tag not in self._unsettled:
            return False
        order = list(self._unsettled)
        tags = order[: order.index(delivery.tag) + 1] if multiple else [delivery.tag]
        await self._broker.delete(self._state, tags)
        self._forget(tags)
        return True

    async def reject(self, delivery: Delivery) -> None:
        """Dead-letter this message. While the dead-letter queue is full it stays in its queue, undelivered."""
        if delivery.tag in self._unsettled:
            await self._broker.dead_letter(self._state, delivery.tag, self._unsettled[delivery.tag])
            self._forget([delivery.tag])

    async def requeue(self, delivery: Delivery) -> None:
        """Return this message to the queue, behind those requeued before it."""
        if delivery.tag in self._unsettled:
            self._state.requeued.append(delivery.tag)
            self._forget([delivery.tag])
            self._state.available.set()

    async def park(self, delivery: Delivery) -> None:
        """Exclude this message from the prefetch window."""
        if delivery.tag in self._unsettled:
            self._parked.add(delivery.tag)
            self._update_capacity()

    async def stop(self) -> None:
        """Start no further fetch. One that is under way still delivers."""
        self._prefetch = 0
        self._parked.clear()
        self._update_capacity()

    def _forget(self, tags: Sequence[int]) -> None:
        for tag in tags:
            self._unsettled.pop(tag, None)
            self._parked.discard(tag)
        self._update_capacity()

    def requeue_all(self) -> None:
        """Return all unsettled messages to the head of the queue, in their order."""
        self._state.requeued.extendleft(sorted(self._unsettled, reverse=True))
        self._unsettled.clear()
        self._parked.clear()
        self._state.available.set()

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file cannot be read."""
        await self._broker.depth(self._state.queue)
