"""Publishes into the embedded broker's file."""

import asyncio
from collections.abc import Awaitable, Callable

from broker.interface import ConfirmLate
from broker.message import Message
from broker.topology import Exchange

# Returns once the message is durable; BrokerError in every other case.
Enqueue = Callable[[Message, Exchange], Awaitable[None]]
Check = Callable[[], Awaitable[None]]


class EmbeddedPublisher:
    """Publishes into the file; the commit is the confirm."""

    def __init__(self, enqueue: Enqueue, check: Check, confirm_timeout_s: float) -> None:
        self._enqueue = enqueue
        self._timeout_s = confirm_timeout_s
        self._check = check

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the message is durable; BrokerError in every other case."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._enqueue(message, exchange)
        except TimeoutError as error:
            raise ConfirmLate(f"the disk did not confirm within {self._timeout_s:g} s") from error

    async def check(self) -> None:
        """Raise BrokerUnavailable when the file cannot be read."""
        await self._check()
