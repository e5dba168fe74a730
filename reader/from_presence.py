"""BROKER → READER: which devices are connected, when each was last seen, and how fast an owner's readings come in."""

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

# What waits to be heard; a gateway says some 100 things a second while its devices come back.
BOUND = 10_000
FORGET_EVERY_S = 5.0
# Devices whose last sight is remembered, some 200 bytes each; of the others MongoDB knows the last reading.
MAX_SEEN = 100_000


class FromPresence:
    """The present state, as far as it was heard: complete 30 s after the start."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._presence = PresenceState()
        self._seen: OrderedDict[tuple[str, str], int] = OrderedDict()
        # By gateway: when its last `alive` was told and heard, and what that said was accepted.
        self._accepted: dict[str, tuple[int, float, dict[str, int]]] = {}
        self._forget_at = 0.0
        self.check = subscriber.check

    @classmethod
    @asynccontextmanager
    async def heard(cls, broker: Broker) -> AsyncIterator["FromPresence"]:
        """Listen as long as the context lasts."""
        async with broker.subscriber(PRESENCE_EXCHANGE, bound=BOUND) as subscriber:
            heard = cls(subscriber)
            async with background(heard.listen(), name="presence"):
                yield heard

    async def listen(self) -> None:
        """Take in what is said, for ever; what is not understood is left aside, as of a newer version."""
        async for payload in self._subscriber:
            try:
                event = decode_event(payload)
            except msgspec.DecodeError as error:
                log.debug("Presence was not understood.", error=str(error))
                continue
            self._take(event, time.monotonic())

    def connected(self, owner: str, device: str) -> bool:
        """Say whether a device has a session at a gateway that lives."""
        return self._presence.connected(owner, device, time.monotonic())

    def devices_of(self, owner: str) -> set[str]:
        """Return every device of an owner that has a session at a gateway that lives."""
        return self._presence.devices_of(owner, time.monotonic())

    def last_seen_ms(self, owner: str, device: str) -> int | None:
        """Return when a device last had a session, in milliseconds since 1970: now, if it has one; None if unknown."""
        return now_ms() if self.connected(owner, device) else self._seen.get((owner, device))

    def readings_per_second(self, owner: str) -> float:
        """Return how many of an owner's readings all gateways have accepted a second, over their last 5 s."""
        silent_since = time.monotonic() - SILENT_AFTER_S
        counts = [counts.get(owner, 0) for _, heard, counts in self._accepted.values() if heard > silent_since]
        return sum(counts) / ALIVE_EVERY_S

    def _take(self, event: Event, now: float) -> None:
        self._presence.apply(event, now)
        if isinstance(event, Alive):
            told_at, _, counts = self._accepted.get(event.gateway, (0, 0.0, {}))
            if told_at == event.at:  # one `alive` in several events
                counts.update(event.accepted)
            else:
                self._accepted[event.gateway] = (event.at, now, dict(event.accepted))
            for session in event.sessions:
                self._see((session.owner, session.device), event.at)
        else:
            self._see((event.owner, event.device), event.at)
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY_S
            self._presence.forget(now)
            self._accepted = {
                gateway: told for gateway, told in self._accepted.items() if now - told[1] < SILENT_AFTER_S
            }

    def _see(self, device: tuple[str, str], at_ms: int) -> None:
        self._seen[device] = max(at_ms, self._seen.get(device, 0))
        self._seen.move_to_end(device)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
