"""PERSISTER → READERS: a copy of what was stored, thinned to the newest of each series in 100 ms.

Transient and unconfirmed: a reader that misses something finds it in MongoDB, and no reader can hold a persister up.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from broker.interface import Broadcaster
from broker.live import live_payloads
from runtime.background import background

EVERY_S = 0.1


class ToLive:
    """Announces for one worker."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster
        self._newest: dict[bytes, tuple[int, bytes]] = {}

    @asynccontextmanager
    async def announced(self) -> AsyncIterator["ToLive"]:
        """Announce every 100 ms, as long as the context lasts."""
        async with background(self._announce(), name="live"):
            yield self

    def stored(self, newest: Mapping[bytes, tuple[int, bytes]]) -> None:
        """Take what a batch has stored: the newest document of each series and its time, by the bytes of its name."""
        for name, found in newest.items():
            known = self._newest.get(name)
            if known is None or known[0] <= found[0]:
                self._newest[name] = found

    async def _announce(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            newest, self._newest = self._newest, {}
            for payload in live_payloads([document for _, document in newest.values()]):
                self._broadcaster.broadcast(payload)
