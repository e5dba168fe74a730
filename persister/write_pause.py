"""A short pause of this process' writes, for a change after which the next insert would create a collection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

# How long to wait for writes in flight, and for how long new ones wait at most.
DRAIN_S = 0.5
PAUSE_S = 1.0


class WritePause:
    """Counts the writes in flight, and lets new ones wait during a pause. A pause that takes too long has no effect."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._writes = 0

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Do a write, after the pause if there is one."""
        await self._open.wait()
        self._writes += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._writes -= 1
            if not self._writes:
                self._idle.set()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Let new writes wait while the context lasts, at most PAUSE_S; those in flight end first, within DRAIN_S."""
        self._open.clear()
        limit = asyncio.get_running_loop().call_later(PAUSE_S, self._open.set)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await self._idle.wait()
            yield
        finally:
            limit.cancel()
            self._open.set()
