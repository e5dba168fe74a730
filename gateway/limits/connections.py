"""The connection limits of one gateway, by address, owner and device, and the quota of each session.

The address is known before a WebSocket is opened, so its sockets count from there; owner and device are known with the
token.

Everything is in memory and bounded. Each replica counts for itself, so n replicas allow n times as much. What a device
or an owner has sent is remembered after its last connection until its buckets have refilled: reconnecting resets
nothing.
"""

import time
from collections import deque

from gateway.limits.owner_names import OwnerNames
from gateway.limits.rates import LimitExceeded, Rates, Scope, SessionQuota, TokenBuckets
from gateway.settings import GatewaySettings
from runtime.token_bucket import Clock

# Retry-After for a client over its connection limit; dead connections are dropped within 45 s.
RETRY_AFTER_S = 5.0
# How long a device or owner without connections is remembered at least, and how many are checked at each change.
IDLE_TTL_S = 60.0
EVICTIONS_PER_CALL = 4


class TooManyConnections(Exception):
    """A connection limit is reached."""

    def __init__(self, exceeded: LimitExceeded) -> None:
        super().__init__(f"more than {exceeded.limit} connections of this {exceeded.scope}")
        self.exceeded = exceeded


class TooManyDevices(Exception):
    """The owner uses as many device ids as it may."""


class _Usage:
    """The connections and the token buckets of a device or an owner."""

    __slots__ = ("buckets", "connections")

    def __init__(self, rates: Rates) -> None:
        self.buckets = TokenBuckets(rates)
        self.connections = 0


class ConnectionLimits:
    """Counts the connections of one gateway.

    Call `acquire_socket` for each socket and `release_socket` when it ends; `acquire_session` for each session and
    `release_session` when it ends, with its address if it has no socket.
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
        # By owner and device; by owner and None for the owner itself.
        self._usages: dict[tuple[str, str | None], _Usage] = {}
        self._addresses: dict[str, int] = {}
        # Candidates for eviction: the time of the next check, in order, and the key.
        self._idle: deque[tuple[float, tuple[str, str | None]]] = deque()
        self._devices = OwnerNames(settings.max_series_per_owner, self._connected)
        self._sensor_types = OwnerNames(settings.max_sensor_types_per_owner, self._connected)

    def acquire_socket(self, address: str) -> None:
        """Count a socket of an address; TooManyConnections when the address is at its limit."""
        connections = self._addresses.get(address, 0)
        self._require_room("address", connections, self._settings.max_connections_per_address)
        self._addresses[address] = connections + 1

    def release_socket(self, address: str) -> None:
        """Stop counting a socket."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]

    def acquire_session(self, owner: str, device: str, address: str = "") -> SessionQuota:
        """Count a session and return its quota; TooManyConnections or TooManyDevices when a limit is reached."""
        self._evict_idle()
        if address:
            self._require_room("address", self._addresses.get(address, 0), self._settings.max_connections_per_address)
        of_owner, of_device = self._find((owner, None)), self._find((owner, device))
        self._require_room("owner", of_owner.connections, self._settings.max_connections_per_owner)
        self._require_room("device", of_device.connections, self._settings.max_connections_per_device)
        if not self._devices.claim(owner, device):
            raise TooManyDevices
        if address:
            self.acquire_socket(address)
        of_owner.connections += 1
        of_device.connections += 1
        self._usages[owner, None], self._usages[owner, device] = of_owner, of_device
        return SessionQuota(of_device.buckets, of_owner.buckets)

    def release_session(self, owner: str, device: str, address: str = "") -> None:
        """Stop counting a session."""
        if address:
            self.release_socket(address)
        for key in ((owner, None), (owner, device)):
            usage = self._usages[key]
            usage.connections -= 1
            if not usage.connections:
                self._idle.append((self._clock() + IDLE_TTL_S, key))
        self._evict_idle()

    def claim_sensor_type(self, owner: str, sensor_type: str) -> bool:
        """Count a sensorType that a session of the owner uses for the first time; return whether there is room."""
        return self._sensor_types.claim(owner, sensor_type)

    def __len__(self) -> int:
        return len(self._usages)

    def _find(self, key: tuple[str, str | None]) -> _Usage:
        return self._usages.get(key) or _Usage(self._owner_rates if key[1] is None else self._device_rates)

    @staticmethod
    def _require_room(scope: Scope, connections: int, limit: int) -> None:
        if connections >= limit:
            raise TooManyConnections(LimitExceeded(limit, scope, RETRY_AFTER_S))

    def _connected(self, owner: str) -> bool:
        usage = self._usages.get((owner, None))
        return usage is not None and usage.connections > 0

    def _evict_idle(self) -> None:
        now = self._clock()
        for _ in range(EVICTIONS_PER_CALL):
            if not self._idle or self._idle[0][0] > now:
                return
            key = self._idle.popleft()[1]
            usage = self._usages.get(key)
            if usage is None or usage.connections:
                continue
            if usage.buckets.is_refilled(now):
                del self._usages[key]
            else:
                self._idle.append((now + IDLE_TTL_S, key))
