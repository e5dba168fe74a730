"""PERSISTER → READERS: a copy of what was stored, thinned to the newest of each series in 100 ms.

Transient and unconfirmed: a reader that misses something finds it in MongoDB, and no reader can hold a persister up.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from broker.document import document_ts_ms
from broker.interface import Announcer
from broker.live import live_payloads
from runtime.beside import beside

EVERY_S = 0.1


class ToLive:
    """Announces for one worker."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._newest: dict[bytes, bytes] = {}

    @asynccontextmanager
    async def announced(self) -> AsyncIterator["ToLive"]:
        """Announce every 100 ms, as long as the context lasts."""
        async with beside(self._announce(), name="live"):
            yield self

    def stored(self, newest: Mapping[bytes, bytes]) -> None:
        """Take what a batch has stored: the newest document of each series, by the bytes of its name."""
        for name, document in newest.items():
            known = self._newest.get(name)
            if known is None or document_ts_ms(known) <= document_ts_ms(document):
                self._newest[name] = document

    async def _announce(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            newest, self._newest = self._newest, {}
            for payload in live_payloads(list(newest.values())):
                self._announcer.announce(payload)
