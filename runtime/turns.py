"""How much of what connections have sent is processed in one turn of the event loop.

When thousands of devices connect at once, or come back with full buffers, the system delivers all of it in one turn.
Processed together it keeps everything else waiting, such as a reading of a device that has been here all the time.
"""

import asyncio
from collections import deque
from typing import Protocol

from runtime.logs import logger

log = logger("runtime.turns")

# Input that waits altogether. What goes beyond it is processed at once: it would be kept here, and more read behind it.
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Connection(Protocol):
    """A connection whose input waits for its turn."""

    @property
    def has_gone(self) -> bool:
        """True once it is closed, and its input of no use."""

    def hold(self) -> None:
        """Read nothing more."""

    def read_on(self) -> None:
        """Read again."""

    def process(self, data: bytes) -> None:
        """Take input."""

    def fail(self) -> None:
        """End it: its input could not be processed."""


class Turns:
    """Has input processed in the order of its arrival, of `limit` cost in one turn; what begins within it is ended."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._left = limit
        self._waiting: deque[tuple[Connection, bytes, int]] = deque()
        self._waiting_bytes = 0
        self._has_next = False

    def take(self, connection: Connection, data: bytes, cost: int = 1) -> None:
        """Have input of a connection processed, now or in a later turn; until then nothing more is read from it."""
        self._expect_next()
        if self._left > 0 and not self._waiting:
            self._left -= cost
            connection.process(data)
        elif self._waiting_bytes + len(data) > MAX_WAITING_BYTES:
            connection.process(data)
        else:
            connection.hold()
            self._waiting.append((connection, data, cost))
            self._waiting_bytes += len(data)

    def _expect_next(self) -> None:
        if not self._has_next:
            self._has_next = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._has_next = False
        self._left = self._limit
        if self._waiting:
            self._expect_next()
        while self._waiting and self._left > 0:
            connection, data, cost = self._waiting.popleft()
            self._waiting_bytes -= len(data)
            if not connection.has_gone:
                self._left -= cost
                # Before it is processed, which may give the connection to another protocol.
                connection.read_on()
                try:
                    connection.process(data)
                except Exception:  # a bug; the event loop would end the connection, too, and those behind it go on
                    log.exception("Input could not be processed.")
                    connection.fail()
