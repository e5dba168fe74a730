"""Device presence: the events that gateways broadcast on `tidegate.presence`, and the state that subscribers derive.

A session is one connection of one device, identified by its connect time in µs and its gateway. Broadcasts are neither
stored nor confirmed, so the state must heal by itself:
- a session is open from its `connected` until a `disconnected` of the same session. Other sessions of the device are
  unaffected, so a late disconnect cannot end a newer connect, in whatever order they arrive;
- each gateway sends `alive` every 5 s. Each carries a slice of its open sessions, so that every session is repeated
  every 30 s: a subscriber that starts late, or missed a `connected`, is complete after 30 s;
- a session that was not repeated for 75 s has ended: its `disconnected` was lost. Ended sessions are remembered equally
  long, so that a late `connected` cannot reopen one;
- while a gateway has sent nothing for 15 s, its sessions do not count as open. They do again once it sends something.

Each `alive` also carries how many readings of each owner the gateway has accepted since the previous one.

A gateway's id is new with each start of its process, so a restarted gateway does not keep its former sessions open.
"""

from collections.abc import Iterator, Sequence

import msgspec

ALIVE_EVERY_S = 5.0
SILENT_AFTER_S = 15.0
# Every session is in one of this many consecutive `alive`s: 30 s.
SLICES = 6
# Two rounds of 30 s, one of which may be lost, plus delays.
FORGET_AFTER_S = 75.0
# Bound of one `alive`, for sessions and for owners; more are split over several. Some 100 bytes each.
MAX_SESSIONS = 500


class _Event(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    pass


class SessionKey(msgspec.Struct, frozen=True, rename="camel"):
    """The identity of one connection: its connect time, in µs since 1970, and its gateway."""

    connected_us: int
    gateway: str


class OpenSession(msgspec.Struct, frozen=True, rename="camel", array_like=True):
    """A session in an `alive`: `[owner, device, connectedUs]`; the gateway is the sender."""

    owner: str
    device: str
    connected_us: int


class Connected(_Event, frozen=True, tag="connected"):
    """A device has connected. `at` is milliseconds since 1970, by the gateway's clock."""

    owner: str
    device: str
    session: SessionKey
    at: int


class Disconnected(_Event, frozen=True, tag="disconnected"):
    """The session has ended. `at` is milliseconds since 1970, by the gateway's clock."""

    owner: str
    device: str
    session: SessionKey
    at: int


class Alive(_Event, frozen=True, tag="alive"):
    """The gateway is alive, and these of its sessions are open: a slice of them, not all.

    `accepted`: (owner, number of readings) accepted since its previous `alive`.
    """

    gateway: str
    at: int
    sessions: list[OpenSession] = []
    accepted: list[tuple[str, int]] = []


Event = Connected | Disconnected | Alive
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode_event(event: Event) -> bytes:
    """Return the event as JSON."""
    return _encoder.encode(event)


def decode_event(payload: bytes) -> Event:
    """Decode an event; msgspec.DecodeError when it is malformed."""
    return _decoder.decode(payload)


def alive_events(
    gateway: str, at: int, sessions: Sequence[OpenSession], turn: int, accepted: Sequence[tuple[str, int]] = ()
) -> Iterator[Alive]:
    """Yield the `turn`-th `alive` of a gateway: one event or more, with the slice of `sessions` for this turn."""
    due = [session for session in sessions if session.connected_us % SLICES == turn % SLICES]
    for start in range(0, max(1, len(due), len(accepted)), MAX_SESSIONS):
        part = slice(start, start + MAX_SESSIONS)
        yield Alive(gateway, at, due[part], list(accepted[part]))


Device = tuple[str, str]


class PresenceState:
    """The state derived from the events. Times are seconds of the subscriber's monotonic clock."""

    def __init__(self) -> None:
        # By owner and device: the open sessions and when each was last reported.
        self._open: dict[str, dict[str, dict[SessionKey, float]]] = {}
        # Ended sessions and when that was last reported.
        self._ended: dict[tuple[Device, SessionKey], float] = {}
        # By gateway: when it last sent anything.
        self._last_alive: dict[str, float] = {}

    def apply(self, event: Event, now: float) -> None:
        """Apply one event, received at `now`."""
        if isinstance(event, Alive):
            self._last_alive[event.gateway] = now
            for session in event.sessions:
                self._refresh((session.owner, session.device), SessionKey(session.connected_us, event.gateway), now)
            return
        self._last_alive[event.session.gateway] = now
        device = (event.owner, event.device)
        if isinstance(event, Connected):
            self._refresh(device, event.session, now)
        else:
            self._end(device, event.session, now)

    def connected(self, owner: str, device: str, now: float) -> bool:
        """Return whether the device has an open session at a gateway that is alive."""
        sessions = self._open.get(owner, {}).get(device, {})
        return any(self._is_open(session, seen_at, now) for session, seen_at in sessions.items())

    def newest(self, owner: str, device: str, now: float) -> SessionKey | None:
        """Return the device's newest open session, by connect time, at a gateway that is alive; None without one."""
        sessions = self._open.get(owner, {}).get(device, {})
        found = [session for session, seen_at in sessions.items() if self._is_open(session, seen_at, now)]
        return max(found, key=lambda session: (session.connected_us, session.gateway), default=None)

    def devices_of(self, owner: str, now: float) -> set[str]:
        """Return an owner's connected devices; takes about 0.5 us per device."""
        alive = {gateway for gateway, at in self._last_alive.items() if now - at < SILENT_AFTER_S}
        found: set[str] = set()
        for device, sessions in self._open.get(owner, {}).items():
            for session, seen_at in sessions.items():
                if session.gateway in alive and now - seen_at < FORGET_AFTER_S:
                    found.add(device)
                    break
        return found

    def devices(self, now: float) -> set[Device]:
        """Return all connected devices, as (owner, device)."""
        return {(owner, device) for owner in self._open for device in self.devices_of(owner, now)}

    def forget(self, now: float) -> None:
        """Drop expired entries; call it every few seconds to bound the memory."""
        for owner, devices in list(self._open.items()):
            for device, sessions in list(devices.items()):
                for session, seen_at in list(sessions.items()):
                    if now - seen_at >= FORGET_AFTER_S:
                        del sessions[session]
                if not sessions:
                    del devices[device]
            if not devices:
                del self._open[owner]
        self._ended = {ended: seen_at for ended, seen_at in self._ended.items() if now - seen_at < FORGET_AFTER_S}
        self._last_alive = {gateway: at for gateway, at in self._last_alive.items() if now - at < FORGET_AFTER_S}

    def _is_open(self, session: SessionKey, seen_at: float, now: float) -> bool:
        silent = now - self._last_alive.get(session.gateway, float("-inf")) >= SILENT_AFTER_S
        return not silent and now - seen_at < FORGET_AFTER_S

    def _refresh(self, device: Device, session: SessionKey, now: float) -> None:
        if (device, session) not in self._ended:
            owner, name = device
            self._open.setdefault(owner, {}).setdefault(name, {})[session] = now

    def _end(self, device: Device, session: SessionKey, now: float) -> None:
        self._ended[device, session] = now
        owner, name = device
        devices = self._open.get(owner, {})
        if (sessions := devices.get(name)) is not None:
            sessions.pop(session, None)
            if not sessions:
                del devices[name]
            if not devices:
                del self._open[owner]
