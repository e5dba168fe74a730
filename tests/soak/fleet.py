"""A thousand devices that flap, renew their tokens, are revoked and replaced, and alter their sensors."""

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from readings.place import Place
from simulator.account import Account as SimulatorAccount
from simulator.account import NewDevice
from simulator.api import Api
from simulator.device import DeviceClient
from simulator.errors import ApiError, DeviceRefusedError, SimulatorError, UnavailableError
from simulator.reading import DeviceReading, Identity, ReadingOutcome
from tests.soak.oracle import AGED, Account, check_of, value_of

DEVICES_PER_OWNER = 20
PASSWORD = "correct horse battery"
# Means, of one device.
EVENT_EVERY_S, MAX_READINGS = 4.0, 3
STAYS_S, AWAY_S, MOST_AWAY_S = 120.0, 5.0, 30.0
ALTERED_EVERY_S = 300.0
# Devices that connect for the first time in a second: each takes a token first.
FIRST_A_SECOND = 30
AGED_PART = 0.01
AGED_BY_MS = (24 * 60 - 2) * 60_000
# SensorTypes of a device: one after the other, and then the first again.
SENSORS = 8
UNITS = ("C", "K", "bar", "V")
# At the end: to send what is pending, and how often to connect again for it.
FLUSH_S, LAST_TRIES = 30.0, 4
STATE = "fleet.json"


@dataclass
class Counts:
    """What the fleet did."""

    connected: int = 0
    connects: int = 0
    retried: int = 0
    refused: int = 0
    altered: int = 0
    revoked: int = 0
    replaced: int = 0
    renewed: int = 0
    # Calls that were refused for now five times: a machine that is too busy, not a failure.
    unavailable: int = 0
    # Answers that a good reading must not get.
    rejected: int = 0


class Owner(SimulatorAccount):
    """A person with devices, and what people do with them besides."""

    async def alter(self, device: str, change: dict[str, Any]) -> None:
        """Change fields of a device."""
        await self._call("PATCH", f"/devices/{device}", dict[str, Any], body=change)

    async def revoke(self, device: str) -> None:
        """Revoke all tokens of a device."""
        await self._delete(f"/devices/{device}/tokens")

    async def remove(self, device: str) -> None:
        """Delete a device."""
        await self._delete(f"/devices/{device}")

    async def _delete(self, path: str) -> None:
        for attempt in range(2):
            headers = {"Authorization": f"Bearer {self._token}"}
            async with self._api.http.delete(self._api.url + path, headers=headers) as response:
                if response.status in (204, 404):
                    return
            if response.status in (429, 503):
                raise UnavailableError(f"DELETE {path}: {response.status}")
            if response.status != 401 or attempt:
                raise ApiError(response.status, f"DELETE {path}: {response.status}")
            await self.claims()  # logs in again


@dataclass
class Device:
    """One registered device. What it has not got acknowledged survives its connections."""

    owner: Owner
    account: Account
    counts: Counts
    sensor: int = 0
    pending: dict[tuple[str, Identity], DeviceReading] = field(default_factory=dict)

    async def token(self) -> str:
        """Return a new token; UnavailableError for now."""
        self.counts.renewed += 1
        return await self.owner.device_token(self.account.device)

    def settled(self, _: str, sensor_type: str, identities: list[Identity], outcome: ReadingOutcome, __: float) -> None:
        """Note what the gateway has answered."""
        for identity in identities:
            self.pending.pop((sensor_type, identity), None)
        if outcome is ReadingOutcome.REJECTED:
            self.counts.rejected += len(identities)
        elif sensor_type != AGED:
            self.account.acknowledge(seq for _, seq in identities)

    def event(self, rng: random.Random) -> list[DeviceReading]:
        """Return the readings of one event."""
        now = time.time_ns() // 1_000_000
        unit, location = UNITS[self.sensor % len(UNITS)], Place(48.0 + self.sensor / 100, 11.0)
        if rng.random() < AGED_PART:
            return [DeviceReading(AGED, 1, now - AGED_BY_MS, rng.randrange(1 << 30), unit=unit)]
        sensor_type, count = f"sensor-{self.sensor}", rng.randint(1, MAX_READINGS)
        check = check_of(self.account.owner, self.account.device, sensor_type, now)
        first = self.account.begin(count)
        return [
            DeviceReading(sensor_type, value_of(number, check), now, number, unit=unit, location=location)
            for number in range(first, first + count)
        ]

    async def alter(self) -> None:
        """Go on with another sensor: its type, unit and place."""
        self.sensor = (self.sensor + 1) % SENSORS
        change = {"sensorType": f"sensor-{self.sensor}", "location": {"lat": 48.0 + self.sensor / 100, "lon": 11.0}}
        await self.owner.alter(self.account.device, change)
        self.counts.altered += 1

    async def revoke(self) -> None:
        """Revoke all its tokens, as its owner does when one may be known to others."""
        await self.owner.revoke(self.account.device)
        self.counts.revoked += 1


class Fleet:
    """All devices of a run, and the accounts of all that there ever were."""

    def __init__(self, url: str, http: aiohttp.ClientSession, seed: int) -> None:
        self.url = url
        self.counts = Counts()
        self.devices: list[Device] = []
        self.accounts: list[Account] = []
        self.owners: list[Owner] = []
        self.rng = random.Random(seed)
        self.failures: deque[str] = deque(maxlen=10)
        self._api = Api(http, url)
        self.http = http
        self._ending = asyncio.Event()

    async def begin(self, devices: int, saved: Path) -> None:
        """Sign up owners and register devices, or go on with those of an earlier run, however many they were."""
        past = _saved(saved)
        self.accounts = [Account.loaded(one) for one in past["accounts"]]
        devices = len(past["devices"]) or devices
        for number in range(-(-devices // DEVICES_PER_OWNER)):
            self.owners.append(Owner(self._api, f"soak-{number}@example.com", PASSWORD))
            await self.owners[-1].open()
        by_device = {account.device: account for account in self.accounts}
        for number in range(devices):
            owner = self.owners[number // DEVICES_PER_OWNER]
            if past["devices"]:
                one = past["devices"][number]
                device = Device(owner, by_device[one["device"]], self.counts, one["sensor"])
            else:
                device = await self._registered(owner)
            self.devices.append(device)

    def save(self, file: Path) -> None:
        """Write what a later run goes on with."""
        devices = [{"device": one.account.device, "sensor": one.sensor} for one in self.devices]
        text = json.dumps({"accounts": [account.saved() for account in self.accounts], "devices": devices})
        part = file.with_suffix(".part")
        part.write_text(text)
        part.replace(file)

    async def _registered(self, owner: Owner) -> Device:
        made = await owner.register(NewDevice("sensor-0", Place(48.0, 11.0)))
        account = Account((await owner.claims()).owner, made.id)
        self.accounts.append(account)
        return Device(owner, account, self.counts)

    async def run(self) -> None:
        """Run every device until `end`."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(len(self.devices)):
                tasks.create_task(self._keep(number), name=f"device {number}")

    def end(self) -> None:
        """Let every device send what it still has, and stop."""
        self._ending.set()

    async def replace(self, number: int) -> None:
        """Delete a device, and register another in its place; what it had not sent is gone with it."""
        device = self.devices[number]
        fresh = await self._registered(device.owner)
        self.devices[number] = fresh
        await device.owner.remove(device.account.device)
        self.counts.replaced += 1

    async def _keep(self, number: int) -> None:
        await self._pause(self.rng.random() * len(self.devices) / FIRST_A_SECOND)
        tries = 0
        while not self._ending.is_set() or (self.devices[number].pending and (tries := tries + 1) < LAST_TRIES):
            device = self.devices[number]
            try:
                await self._connected(number, device)
            except DeviceRefusedError:
                self.counts.refused += 1
            except UnavailableError:
                self.counts.unavailable += 1
            except SimulatorError as error:
                if self.devices[number] is device:
                    self.failures.append(str(error))
            # Not `_pause`, which ends at once when the fleet does.
            await asyncio.sleep(0.5 if self._ending.is_set() else min(self.rng.expovariate(1 / AWAY_S), MOST_AWAY_S))

    async def _connected(self, number: int, device: Device) -> None:
        """One stay: what is pending first, then new readings, until it is over or the device is replaced."""
        until = time.monotonic() + self.rng.expovariate(1 / STAYS_S)
        async with DeviceClient(
            self.url,
            device.token,
            device.account.device,
            http=self.http,
            on_settled=device.settled,
            on_retried=self._retried,
            on_connection=self._connection,
        ) as client:
            self.counts.connects += 1
            if pending := list(device.pending.values()):
                await client.send(pending)
            while not self._ending.is_set() and time.monotonic() < until and self.devices[number] is device:
                if self.rng.random() < EVENT_EVERY_S / ALTERED_EVERY_S:
                    await device.alter()
                made = device.event(self.rng)
                device.pending |= {(one.sensor_type, (one.ts, one.seq)): one for one in made}
                await client.send(made)
                await self._pause(self.rng.uniform(0.5, 1.5) * EVENT_EVERY_S)
            if self.devices[number] is not device:
                device.pending.clear()
            elif self._ending.is_set():
                await _within(FLUSH_S, client.flush)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    def _retried(self, readings: int) -> None:
        self.counts.retried += readings

    def _connection(self, opened: bool) -> None:
        self.counts.connected += 1 if opened else -1


def _saved(file: Path) -> dict[str, Any]:
    saved: dict[str, Any] = {"accounts": [], "devices": []}
    return json.loads(file.read_text()) if file.exists() else saved


async def _within(seconds: float, call: Callable[[], Awaitable[Any]]) -> None:
    """Await a call for so long at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await call()
