"""How many new connections are served in one turn of the event loop.

When thousands of devices connect at once, the system delivers all their requests in one turn. Handled together they
keep everything else waiting, such as the readings of devices that are connected; and what all of them need at the same
time, the process keeps.
"""

import asyncio
from collections import deque
from typing import Protocol

# Each takes a gateway some 0.5 ms, in this turn and the next. With 32 what is connected waits twice as long.
CONNECTIONS_A_TURN = 8


class NewConnection(Protocol):
    """A connection that has sent something for the first time."""

    # None once it is closed.
    transport: asyncio.Transport | None

    def process(self, data: bytes) -> None:
        """Take what it has sent."""


class Turns:
    """Has the first input of connections processed in the order of its arrival, of so many at most in one turn."""

    def __init__(self) -> None:
        self._left = CONNECTIONS_A_TURN
        self._waiting: deque[tuple[NewConnection, bytes]] = deque()
        self._has_next = False

    def begin(self, connection: NewConnection, data: bytes) -> None:
        """Have the first input of a connection processed, now or in a later turn; until then nothing more is read."""
        self._expect_next()
        if self._left and not self._waiting:
            self._left -= 1
            connection.process(data)
        elif connection.transport is not None:
            connection.transport.pause_reading()
            self._waiting.append((connection, data))

    def _expect_next(self) -> None:
        if not self._has_next:
            self._has_next = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._has_next = False
        self._left = CONNECTIONS_A_TURN
        while self._waiting and self._left:
            connection, data = self._waiting.popleft()
            if connection.transport is None:
                continue
            self._left -= 1
            # Before it is processed, which may give the transport to another protocol.
            connection.transport.resume_reading()
            connection.process(data)
        if self._left < CONNECTIONS_A_TURN:
            self._expect_next()
