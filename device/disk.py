"""BUFFER → DISK: what waits for an answer outlives a power cut, but for what was added in the last second.

What is acknowledged sooner is not synchronised for its own sake: the server has it. A device that is online then writes
to its disk every ten seconds, not every second, which is what wears out flash memory.
"""

import asyncio
import logging
import time

from device.buffer import CHECKPOINT_AFTER, Buffer
from device.errors import BufferFailed

# A reading that waits at two looks in a row is synchronised: a power cut costs what was added since the one before.
LOOK_EVERY_S = 0.5
# How old the next `seq` may be after a power cut; a smaller one than before begins a new count on the server.
SYNC_EVERY_S = 10.0

_log = logging.getLogger("device")


class ToDisk:
    """Synchronises one buffer, in a thread of its own."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._lock = asyncio.Lock()
        self._synced_at = time.monotonic()
        self._last_id = 0

    async def look(self, oldest_id: int | None) -> None:
        """Synchronise if it is time; `oldest_id` is that of the oldest reading that the server does not have yet."""
        has_waited = oldest_id is not None and oldest_id <= self._last_id
        self._last_id = self._buffer.last_id
        is_due = time.monotonic() >= self._synced_at + SYNC_EVERY_S
        if has_waited or is_due or self._buffer.transactions >= CHECKPOINT_AFTER:
            await self.sync()

    async def make_room(self) -> None:
        """Wait for a log that has grown too long, or is being moved into the file."""
        if self._buffer.transactions >= 2 * CHECKPOINT_AFTER or self._lock.locked():
            await self.sync()

    async def sync(self) -> None:
        """Synchronise what was written."""
        async with self._lock:
            if not self._buffer.needs_sync:
                return
            self._synced_at = time.monotonic()
            syncing = asyncio.create_task(self._sync_in_thread())
            try:
                await asyncio.shield(syncing)
            finally:
                # A thread cannot be cancelled: until it has ended, nothing else may use the file.
                if not syncing.done():
                    await asyncio.wait((syncing,))

    async def _sync_in_thread(self) -> None:
        try:
            await asyncio.to_thread(self._buffer.sync)
        except BufferFailed as error:
            _log.warning("The buffer was not written to the disk: %s", error)

    async def close(self) -> None:
        """Close the buffer."""
        async with self._lock:
            self._buffer.close()
