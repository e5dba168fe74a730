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
from broker.presence import (
    ALIVE_EVERY_S,
    SLICES,
    Connected,
    Disconnected,
    OpenSession,
    SessionKey,
    alive_events,
    encode_event,
)
from runtime.background import background
from runtime.times import now_ms

# How often all sessions are broadcast at once, and the pause between their slices.
ANNOUNCE_EVERY_S = 5.0
ANNOUNCE_PAUSE_S = 0.1


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
        # When the last regular `alive` was sent, in milliseconds since 1970.
        self._alive_at = now_ms()
        self._announce_asked = asyncio.Event()

    @asynccontextmanager
    async def broadcasting(self) -> AsyncIterator["PresenceBroadcaster"]:
        """Broadcast every 5 s that the gateway is alive, until the context is left."""
        async with background(self._broadcast_alive(), self._announce(), name="presence"):
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

    def announce(self) -> None:
        """Broadcast all sessions within a second, for a subscriber that has just started; at most every 5 s."""
        self._announce_asked.set()

    async def _announce(self) -> None:
        while True:
            await self._announce_asked.wait()
            self._announce_asked.clear()
            for turn in range(SLICES):
                # With the time of the regular one: it then adds sessions to that and leaves its counts alone.
                for event in alive_events(self.gateway, self._alive_at, list(self._open), turn):
                    self._broadcaster.broadcast(encode_event(event))
                await asyncio.sleep(ANNOUNCE_PAUSE_S)
            await asyncio.sleep(ANNOUNCE_EVERY_S)

    async def _broadcast_alive(self) -> None:
        while True:
            accepted = list(self.accepted.items())
            self.accepted.clear()
            self._alive_at = now_ms()
            for event in alive_events(self.gateway, self._alive_at, list(self._open), self._turn, accepted):
                self._broadcaster.broadcast(encode_event(event))
            self._turn += 1
            await asyncio.sleep(self._alive_every_s)
