"""Devices that use the library and free their buffers on receipts alone, each killed and started again at random."""

import asyncio
import json
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from bench.processes import ENDS_WITH_PARENT
from tests.faults.library_device import REFUSED
from tests.integration.device import registered_device
from tests.integration.services import ROOT

KILLED_EVERY_S = 6.0
# In place of 30 s, so that a scenario does not wait for a receipt that was lost.
ASK_AFTER_S = 3.0
# Before the next start of one that was refused for good, as where a gateway's clock is wrong.
REFUSED_AGAIN_S = 3.0
VALUES_PER_LIFE = 1_000_000


class LibraryDevice:
    """One device: its process, whenever it runs, and what all its processes told."""

    def __init__(self, number: int, settings: dict[str, str]) -> None:
        self._settings = settings
        self._lives = number * 1000
        self._process: Process | None = None
        self._sensor_type = ""
        self._counted = ""
        self.idle = asyncio.Event()
        # Whether its present process has sent anything: on a busy machine a start takes seconds.
        self.has_sent = False
        # Readings of the present sensorType, by value, that were given to the library, and that it has taken.
        self.offered: set[int] = set()
        self.sent: set[int] = set()
        self.failures: list[str] = []

    async def run(self) -> None:
        """Keep it running until cancelled."""
        while True:
            self._lives += 1
            first, begin = self._lives * VALUES_PER_LIFE, self._sensor_type
            self._process = await asyncio.create_subprocess_exec(
                *(*ENDS_WITH_PARENT, sys.executable, "-m", "tests.faults.library_device"),
                cwd=ROOT,
                env={**os.environ, **self._settings, "FIRST": str(first), "BEGIN": begin},
                stdin=PIPE,
                stdout=PIPE,
            )
            self.has_sent = False
            if self._sensor_type != begin:
                self._order(self._sensor_type)
            try:
                await self._read(self._process)
            finally:
                self.kill()
                await self._process.wait()
            if self._process.returncode not in (-signal.SIGKILL, REFUSED):
                self.failures.append(f"a device ended with {self._process.returncode}")
            elif self._process.returncode == REFUSED:
                await asyncio.sleep(REFUSED_AGAIN_S)

    async def _read(self, process: Process) -> None:
        assert process.stdout
        async for line in process.stdout:
            fact = json.loads(line)
            for name, values in (("offered", self.offered), ("sent", self.sent)):
                if name in fact and fact[name][0] == self._counted:
                    values.add(fact[name][1])
            self.has_sent = self.has_sent or "sent" in fact
            if "told" in fact:
                self.failures.append(f"a reading was {fact['told']}")
            if "idle" in fact and not self._sensor_type:
                self.idle.set()

    def begin(self, sensor_type: str) -> None:
        """Forget what was sent before, and send under this sensorType."""
        self.offered.clear()
        self.sent.clear()
        self._counted = sensor_type
        self._order(sensor_type)

    def end(self) -> None:
        """Send nothing more; `idle` is set once nothing is pending."""
        self.idle.clear()
        self._order("")

    def _order(self, sensor_type: str) -> None:
        self._sensor_type = sensor_type
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(f"{sensor_type}\n".encode())

    def kill(self) -> None:
        """Kill its process, if it runs; not by `Popen.kill`, which would take its exit status from asyncio."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)


class LibraryFleet:
    """All such devices of a run."""

    def __init__(self, devices: list[LibraryDevice], keep_stored_s: float) -> None:
        self.devices = devices
        self.keep_stored_s = keep_stored_s
        self.sensor_type = ""
        self._may_kill = asyncio.Event()

    @classmethod
    async def registered(
        cls, auth_url: str, url: str, folder: Path, *, devices: int, keep_stored_s: float
    ) -> "LibraryFleet":
        made = []
        for number in range(1, devices + 1):
            email = f"library-{number}@example.com"
            _, device, _ = await registered_device(auth_url, email)
            settings = {"URL": url, "AUTH_URL": auth_url, "EMAIL": email, "DEVICE": device}
            settings |= {"BUFFER": str(folder / f"library-{number}.db"), "KEEP_STORED": str(keep_stored_s)}
            made.append(LibraryDevice(number, settings | {"ASK_AFTER": str(ASK_AFTER_S)}))
        return cls(made, keep_stored_s)

    async def kill_at_random(self, rng: random.Random) -> None:
        """Kill one of them every few seconds until cancelled."""
        while self.devices:
            await asyncio.sleep(rng.uniform(0.5, 1.5) * KILLED_EVERY_S / len(self.devices))
            await self._may_kill.wait()
            if started := [device for device in self.devices if device.has_sent]:
                rng.choice(started).kill()

    def begin(self, sensor_type: str) -> None:
        self._may_kill.set()
        self.sensor_type = sensor_type
        for device in self.devices:
            device.begin(sensor_type)

    async def all_send(self, within_s: float) -> None:
        """Return once every device has sent something under the present sensorType."""
        async with asyncio.timeout(within_s):
            while not all(device.sent for device in self.devices):
                await asyncio.sleep(0.05)

    def forgive(self) -> None:
        """Forget what was sent until now: an operator has removed all of it."""
        for device in self.devices:
            device.sent.clear()

    async def finish(self, within_s: float) -> None:
        """Return once no device has anything pending, and stop sending."""
        self._may_kill.clear()
        for device in self.devices:
            device.end()
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(device.idle.wait() for device in self.devices))

    def sent(self) -> set[int]:
        """Return the values that the library has taken under the present sensorType."""
        return set[int]().union(*(device.sent for device in self.devices))

    def offered(self) -> set[int]:
        """Return those and the ones that it may have taken before its process was killed."""
        return set[int]().union(*(device.offered for device in self.devices))

    def failures(self) -> list[str]:
        """Return what must not happen here: a reading rejected or dropped, a process that ended by itself."""
        return [failure for device in self.devices for failure in device.failures]
