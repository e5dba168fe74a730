"""One browser's live feed: what waits to be written is bounded, and who does not read is dropped."""

import asyncio
from typing import Literal

from aiohttp import web

from reader.metrics import ReaderMetrics
from runtime.revocations import Marks

# What waits for one browser at most, beside what its socket holds.
MAX_WAITING_BYTES = 256 * 1024
HEARTBEAT = b": heartbeat\n\n"

Why = Literal["expired", "revoked", "slow", "gone", "stopping"]
Filter = tuple[str | None, str | None]
"""Device and sensorType; None stands for all."""


class Feed:
    """Hands events on to one response. `end` may be called at any time."""

    def __init__(self, wanted: Filter, marks: Marks, metrics: ReaderMetrics) -> None:
        self.wanted = wanted
        self.marks = marks
        self._metrics = metrics
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._some = asyncio.Event()
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

    async def written_to(self, response: web.StreamResponse, *, unread_timeout_s: float) -> None:
        """Write what is offered, until the end; TimeoutError when nothing was read for so long."""
        while self.ended is None:
            await self._some.wait()
            self._some.clear()
            if self._waiting:
                waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
                async with asyncio.timeout(unread_timeout_s):
                    await response.write(b"".join(waiting))
        if self.ended in ("expired", "revoked"):
            async with asyncio.timeout(1):
                await response.write(f"event: {self.ended}\ndata: {{}}\n\n".encode())
