"""GATEWAY → DEVICE: what one turn of the event loop has for a device leaves in one write.

A confirm releases acknowledgements of many events at once; written one by one they took a quarter of the time.
"""

import asyncio
from typing import Protocol


class Flushable(Protocol):
    """Holds bytes until the turn ends."""

    def flush(self) -> None:
        """Write what is held."""


class Outbox:
    """Remembers who has something to write, and flushes them all when this turn's work is done."""

    def __init__(self) -> None:
        self._holding: list[Flushable] = []

    def add(self, holder: Flushable) -> None:
        """Flush `holder` soon; to be called once for what it holds."""
        if not self._holding:
            asyncio.get_running_loop().call_soon(self.flush)
        self._holding.append(holder)

    def flush(self) -> None:
        """Write everything now."""
        holding, self._holding = self._holding, []
        for holder in holding:
            holder.flush()
