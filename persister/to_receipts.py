"""PERSISTER → GATEWAYS: broadcasts which readings are stored, of devices that asked to be told, every 100 ms.

Called after the write, which is majority and journaled: a receipt is never early. It may be lost, with this process or
on the way; then the device asks with `POST /readings/stored`.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache

from broker.headers import RECEIPTS_HEADER
from broker.interface import Broadcaster
from broker.message import Message
from broker.receipts import ranges_of, stored_payloads
from persister.batch import Outcome
from persister.known_series import key_of_name
from readings.document import series_and_position
from readings.keys import Position
from runtime.background import background

BROADCAST_EVERY_S = 0.1
# Names of series kept decoded, some 500 bytes each.
MAX_NAMES = 16_384
_STORED = (Outcome.STORED, Outcome.DUPLICATE)


class ToReceipts:
    """Broadcasts for one worker."""

    def __init__(self, broadcaster: Broadcaster) -> None:
        self._broadcaster = broadcaster
        # By the bytes of the series: positions that are stored and not yet announced.
        self.waiting: defaultdict[bytes, list[Position]] = defaultdict(list)

    @asynccontextmanager
    async def broadcasting(self) -> AsyncIterator["ToReceipts"]:
        """Broadcast every 100 ms while the context lasts, and once more at its end."""
        try:
            async with background(self._broadcast(), name="receipts"):
                yield self
        finally:
            self._flush()

    def add(self, message: Message, documents: Sequence[bytes], outcomes: Sequence[Outcome]) -> None:
        """Add the readings of a message that are stored and whose devices asked: for most messages none."""
        header = message.headers.get(RECEIPTS_HEADER)
        if header is None:
            return
        for start, end in ranges_of(header, len(documents)):
            for document, outcome in zip(documents[start:end], outcomes[start:end], strict=True):
                if outcome in _STORED:
                    series, position = series_and_position(document)
                    self.waiting[series].append(position)

    async def _broadcast(self) -> None:
        while True:
            await asyncio.sleep(BROADCAST_EVERY_S)
            self._flush()

    def _flush(self) -> None:
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, defaultdict(list)
        # In order: the bytes begin with owner and device, so a gateway finds what belongs to a device in one place.
        for payload in stored_payloads((_names(series), positions) for series, positions in sorted(waiting.items())):
            self._broadcaster.broadcast(payload)


@lru_cache(MAX_NAMES)
def _names(series: bytes) -> tuple[str, str, str]:
    key = key_of_name(series)
    return key["owner"], key["device"], key["sensorType"]
