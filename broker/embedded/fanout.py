"""Broadcasting within one process: each subscriber has a bounded buffer of its own that drops the oldest payload."""

import asyncio
from collections import deque

from broker.interface import BrokerRefused


class EmbeddedFanout:
    """One fanout exchange and its subscribers. It drops nothing itself: the subscribers do."""

    def __init__(self) -> None:
        self._subscribers: set[EmbeddedSubscriber] = set()
        self.dropped = 0

    def broadcast(self, payload: bytes) -> None:
        """Pass the payload to every subscriber."""
        for subscriber in self._subscribers:
            subscriber.receive(payload)

    async def until_refused(self) -> BrokerRefused:
        """Wait for ever: within one process nothing is refused."""
        never: asyncio.Future[BrokerRefused] = asyncio.get_running_loop().create_future()
        return await never

    def add(self, subscriber: "EmbeddedSubscriber") -> None:
        """Deliver later payloads to `subscriber`."""
        self._subscribers.add(subscriber)

    def remove(self, subscriber: "EmbeddedSubscriber") -> None:
        """Deliver nothing more to `subscriber`."""
        self._subscribers.discard(subscriber)


class EmbeddedSubscriber:
    """Receives from one exchange; buffers at most `bound` payloads."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._buffer: deque[bytes] = deque()
        self._not_empty = asyncio.Event()
        self.dropped = 0

    def receive(self, payload: bytes) -> None:
        """Buffer a payload; when the buffer is full, drop the oldest."""
        if len(self._buffer) >= self._bound:
            self._buffer.popleft()
            self.dropped += 1
        self._buffer.append(payload)
        self._not_empty.set()

    def __aiter__(self) -> "EmbeddedSubscriber":
        return self

    async def __anext__(self) -> bytes:
        while not self._buffer:
            self._not_empty.clear()
            await self._not_empty.wait()
        return self._buffer.popleft()

    async def check(self) -> None:
        """Never raises: within one process there is no connection to lose."""
