"""Connections between processes: in order or not, slow, broken, or silent without anyone's being told."""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tests.simulation.loop import Process

Receive = Callable[[Any], None]
Lost = Callable[[], None]


class Network:
    """What all connections of one run have in common."""

    def __init__(self, random: Random) -> None:
        self.random = random
        # Seconds that most packets take less than, and the slowest ones take.
        self.slowest_s = random.choice((0.002, 0.02, 0.3))
        self.lines: list[Line] = []

    def delay_s(self) -> float:
        """Return how long one packet takes."""
        return 0.0002 + self.random.random() ** 4 * self.slowest_s

    def lines_of(self, process: Process) -> "list[Line]":
        """Return the open connections of a process."""
        self.lines = [line for line in self.lines if line.is_open]
        return [line for line in self.lines if process in (line.near.process, line.far.process)]


class End:
    """One end of a connection: who is there, and what is called with what arrives and with the loss."""

    def __init__(self, process: Process, receive: Receive, lost: Lost) -> None:
        self.process = process
        self.receive = receive
        self.lost = lost
        self.last_at = 0.0


class Line:
    """A connection of two processes. What is under way when it breaks is lost."""

    def __init__(self, network: Network, near: End, far: End) -> None:
        self._network = network
        self._loop = asyncio.get_running_loop()
        self.near = near
        self.far = far
        self.is_open = True
        network.lines.append(self)

    def to_far(self, packet: Any, *, in_order: bool = True) -> None:
        """Send a packet from the near end."""
        self._send(self.far, packet, in_order)

    def to_near(self, packet: Any, *, in_order: bool = True) -> None:
        """Send a packet from the far end."""
        self._send(self.near, packet, in_order)

    def _send(self, end: End, packet: Any, in_order: bool) -> None:
        if not self.is_open:
            return
        at = self._loop.time() + self._network.delay_s()
        if in_order:
            at = end.last_at = max(at, end.last_at + 1e-6)
        self._loop.call_at(at, self._arrive, end, packet, context=end.process.context)

    def _arrive(self, end: End, packet: Any) -> None:
        if self.is_open:
            end.receive(packet)

    def close(self) -> None:
        """Close it in order at the near end: what was sent to the far one before arrives there first."""
        at = max(self._loop.time() + self._network.delay_s(), self.far.last_at + 1e-6)
        self._loop.call_at(at, partial(self.break_off, silent_at=self.near), context=self.far.process.context)

    def break_off(self, *, silent_at: End | None = None) -> None:
        """Break it; both ends learn of it a little later, except the one at which it is silent."""
        if not self.is_open:
            return
        self.is_open = False
        for end in (self.near, self.far):
            if end is not silent_at:
                self._loop.call_later(self._network.delay_s(), end.lost, context=end.process.context)
