"""The devices that `serve` runs, by owner; each lives until it is stopped or refused for good."""

import asyncio
from collections import Counter as Counts
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge

from runtime.logs import logger
from runtime.metrics import preset_labels
from simulator.account import Device, Owner
from simulator.api import Api
from simulator.device import DeviceClient
from simulator.errors import SimulatorError
from simulator.live import send_live
from simulator.point import Identity, Outcome

log = logger("simulator.running")


@dataclass(frozen=True, slots=True)
class Running:
    """One device at work."""

    owner: str
    device: Device
    rate: float
    task: "asyncio.Task[None]"


class FullError(Exception):
    """As many devices run as may: `limit` of one owner, or of everybody."""

    def __init__(self, scope: Literal["owner", "everybody"], limit: int) -> None:
        super().__init__(f"{limit} devices run for {'you' if scope == 'owner' else 'everybody'}, and no more may")
        self.scope = scope
        self.limit = limit


class Devices:
    """Starts, lists and stops devices: so many of one owner, and so many of all together."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        registry: CollectorRegistry,
        *,
        max_devices: int,
        max_devices_per_user: int,
    ) -> None:
        self._http = http
        self._url = url
        self._max_devices = max_devices
        self._max_devices_per_user = max_devices_per_user
        self._running: dict[str, Running] = {}
        # Devices that are being registered, by owner.
        self._starting: Counts[str] = Counts()
        self._gauge = Gauge("tidegate_simulator_devices", "Devices at work", registry=registry)
        self._settled = Counter(
            "tidegate_simulator_readings_total", "Readings by what became of them", ["outcome"], registry=registry
        )
        preset_labels(self._settled, *(outcome.value for outcome in Outcome))

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Devices"]:
        """Stop every device at the end."""
        try:
            yield self
        finally:
            tasks = [running.task for running in self._running.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    @asynccontextmanager
    async def place(self, owner: str) -> AsyncIterator[None]:
        """Hold a place for one more device while it is registered; FullError when there is none."""
        if self._starting[owner] + len(self.of(owner)) >= self._max_devices_per_user:
            raise FullError("owner", self._max_devices_per_user)
        if self._starting.total() + len(self._running) >= self._max_devices:
            raise FullError("everybody", self._max_devices)
        self._starting[owner] += 1
        try:
            yield
        finally:
            self._starting[owner] -= 1
            if not self._starting[owner]:
                del self._starting[owner]

    def start(self, owner: str, device: Device, rate: float, token: str) -> Running:
        """Start a device with its own token, which it renews by itself."""
        task = asyncio.create_task(self._run(device, rate, token), name=device.name)
        running = self._running[device.id] = Running(owner, device, rate, task)
        task.add_done_callback(lambda _: self._ended(device.id))
        self._gauge.set(len(self._running))
        return running

    def of(self, owner: str) -> list[Running]:
        """Return the devices at work for one owner."""
        return [running for running in self._running.values() if running.owner == owner]

    async def stop(self, owner: str, device_id: str) -> bool:
        """Stop a device; False when the owner has none of this id at work."""
        running = self._running.get(device_id)
        if running is None or running.owner != owner:
            return False
        running.task.cancel()
        await asyncio.wait((running.task,))
        return True

    def _ended(self, device_id: str) -> None:
        self._running.pop(device_id, None)
        self._gauge.set(len(self._running))

    async def _run(self, device: Device, rate: float, token: str) -> None:
        current = ""

        async def fresh() -> str:
            nonlocal current
            current = token if not current else await Owner(Api(self._http, self._url), current).device_token(device.id)
            return current

        try:
            async with DeviceClient(self._url, fresh, device.id, http=self._http, on_settled=self._count) as client:
                await send_live(client, device.sensor_type, rate=rate, batch=1)
        except SimulatorError as error:
            log.error("A device ended before its time.", device=device.id, why=str(error))
        except Exception:  # one device's fault is not the service's
            log.exception("A device failed.", device=device.id)

    def _count(self, _: str, __: str, identities: list[Identity], outcome: Outcome, ___: float) -> None:
        self._settled.labels(outcome.value).inc(len(identities))
