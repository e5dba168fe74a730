"""The running devices of `serve`, by owner; each runs until it is stopped or refused permanently."""

import asyncio
from collections import Counter as Counts
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import aiohttp

from runtime.logs import logger
from simulator.account import Device, Owner
from simulator.api import Api
from simulator.device import DeviceClient
from simulator.errors import SimulatorError
from simulator.live import send_live
from simulator.metrics import SimulatorMetrics
from simulator.reading import Identity, ReadingOutcome

log = logger("simulator.device_pool")


@dataclass(frozen=True, slots=True)
class RunningDevice:
    """A running device."""

    owner: str
    device: Device
    rate: float
    task: "asyncio.Task[None]"


class PoolFullError(Exception):
    """The pool is full: `limit` devices run, of one owner or of everybody."""

    def __init__(self, scope: Literal["owner", "everybody"], limit: int) -> None:
        super().__init__(f"{limit} devices run for {'you' if scope == 'owner' else 'everybody'}, which is the limit")
        self.scope = scope
        self.limit = limit


class DevicePool:
    """Starts, lists and stops devices, within a limit per owner and one for all."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        metrics: SimulatorMetrics,
        *,
        max_devices: int,
        max_devices_per_user: int,
    ) -> None:
        self._http = http
        self._url = url
        self._max_devices = max_devices
        self._max_devices_per_user = max_devices_per_user
        self._running: dict[str, RunningDevice] = {}
        # Slots reserved for devices that are being registered, by owner.
        self._reserved: Counts[str] = Counts()
        self._metrics = metrics

    @asynccontextmanager
    async def open(self) -> AsyncIterator["DevicePool"]:
        """Stop every device on exit."""
        try:
            yield self
        finally:
            tasks = [running.task for running in self._running.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    @asynccontextmanager
    async def slot(self, owner: str) -> AsyncIterator[None]:
        """Reserve a slot while a device is registered; raises PoolFullError if none is free."""
        if self._reserved[owner] + len(self.of(owner)) >= self._max_devices_per_user:
            raise PoolFullError("owner", self._max_devices_per_user)
        if self._reserved.total() + len(self._running) >= self._max_devices:
            raise PoolFullError("everybody", self._max_devices)
        self._reserved[owner] += 1
        try:
            yield
        finally:
            self._reserved[owner] -= 1
            if not self._reserved[owner]:
                del self._reserved[owner]

    def start(self, owner: str, device: Device, rate: float, token: str) -> RunningDevice:
        """Start a device with its own token, which it renews itself."""
        task = asyncio.create_task(self._run(device, rate, token), name=device.name)
        running = self._running[device.id] = RunningDevice(owner, device, rate, task)
        task.add_done_callback(lambda _: self._on_done(device.id))
        self._metrics.devices.set(len(self._running))
        return running

    def of(self, owner: str) -> list[RunningDevice]:
        """Return the running devices of one owner."""
        return [running for running in self._running.values() if running.owner == owner]

    async def stop(self, owner: str, device_id: str) -> bool:
        """Stop a device; False if the owner runs none of this id."""
        running = self._running.get(device_id)
        if running is None or running.owner != owner:
            return False
        running.task.cancel()
        await asyncio.wait((running.task,))
        return True

    def _on_done(self, device_id: str) -> None:
        self._running.pop(device_id, None)
        self._metrics.devices.set(len(self._running))

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
            log.error("A device failed.", device=device.id, error=str(error))
        except Exception:  # the service goes on without the device
            log.exception("A device failed unexpectedly.", device=device.id)

    def _count(self, _: str, __: str, identities: list[Identity], outcome: ReadingOutcome, ___: float) -> None:
        self._metrics.readings.labels(outcome.value).inc(len(identities))
