"""Who may connect, how often, and what each may send: the counts of one gateway, by address, owner and device.

An address is known before a WebSocket is opened, so its sockets count from there; an owner and a device with the token.

Everything is in memory and bounded; each replica counts for itself, so n of them allow n times as much. What a device
or an owner has sent is remembered after the last connection, until it no longer matters: coming back resets nothing.
"""

import time
from collections import deque
from collections.abc import Callable

from gateway.limits.rates import Allowance, Limited, Party, Rates
from gateway.owner_names import OwnerNames
from gateway.settings import GatewaySettings

Clock = Callable[[], float]

# How soon one who has too many connections should try again: a dead one is noticed within 45 s.
RETRY_AFTER_S = 5.0
# How long a party without connections is kept at least, and how many are looked at with each change.
KEPT_S = 60.0
LOOKS = 4


class TooMany(Exception):
    """One connection more than may be."""

    def __init__(self, limited: Limited) -> None:
        super().__init__(f"more than {limited.limit} connections of this {limited.scope}")
        self.limited = limited


class TooManyDevices(Exception):
    """The owner names more device ids than may be."""


class _Counted:
    """A party and its connections."""

    __slots__ = ("connections", "party")

    def __init__(self, rates: Rates) -> None:
        self.party = Party(rates)
        self.connections = 0


class Limits:
    """All limits of one gateway.

    Call `arrive` for each socket and `depart` when it ends; `enter` for each session and `leave` when it ends, with its
    address if it has no socket.
    """

    def __init__(self, settings: GatewaySettings, *, clock: Clock = time.perf_counter) -> None:
        self._settings = settings
        self._clock = clock
        self._device_rates = Rates(
            settings.device_readings_per_second,
            settings.device_readings_per_minute,
            settings.device_bytes_per_second,
            settings.device_bytes_per_minute,
        )
        self._owner_rates = Rates(
            settings.owner_readings_per_second,
            settings.owner_readings_per_minute,
            settings.owner_bytes_per_second,
            settings.owner_bytes_per_minute,
        )
        # By owner and device; an owner alone has no device.
        self._counted: dict[tuple[str, str | None], _Counted] = {}
        self._addresses: dict[str, int] = {}
        self._left: deque[tuple[float, tuple[str, str | None]]] = deque()
        self._devices = OwnerNames(settings.max_series_per_owner, self._connected)
        self._sensor_types = OwnerNames(settings.max_sensor_types_per_owner, self._connected)

    def arrive(self, address: str) -> None:
        """Count a socket of an address, whoever it will be; TooMany when there is no room for it."""
        here = self._addresses.get(address, 0)
        self._require_room("address", here, self._settings.max_connections_per_address)
        self._addresses[address] = here + 1

    def depart(self, address: str) -> None:
        """Take a socket out of the counts."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def enter(self, owner: str, device: str, address: str = "") -> Allowance:
        """Count a session and return what it may send; TooMany or TooManyDevices when there is no room for it."""
        self._forget_some()
        if address:
            self._require_room("address", self._addresses.get(address, 0), self._settings.max_connections_per_address)
        of_owner, of_device = self._find((owner, None)), self._find((owner, device))
        self._require_room("owner", of_owner.connections, self._settings.max_connections_per_owner)
        self._require_room("device", of_device.connections, self._settings.max_connections_per_device)
        if not self._devices.take(owner, device):
            raise TooManyDevices
        if address:
            self.arrive(address)
        of_owner.connections += 1
        of_device.connections += 1
        self._counted[owner, None], self._counted[owner, device] = of_owner, of_device
        return Allowance(of_device.party, of_owner.party)

    def leave(self, owner: str, device: str, address: str = "") -> None:
        """Take a session out of the counts."""
        if address:
            self.depart(address)
        for key in ((owner, None), (owner, device)):
            counted = self._counted[key]
            counted.connections -= 1
            if not counted.connections:
                self._left.append((self._clock() + KEPT_S, key))
        self._forget_some()

    def may_name(self, owner: str, sensor_type: str) -> bool:
        """Count a sensorType that a session of the owner has not named yet; return whether there is room for it."""
        return self._sensor_types.take(owner, sensor_type)

    def __len__(self) -> int:
        return len(self._counted)

    def _find(self, key: tuple[str, str | None]) -> _Counted:
        return self._counted.get(key) or _Counted(self._owner_rates if key[1] is None else self._device_rates)

    @staticmethod
    def _require_room(scope: str, connections: int, bound: int) -> None:
        if connections >= bound:
            raise TooMany(Limited(bound, scope, RETRY_AFTER_S))  # type: ignore[arg-type]

    def _connected(self, owner: str) -> bool:
        counted = self._counted.get((owner, None))
        return counted is not None and counted.connections > 0

    def _forget_some(self) -> None:
        now = self._clock()
        for _ in range(LOOKS):
            if not self._left or self._left[0][0] > now:
                return
            key = self._left.popleft()[1]
            counted = self._counted.get(key)
            if counted is None or counted.connections:
                continue
            if counted.party.full(now):
                del self._counted[key]
            else:
                self._left.append((now + KEPT_S, key))
