"""Who is connected: what gateways announce on `tidegate.presence`, and how a listener folds it into the present state.

A session is one connection of one device: its connect time in µs and its gateway. Nothing that is announced is kept or
confirmed, so the state must come right by itself:
- a session is open once its `connected` was heard and as long as no `disconnected` of the same session was; other
  sessions of the device are not touched, so a late disconnect cannot end a newer connect, in whatever order they come;
- each gateway sends `alive` every 5 s. Each carries a slice of its open sessions, so that all of them are told again
  every 30 s: a listener that starts late, or missed a `connected`, knows everything after 30 s;
- a session that was not told again for 75 s has ended, its `disconnected` was lost. Ended sessions are remembered as
  long, so that no late `connected` brings one back;
- 15 s without a word from a gateway: its sessions do not count. When it speaks again, they do.

Besides, each `alive` says what the gateway has accepted of each owner since the last one.

A gateway's id is new with each start of its process, so a restarted one does not answer for what it held before.
"""

from collections.abc import Iterator, Sequence

import msgspec

ALIVE_EVERY_S = 5.0
SILENT_AFTER_S = 15.0
# In how many `alive` every session is told once: 30 s.
SLICES = 6
# Two rounds, one of which may be lost, and some time on the way.
FORGET_AFTER_S = 75.0
# What one `alive` carries at most, of sessions and of owners; more become several. Some 100 bytes each.
MAX_SESSIONS = 500


class _Event(msgspec.Struct, frozen=True, rename="camel", tag_field="type"):
    pass


class Session(msgspec.Struct, frozen=True, rename="camel"):
    """One connection: when it began, in µs since 1970, and at which gateway. Both together are its identity."""

    connected_us: int
    gateway: str


class OpenSession(msgspec.Struct, frozen=True, rename="camel", array_like=True):
    """A session as `alive` tells it: `[owner, device, connectedUs]`; the gateway is the sender."""

    owner: str
    device: str
    connected_us: int


class Connected(_Event, frozen=True, tag="connected"):
    """A device has connected. `at` is milliseconds since 1970, by the gateway's clock."""

    owner: str
    device: str
    session: Session
    at: int


class Disconnected(_Event, frozen=True, tag="disconnected"):
    """That session has ended."""

    owner: str
    device: str
    session: Session
    at: int


class Alive(_Event, frozen=True, tag="alive"):
    """The gateway lives, and these of its sessions are open: a slice of them, not all.

    `accepted`: how many readings of which owners it has accepted since its last `alive`.
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
    """Read an event; msgspec.DecodeError when it is none."""
    return _decoder.decode(payload)


def alive_events(
    gateway: str, at: int, sessions: Sequence[OpenSession], turn: int, accepted: Sequence[tuple[str, int]] = ()
) -> Iterator[Alive]:
    """Give what a gateway sends at its `turn`-th alive: one event or more, with the sessions whose turn it is."""
    mine = [session for session in sessions if session.connected_us % SLICES == turn % SLICES]
    for start in range(0, max(1, len(mine), len(accepted)), MAX_SESSIONS):
        part = slice(start, start + MAX_SESSIONS)
        yield Alive(gateway, at, mine[part], list(accepted[part]))


Device = tuple[str, str]


class Presence:
    """The fold. Times are seconds of one clock that never goes back (`time.monotonic`), the listener's own."""

    def __init__(self) -> None:
        # Of each owner's devices: the open sessions and when each was last told.
        self._open: dict[str, dict[str, dict[Session, float]]] = {}
        # Ended sessions and when that was last told.
        self._ended: dict[tuple[Device, Session], float] = {}
        self._heard: dict[str, float] = {}

    def apply(self, event: Event, now: float) -> None:
        """Take one event in."""
        if isinstance(event, Alive):
            self._heard[event.gateway] = now
            for told in event.sessions:
                self._tell((told.owner, told.device), Session(told.connected_us, event.gateway), now)
            return
        self._heard[event.session.gateway] = now
        device = (event.owner, event.device)
        if isinstance(event, Connected):
            self._tell(device, event.session, now)
        else:
            self._end(device, event.session, now)

    def connected(self, owner: str, device: str, now: float) -> bool:
        """Say whether the device has an open session at a gateway that lives."""
        sessions = self._open.get(owner, {}).get(device, {})
        return any(self._counts(session, told, now) for session, told in sessions.items())

    def devices_of(self, owner: str, now: float) -> set[str]:
        """Return every device of an owner that is connected; some 0.5 us each."""
        living = {gateway for gateway, heard in self._heard.items() if now - heard < SILENT_AFTER_S}
        found: set[str] = set()
        for device, sessions in self._open.get(owner, {}).items():
            for session, told in sessions.items():
                if session.gateway in living and now - told < FORGET_AFTER_S:
                    found.add(device)
                    break
        return found

    def devices(self, now: float) -> set[Device]:
        """Return every device that is connected, as (owner, device)."""
        return {(owner, device) for owner in self._open for device in self.devices_of(owner, now)}

    def silent(self, now: float) -> set[str]:
        """Return the gateways that have said nothing for 15 s and are not forgotten yet."""
        return {gateway for gateway, heard in self._heard.items() if now - heard >= SILENT_AFTER_S}

    def forget(self, now: float) -> None:
        """Drop what is too old to matter; call it every few seconds, it bounds the memory."""
        for owner, devices in list(self._open.items()):
            for device, sessions in list(devices.items()):
                for session, told in list(sessions.items()):
                    if now - told >= FORGET_AFTER_S:
                        del sessions[session]
                if not sessions:
                    del devices[device]
            if not devices:
                del self._open[owner]
        self._ended = {ended: told for ended, told in self._ended.items() if now - told < FORGET_AFTER_S}
        self._heard = {gateway: heard for gateway, heard in self._heard.items() if now - heard < FORGET_AFTER_S}

    def _counts(self, session: Session, told: float, now: float) -> bool:
        silent = now - self._heard.get(session.gateway, float("-inf")) >= SILENT_AFTER_S
        return not silent and now - told < FORGET_AFTER_S

    def _tell(self, device: Device, session: Session, now: float) -> None:
        if (device, session) not in self._ended:
            owner, name = device
            self._open.setdefault(owner, {}).setdefault(name, {})[session] = now

    def _end(self, device: Device, session: Session, now: float) -> None:
        self._ended[device, session] = now
        owner, name = device
        devices = self._open.get(owner, {})
        if (sessions := devices.get(name)) is not None:
            sessions.pop(session, None)
            if not sessions:
                del devices[name]
            if not devices:
                del self._open[owner]
