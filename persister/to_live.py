"""PERSISTER → READERS: broadcasts what was stored, thinned to the newest reading of each series every 100 ms.

Transient and unconfirmed: a reader that misses a broadcast finds the reading in MongoDB, and no reader can hold up a
persister.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from broker.interface import Broadcaster
from broker.live import live_payloads
from runtime.background import background

BROADCAST_EVERY_S = 0.1


class ToLive:
    """Broadcasts for one worker."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster
        self._newest: dict[bytes, tuple[int, bytes]] = {}

    @asynccontextmanager
    async def broadcasting(self) -> AsyncIterator["ToLive"]:
        """Broadcast every 100 ms while the context lasts."""
        async with background(self._broadcast(), name="live"):
            yield self

    def add(self, newest: Mapping[bytes, tuple[int, bytes]]) -> None:
        """Add what a batch has stored: by series name (bytes), the time in ms and the bytes of its newest document."""
        for name, found in newest.items():
            known = self._newest.get(name)
            if known is None or known[0] <= found[0]:
                self._newest[name] = found

    async def _broadcast(self) -> None:
        while True:
            await asyncio.sleep(BROADCAST_EVERY_S)
            newest, self._newest = self._newest, {}
            for payload in live_payloads([document for _, document in newest.values()]):
                self._broadcaster.broadcast(payload)
