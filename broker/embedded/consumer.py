"""Publishing into and consuming from the embedded broker's file."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from broker.embedded.queue import QueueState
from broker.interface import BrokerUnavailable, ConfirmLate, Delivery
from broker.message import Message
from broker.topology import Exchange

if TYPE_CHECKING:
    from broker.embedded.broker import EmbeddedBroker

# What another process put into the file (a replayed dead letter) is found within this time, and what the dead letters
# refused is tried again as often.
LOOK_EVERY_S = 1.0


class EmbeddedPublisher:
    """Publishes into the file; the commit is the confirm."""

    def __init__(self, broker: "EmbeddedBroker", confirm_timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = confirm_timeout_s

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the message is durable; BrokerError in every other case."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._broker.add(message, exchange)
        except TimeoutError as error:
            raise ConfirmLate(f"the disk did not confirm within {self._timeout_s:g} s") from error

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file does not answer."""
        await self._broker.check()


class EmbeddedConsumer:
    """Takes messages from one queue, at most `prefetch` at a time."""

    def __init__(self, broker: "EmbeddedBroker", state: QueueState, prefetch: int) -> None:
        self._broker = broker
        self._state = state
        self._prefetch = prefetch
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        # Lent and not settled: tag to size, in the order of delivery. One that is settled twice at once is found gone
        # in the file by the second, and counts nothing.
        self._lent: dict[int, int] = {}
        # Those of them that do not count.
        self._aside: set[int] = set()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def generation(self) -> int:
        """The file is never lost as a connection is."""
        return 0

    async def fetch(self) -> None:
        """Keep the window filled for as long as the consumer is open."""
        while True:
            await self._room.wait()
            self._state.waiting.clear()
            deliveries = await self._take()
            if not deliveries:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._state.waiting.wait()

    async def _take(self) -> list[Delivery]:
        # Shielded: a window that is cancelled half-way must still know what was lent to it.
        taking = asyncio.ensure_future(self._broker.take(self._state, self._free()))
        try:
            deliveries = await asyncio.shield(taking)
        except asyncio.CancelledError:
            with suppress(BrokerUnavailable):  # nothing was lent then
                self._state.returned.extend(delivery.tag for delivery in await taking)
                self._state.waiting.set()
            raise
        except BrokerUnavailable:
            await asyncio.sleep(LOOK_EVERY_S)
            return []
        for delivery in deliveries:
            self._lent[delivery.tag] = len(delivery.message.body)
            self._arrived.put_nowait(delivery)
        self._mark()
        return deliveries

    def _free(self) -> int:
        return max(0, self._prefetch - len(self._lent) + len(self._aside))

    def _mark(self) -> None:
        if self._free() > 0:
            self._room.set()
        else:
            self._room.clear()

    async def get(self) -> Delivery:
        """Wait for the next message."""
        return await self._arrived.get()

    def get_nowait(self) -> Delivery | None:
        """Return the next message if it is there already."""
        return None if self._arrived.empty() else self._arrived.get_nowait()

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Settle one message, or all that were delivered up to it; False when they are delivered again."""
        if delivery.tag not in self._lent:
            return False
        order = list(self._lent)
        tags = order[: order.index(delivery.tag) + 1] if multiple else [delivery.tag]
        await self._broker.remove(self._state, tags)
        self._settled(tags)
        return True

    async def reject(self, delivery: Delivery) -> None:
        """Hand this message to the dead letters. While they have no room it stays in the queue, lent to nobody."""
        if delivery.tag in self._lent:
            await self._broker.bury(self._state, delivery.tag, self._lent[delivery.tag])
            self._settled([delivery.tag])

    async def requeue(self, delivery: Delivery) -> None:
        """Return this message behind those that came back before it."""
        if delivery.tag in self._lent:
            self._state.returned.append(delivery.tag)
            self._settled([delivery.tag])
            self._state.waiting.set()

    async def park(self, delivery: Delivery) -> None:
        """Let this message take no room."""
        if delivery.tag in self._lent:
            self._aside.add(delivery.tag)
            self._mark()

    async def stop(self) -> None:
        """Fetch nothing more. What is being fetched at this moment still arrives."""
        self._prefetch = 0
        self._aside.clear()
        self._mark()

    def _settled(self, tags: Sequence[int]) -> None:
        for tag in tags:
            self._lent.pop(tag, None)
            self._aside.discard(tag)
        self._mark()

    def give_all_back(self) -> None:
        """Return what was not settled to the head of the queue, in its order."""
        self._state.returned.extendleft(sorted(self._lent, reverse=True))
        self._lent.clear()
        self._aside.clear()
        self._state.waiting.set()

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file does not answer."""
        await self._broker.depth(self._state.queue)
