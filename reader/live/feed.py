"""One client's live feed: its buffer is bounded, and a client that does not read is dropped."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Literal

from aiohttp import web

from access.revocations import RevocationKeys
from reader.metrics import ReaderMetrics

# Buffered for one client, besides the buffers of its socket.
MAX_BUFFERED_BYTES = 256 * 1024
# A single newline: an empty line would end an event, and some clients pass on events without data.
HEARTBEAT = b": heartbeat\n"
# Time for a feed to close, whatever it is doing; with up to 2 s until a revocation is known, less than 5 s.
CLOSE_TIMEOUT_S = 2.0

EndReason = Literal["expired", "revoked", "slow", "gone", "stopping"]
Filter = tuple[str | None, str | None]
"""Device and sensorType; None matches all."""


class Feed:
    """Writes events to one response. `end` may be called at any time."""

    def __init__(
        self,
        wanted: Filter,
        within: Collection[str] | None,
        revocation_keys: RevocationKeys,
        expires_at: int,
        metrics: ReaderMetrics,
        *,
        sees_alarms: bool = False,
        unread_timeout_s: float,
    ) -> None:
        """Create a feed for a token with these revocation keys that expires at `expires_at` (seconds since 1970).

        `within`: the devices that the token is limited to; None without a limit. `sees_alarms`: its scope has them.
        """
        self.wanted = wanted
        self.within = within
        self.sees_alarms = sees_alarms
        # A reading matches at most one of them.
        devices = (wanted[0],) if wanted[0] is not None or within is None else within
        self.filters = frozenset((device, wanted[1]) for device in devices)
        self.revocation_keys = revocation_keys
        self.expires_at = expires_at
        self._metrics = metrics
        self._unread_timeout_s = unread_timeout_s
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._wakeup = asyncio.Event()
        self._timeout: asyncio.Timeout | None = None
        self.ended: EndReason | None = None

    def offer(self, events: bytes) -> None:
        """Buffer events; when the buffer is full, the older ones are dropped."""
        if self._buffered_bytes + len(events) > MAX_BUFFERED_BYTES:
            self._metrics.live_skipped.inc(len(self._buffer))
            self._buffer.clear()
            self._buffered_bytes = 0
        self._buffer.append(events)
        self._buffered_bytes += len(events)
        self._wakeup.set()

    def end(self, reason: EndReason) -> None:
        """End the feed soon; the first reason is kept."""
        self.ended = self.ended or reason
        self._wakeup.set()
        if self._timeout is not None and not self._timeout.expired() and self._timeout.when() is None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + CLOSE_TIMEOUT_S)

    @asynccontextmanager
    async def with_close_timeout(self) -> AsyncIterator[None]:
        """Raise TimeoutError in the context when it still runs `CLOSE_TIMEOUT_S` after `end`."""
        try:
            async with asyncio.timeout(None if self.ended is None else CLOSE_TIMEOUT_S) as self._timeout:
                yield
        finally:
            self._timeout = None

    async def write(self, response: web.StreamResponse, data: bytes) -> None:
        """Write; TimeoutError when the client has not read for too long."""
        async with asyncio.timeout(self._unread_timeout_s):
            await response.write(data)

    async def write_to(self, response: web.StreamResponse) -> None:
        """Write buffered events until the feed ends, then the final event."""
        while self.ended is None:
            await self._wakeup.wait()
            self._wakeup.clear()
            if self._buffer and self.ended is None:
                events, self._buffer, self._buffered_bytes = self._buffer, [], 0
                await self.write(response, b"".join(events))
        if self.ended in ("expired", "revoked"):
            await self.write(response, f"event: {self.ended}\ndata: {{}}\n\n".encode())
