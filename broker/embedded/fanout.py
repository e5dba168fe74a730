"""Announcing and listening within one process: each listener has a bounded queue of its own, the oldest is dropped."""

import asyncio
from collections import deque


class EmbeddedFanout:
    """One fanout exchange: what is announced, and who listens. It can drop nothing itself: listeners do."""

    def __init__(self) -> None:
        self._subscribers: set[EmbeddedSubscriber] = set()
        self.dropped = 0

    def broadcast(self, payload: bytes) -> None:
        """Hand the payload to every listener."""
        for subscriber in self._subscribers:
            subscriber.receive(payload)

    def join(self, subscriber: "EmbeddedSubscriber") -> None:
        """Let `subscriber` hear what is announced from now on."""
        self._subscribers.add(subscriber)

    def leave(self, subscriber: "EmbeddedSubscriber") -> None:
        """Let `subscriber` hear nothing more."""
        self._subscribers.discard(subscriber)


class EmbeddedSubscriber:
    """Hears one exchange; at most `bound` payloads wait."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._heard: deque[bytes] = deque()
        self._some = asyncio.Event()
        self.dropped = 0

    def receive(self, payload: bytes) -> None:
        """Keep a payload until it is asked for, and drop the oldest when too many wait."""
        if len(self._heard) >= self._bound:
            self._heard.popleft()
            self.dropped += 1
        self._heard.append(payload)
        self._some.set()

    def __aiter__(self) -> "EmbeddedSubscriber":
        return self

    async def __anext__(self) -> bytes:
        while not self._heard:
            self._some.clear()
            await self._some.wait()
        return self._heard.popleft()

    async def check(self) -> None:
        """Whoever is in this process is heard."""
