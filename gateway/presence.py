"""GATEWAY → READERS: broadcasts connects and disconnects, and every 5 s the connected devices again, in slices.

The slices carry how many readings were accepted from each owner, so that a reader can compute an owner's rate.
broker/presence.py defines the events and how readers combine them. Nothing here is stored or confirmed, and
broadcasting never delays a device.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.interface import Broadcaster
from broker.presence import ALIVE_EVERY_S, Connected, Disconnected, OpenSession, SessionKey, alive_events, encode_event
from runtime.background import background
from runtime.times import now_ms


def new_gateway_id() -> str:
    """Return an id for the life of one process: a restarted gateway does not own its earlier sessions."""
    return f"gw-{secrets.token_hex(8)}"


class PresenceBroadcaster:
    """Broadcasts the connected devices of one gateway."""

    def __init__(self, broadcaster: Broadcaster, gateway: str, *, alive_every_s: float = ALIVE_EVERY_S) -> None:
        self._broadcaster = broadcaster
        self.gateway = gateway
        self._alive_every_s = alive_every_s
        self._open: set[OpenSession] = set()
        # Readings accepted from each owner since the last broadcast; the event handler counts here.
        self.accepted: defaultdict[str, int] = defaultdict(int)
        self._last_us = 0
        self._turn = 0

    @asynccontextmanager
    async def broadcasting(self) -> AsyncIterator["PresenceBroadcaster"]:
        """Broadcast every 5 s that the gateway is alive, until the context is left."""
        async with background(self._broadcast_alive(), name="presence"):
            yield self

    def connected(self, owner: str, device: str) -> OpenSession:
        """Broadcast a connect and return its session; no other session of this gateway has its connect time."""
        at_us = self._last_us = max(self._last_us + 1, time.time_ns() // 1000)
        session = OpenSession(owner, device, at_us)
        self._open.add(session)
        self._broadcaster.broadcast(
            encode_event(Connected(owner, device, SessionKey(at_us, self.gateway), at_us // 1000))
        )
        return session

    def disconnected(self, session: OpenSession) -> None:
        """Broadcast the end of a session."""
        self._open.discard(session)
        identity = SessionKey(session.connected_us, self.gateway)
        self._broadcaster.broadcast(encode_event(Disconnected(session.owner, session.device, identity, now_ms())))

    async def _broadcast_alive(self) -> None:
        while True:
            accepted = list(self.accepted.items())
            self.accepted.clear()
            for event in alive_events(self.gateway, now_ms(), list(self._open), self._turn, accepted):
                self._broadcaster.broadcast(encode_event(event))
            self._turn += 1
            await asyncio.sleep(self._alive_every_s)
