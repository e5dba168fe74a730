"""Asks about stored readings once more before they leave the buffer: the server may be restored from a backup.

Every reading is kept for `keep_s` after it was stored, and then asked about. What is not there is sent again, and is a
sign that something was restored: then all others are asked about at once, and not only when it is their turn.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable

from device.buffer import Buffer
from device.errors import NotNow
from device.identity import MAX_ASKED, Ask, Identity, identities, question
from device.kept import KeptRow
from device.reading import Row

# Readings that are due wait for others, for at most this share of `keep_s`, so that questions are few.
TOGETHER = 0.5
# The latest first question after the start.
FIRST_AFTER_S = 10.0
NO_ANSWER_S = 10.0

_log = logging.getLogger("device")


class Recheck:
    """`on_missing` gets readings that were stored and are not any more: they are pending again."""

    def __init__(self, buffer: Buffer, ask: Ask, keep_s: float, on_missing: Callable[[list[Row]], None]) -> None:
        self._buffer = buffer
        self._ask = ask
        self._keep_s = keep_s
        self._on_missing = on_missing
        self._asking: asyncio.Task[None] | None = None
        self._look_at = time.monotonic() + random.uniform(0, min(FIRST_AFTER_S, keep_s))
        # The last reading of this round, as `Kept.oldest` has it, and the end of the round.
        self._after = (0, 0)
        self._until_s = 0

    def check(self, *, busy: bool) -> None:
        """Ask if it is time; call it about once a second. `busy`: what was missing last time is still to be sent."""
        if busy or time.monotonic() < self._look_at or (self._asking is not None and not self._asking.done()):
            return
        if not self._buffer.kept.count or not self._buffer.write_removals():
            self._look_at = time.monotonic() + self._keep_s * TOGETHER
        else:
            self._asking = asyncio.create_task(self._go_on())

    async def close(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def _go_on(self) -> None:
        """Ask about the rest of this round, or until something is missing: that is sent first."""
        kept = self._buffer.kept
        try:
            while rows := kept.oldest(self._after, max(self._until_s, self._due_s()), MAX_ASKED):
                missing = await self._missing(rows)
                self._after = (rows[-1].stored, rows[-1].id)
                if missing:
                    self._until_s = max(self._until_s, kept.clock_s)
                    self._on_missing(self._buffer.return_kept(missing))
                    return
        except NotNow as error:
            _log.info("The server was asked about stored readings and did not answer: %s", error)
            self._look_at = time.monotonic() + max(NO_ANSWER_S * random.uniform(0.5, 1.0), error.retry_after_s)
            return
        self._after, self._until_s = (0, 0), 0
        self._look_at = time.monotonic() + self._keep_s * TOGETHER * random.uniform(0.5, 1.0)

    async def _missing(self, rows: list[KeptRow]) -> list[int]:
        """Ask about these, free those that are there and were kept long enough, and return the ids of the others."""
        named: list[tuple[int, Identity]] = [
            (row.id, (self._buffer.series_named(row.series), row.ts, row.seq)) for row in rows
        ]
        answer = await self._ask(question(identity for _, identity in named))
        if answer is None:  # a server without this call
            self._buffer.kept.remove([row.id for row in rows])
            return []
        found = set(identities(answer))
        missing = [number for number, identity in named if identity not in found]
        if missing:
            _log.warning("%d readings were stored and are not any more: they are sent again", len(missing))
        due_s, gone = self._due_s(), set(missing)
        self._buffer.kept.remove([row.id for row in rows if row.stored <= due_s and row.id not in gone])
        return missing

    def _due_s(self) -> int:
        return int(self._buffer.kept.clock_s - self._keep_s)
