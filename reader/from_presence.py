"""BROKER → READER: which devices are connected, when each was last seen, and each owner's rate of readings."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from broker.interface import Broker, Subscriber
from broker.presence import ALIVE_EVERY_S, SILENT_AFTER_S, Alive, Event, PresenceState, decode_event
from broker.topology import PRESENCE_EXCHANGE
from runtime.background import background
from runtime.logs import logger
from runtime.times import now_ms

log = logger("reader.presence")

# Events queued by the subscriber; a gateway broadcasts some 100 a second while its devices reconnect.
MAX_QUEUED = 10_000
PRUNE_EVERY_S = 5.0
# Devices whose last-seen time is kept, some 200 bytes each; for others, MongoDB has the last reading.
MAX_LAST_SEEN = 100_000


class FromPresence:
    """The current presence; complete 30 s after the start."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._presence = PresenceState()
        self._last_seen: OrderedDict[tuple[str, str], int] = OrderedDict()
        # By gateway: when its last `alive` was sent and received, and the readings it accepted by owner.
        self._accepted: dict[str, tuple[int, float, dict[str, int]]] = {}
        self._prune_at = 0.0
        self.check = subscriber.check

    @classmethod
    @asynccontextmanager
    async def subscribed(cls, broker: Broker) -> AsyncIterator["FromPresence"]:
        """Subscribe and track presence while the context is open."""
        async with broker.subscriber(PRESENCE_EXCHANGE, bound=MAX_QUEUED) as subscriber:
            presence = cls(subscriber)
            async with background(presence.receive(), name="presence"):
                yield presence

    async def receive(self) -> None:
        """Apply presence events; never returns. Undecodable events, as from a newer version, are ignored."""
        async for payload in self._subscriber:
            try:
                event = decode_event(payload)
            except msgspec.DecodeError as error:
                log.debug("A presence event could not be decoded.", error=str(error))
                continue
            self._apply(event, time.monotonic())

    def connected(self, owner: str, device: str) -> bool:
        """Return whether a device has a session at a live gateway."""
        return self._presence.connected(owner, device, time.monotonic())

    def devices_of(self, owner: str) -> set[str]:
        """Return every device of an owner that has a session at a live gateway."""
        return self._presence.devices_of(owner, time.monotonic())

    def last_seen_ms(self, owner: str, device: str) -> int | None:
        """Return when a device last had a session, in milliseconds since 1970: now if connected; None if unknown."""
        return now_ms() if self.connected(owner, device) else self._last_seen.get((owner, device))

    def readings_per_second(self, owner: str) -> float:
        """Return the readings per second all gateways accepted from an owner, over their last 5 s."""
        silent_since = time.monotonic() - SILENT_AFTER_S
        counts = [
            counts.get(owner, 0) for _, received_at, counts in self._accepted.values() if received_at > silent_since
        ]
        return sum(counts) / ALIVE_EVERY_S

    def _apply(self, event: Event, now: float) -> None:
        self._presence.apply(event, now)
        if isinstance(event, Alive):
            sent_at, _, counts = self._accepted.get(event.gateway, (0, 0.0, {}))
            if sent_at == event.at:  # an `alive` split into several events
                counts.update(event.accepted)
            else:
                self._accepted[event.gateway] = (event.at, now, dict(event.accepted))
            for session in event.sessions:
                self._update_last_seen((session.owner, session.device), event.at)
        else:
            self._update_last_seen((event.owner, event.device), event.at)
        if now >= self._prune_at:
            self._prune_at = now + PRUNE_EVERY_S
            self._presence.forget(now)
            self._accepted = {
                gateway: entry for gateway, entry in self._accepted.items() if now - entry[1] < SILENT_AFTER_S
            }

    def _update_last_seen(self, device: tuple[str, str], at_ms: int) -> None:
        self._last_seen[device] = max(at_ms, self._last_seen.get(device, 0))
        self._last_seen.move_to_end(device)
        if len(self._last_seen) > MAX_LAST_SEEN:
            self._last_seen.popitem(last=False)
