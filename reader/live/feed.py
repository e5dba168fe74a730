"""One browser's live feed: what waits to be written is bounded, and who does not read is dropped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from aiohttp import web

from access.revocations import RevocationKeys
from reader.metrics import ReaderMetrics

# What waits for one browser at most, beside what its socket holds.
MAX_WAITING_BYTES = 256 * 1024
# One newline: an empty line would end an event, and some clients take one without data for one that has none to read.
HEARTBEAT = b": heartbeat\n"
# What a feed may still take once it is to end, whatever it is at; with the 2 s in which a revocation is known, below 5.
ENDING_S = 2.0

Why = Literal["expired", "revoked", "slow", "gone", "stopping"]
Filter = tuple[str | None, str | None]
"""Device and sensorType; None stands for all."""


class Feed:
    """Hands events on to one response. `end` may be called at any time."""

    def __init__(
        self, wanted: Filter, marks: RevocationKeys, expires_at: int, metrics: ReaderMetrics, *, unread_timeout_s: float
    ) -> None:
        """Make a feed for a token of these marks, which expires at `expires_at` (seconds since 1970)."""
        self.wanted = wanted
        self.marks = marks
        self.expires_at = expires_at
        self._metrics = metrics
        self._unread_timeout_s = unread_timeout_s
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._some = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self.ended: Why | None = None

    def offer(self, events: bytes) -> None:
        """Add events; when too much waits, the older ones are left out: live is what is now."""
        if self._waiting_bytes + len(events) > MAX_WAITING_BYTES:
            self._metrics.live_skipped.inc(len(self._waiting))
            self._waiting.clear()
            self._waiting_bytes = 0
        self._waiting.append(events)
        self._waiting_bytes += len(events)
        self._some.set()

    def end(self, why: Why) -> None:
        """Let the feed end soon; the first reason stands."""
        self.ended = self.ended or why
        self._some.set()
        if self._limit is not None and not self._limit.expired() and self._limit.when() is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + ENDING_S)

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """Cut off with TimeoutError what still goes on `ENDING_S` after the end."""
        try:
            async with asyncio.timeout(None if self.ended is None else ENDING_S) as self._limit:
                yield
        finally:
            self._limit = None

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Write; TimeoutError when nothing was read for too long."""
        async with asyncio.timeout(self._unread_timeout_s):
            await response.write(data)

    async def written_to(self, response: web.StreamResponse) -> None:
        """Write what is offered, until the end."""
        while self.ended is None:
            await self._some.wait()
            self._some.clear()
            if self._waiting and self.ended is None:
                waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
                await self.write(response, b"".join(waiting))
        if self.ended in ("expired", "revoked"):
            await self.write(response, f"event: {self.ended}\ndata: {{}}\n\n".encode())
