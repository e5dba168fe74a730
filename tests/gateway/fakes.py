"""A fake broker that confirms when the test says so, and a broadcaster that records."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from broker.embedded.fanout import EmbeddedSubscriber
from broker.interface import BrokerRefused, Consumer, Inspector, QueueBrowser, Subscriber
from broker.message import Message
from broker.topology import (
    BACKFILL_EXCHANGE,
    COMMANDS_EXCHANGE,
    PRESENCE_EXCHANGE,
    READINGS_EXCHANGE,
    REPLIES_EXCHANGE,
    STORED_EXCHANGE,
    Exchange,
    Queue,
)
from readings.document import decode_document
from testing.waiting import eventually


class FakePublisher:
    """Confirms a publish when the test calls `confirm` or `confirm_all`, or at once with `auto_confirm`."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.confirms: list[asyncio.Future[None]] = []
        self.failure: Exception | None = None
        self.auto_confirm = False

    async def publish(self, message: Message, exchange: Exchange) -> None:
        assert exchange in (READINGS_EXCHANGE, BACKFILL_EXCHANGE)
        self.messages.append(message)
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.confirms.append(confirm)
        if self.failure is not None:
            raise self.failure
        if self.auto_confirm:
            confirm.set_result(None)
        await confirm

    async def check(self) -> None:
        return

    @property
    def sizes(self) -> list[int]:
        """How many documents each message has."""
        return [len(message.documents()) for message in self.messages]

    async def wait_published(self, count: int) -> None:
        """Wait until `count` messages were published."""

        async def reached() -> bool:
            return len(self.messages) >= count

        await eventually(reached, f"{count} messages are published")

    def confirm(self, number: int) -> None:
        self.confirms[number].set_result(None)

    def fail(self, number: int, error: Exception) -> None:
        self.confirms[number].set_exception(error)

    def confirm_all(self) -> None:
        """Confirm every open publish and all later ones."""
        self.auto_confirm = True
        for confirm in self.confirms:
            if not confirm.done():
                confirm.set_result(None)


class RecordingBroadcaster:
    """Records what was broadcast."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.dropped = 0

    def broadcast(self, payload: bytes) -> None:
        self.payloads.append(payload)

    async def until_refused(self) -> BrokerRefused:
        raise NotImplementedError


class FakeBroker:
    """Has one publisher, `outgoing`, and one broadcaster, `broadcasts`."""

    def __init__(self) -> None:
        self.outgoing = FakePublisher()
        self.broadcasts = RecordingBroadcaster()

    @asynccontextmanager
    async def publisher(self, *exchanges: Exchange, confirm_timeout_s: float = 4.0) -> AsyncIterator[FakePublisher]:
        assert confirm_timeout_s > 0
        yield self.outgoing

    def consumer(self, queue: Queue, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        raise NotImplementedError

    @asynccontextmanager
    async def broadcaster(self, exchange: Exchange) -> AsyncIterator[RecordingBroadcaster]:
        assert exchange in (PRESENCE_EXCHANGE, REPLIES_EXCHANGE)
        yield self.broadcasts if exchange == PRESENCE_EXCHANGE else RecordingBroadcaster()

    @asynccontextmanager
    async def subscriber(self, exchange: Exchange, *, bound: int) -> AsyncIterator[Subscriber]:
        assert exchange in (STORED_EXCHANGE, COMMANDS_EXCHANGE)
        yield EmbeddedSubscriber(bound)

    def browser(self, queue: Queue) -> AbstractAsyncContextManager[QueueBrowser]:
        raise NotImplementedError

    def inspector(self) -> AbstractAsyncContextManager[Inspector]:
        raise NotImplementedError

    async def declare(self) -> None:
        raise NotImplementedError

    async def depth(self, queue: Queue) -> int:
        raise NotImplementedError

    async def consumers(self, queue: Queue) -> int:
        raise NotImplementedError


def documents(fake_broker: FakeBroker) -> list[dict[str, Any]]:
    """Return the documents that were published, decoded."""
    return [decode_document(found) for message in fake_broker.outgoing.messages for found in message.documents()]
