"""A broker that confirms when the test says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from broker.interface import Consumer, QueueBrowser, Subscriber
from broker.message import Message
from broker.topology import PRESENCE_EXCHANGE, READINGS_EXCHANGE, Exchange, Queue
from testing.waiting import eventually


class HeldPublisher:
    """Keeps every publish open until it is confirmed or failed by hand; once `free`, confirms at once."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.confirms: list[asyncio.Future[None]] = []
        self.failure: Exception | None = None
        self.free = False

    async def publish(self, message: Message, exchange: Exchange) -> None:
        assert exchange == READINGS_EXCHANGE
        self.messages.append(message)
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirms.append(confirm)
        if self.failure is not None:
            raise self.failure
        if self.free:
            confirm.set_result(None)
        await confirm

    async def check(self) -> None:
        return

    @property
    def sizes(self) -> list[int]:
        """How many documents each message has."""
        return [len(message.documents()) for message in self.messages]

    async def published(self, count: int) -> None:
        """Wait until so many messages were published."""

        async def reached() -> bool:
            return len(self.messages) >= count

        await eventually(reached, f"{count} messages are published")

    def confirm(self, number: int) -> None:
        self.confirms[number].set_result(None)

    def fail(self, number: int, error: Exception) -> None:
        self.confirms[number].set_exception(error)

    def release(self) -> None:
        """Confirm what waits and all that will come."""
        self.free = True
        for confirm in self.confirms:
            if not confirm.done():
                confirm.set_result(None)


class HeardAnnouncer:
    """Keeps what was announced."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.dropped = 0

    def broadcast(self, payload: bytes) -> None:
        self.payloads.append(payload)


class HeldBroker:
    """Gives its one held publisher to whoever opens one."""

    def __init__(self) -> None:
        self.held = HeldPublisher()
        self.heard = HeardAnnouncer()

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[HeldPublisher]:
        assert confirm_timeout_s > 0
        yield self.held

    def consumer(self, queue: Queue, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        raise NotImplementedError

    @asynccontextmanager
    async def broadcaster(self, exchange: Exchange) -> AsyncIterator[HeardAnnouncer]:
        assert exchange == PRESENCE_EXCHANGE
        yield self.heard

    def subscriber(self, exchange: Exchange, *, bound: int) -> AbstractAsyncContextManager[Subscriber]:
        raise NotImplementedError

    def browser(self, queue: Queue) -> AbstractAsyncContextManager[QueueBrowser]:
        raise NotImplementedError

    async def declare(self) -> None:
        raise NotImplementedError

    async def depth(self, queue: Queue) -> int:
        raise NotImplementedError
