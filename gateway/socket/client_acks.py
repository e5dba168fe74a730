"""Acknowledgements that a client sends: of the events which a gateway has sent it with an id.

Ids count up per socket, so that no client can acknowledge what another one received. An acknowledgement that nobody
waits for any more is ignored once; one of an id that was not sent, or a second one, is no part of the protocol. Which
of the older ids were acknowledged nobody knows.
"""

import re
from collections.abc import Callable

OnAck = Callable[[bytes | None], None]
"""Called once: with the array of the acknowledgement as it arrived, or with None when the connection has ended."""

# Ids that were given up and whose acknowledgement may still come. Of more, and of all before them, each is ignored: a
# program that has hung answers everything at once.
MAX_LATE = 100

_ACK = re.compile(r"43(\d{1,18})(\[.*\])", re.ASCII | re.DOTALL)


class ClientAcks:
    """The outstanding acknowledgements of one socket."""

    __slots__ = ("_ignored_until", "_late", "_next", "_waiting")

    def __init__(self) -> None:
        self._next = 1
        self._waiting: dict[int, OnAck] = {}
        self._late: dict[int, None] = {}
        self._ignored_until = 0

    def expect(self, on_ack: OnAck) -> int:
        """Return the id to send the next event with; its acknowledgement goes to `on_ack`."""
        number, self._next = self._next, self._next + 1
        self._waiting[number] = on_ack
        return number

    def give_up(self, number: int) -> None:
        """Wait no longer for an acknowledgement; when it comes all the same, it is ignored."""
        if self._waiting.pop(number, None) is not None:
            self._late[number] = None
            if len(self._late) > MAX_LATE:
                self._ignored_until = max(self._ignored_until, oldest := next(iter(self._late)))
                del self._late[oldest]

    def receive(self, packet: str) -> bool:
        """Take an acknowledgement packet; False for one that no event asked for."""
        found = _ACK.fullmatch(packet)
        if found is None:
            return False
        number = int(found[1])
        if (on_ack := self._waiting.pop(number, None)) is not None:
            on_ack(found[2].encode())
            return True
        return self._late.pop(number, 0) is None or 0 < number <= self._ignored_until

    def close(self) -> None:
        """Report the end of the connection for everything that is outstanding."""
        waiting, self._waiting = self._waiting, {}
        for on_ack in waiting.values():
            on_ack(None)
