"""Devices with the Python library as processes, the services they need, and what became of every reading."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from testing.waiting import eventually
from tests.integration.device import registered_device
from tests.integration.services import ROOT, SECRET, Running, migrated, started

SENSOR = Path(__file__).parent / "python_sensor.py"


@dataclass
class Sensor:
    """A running device and the facts that it printed."""

    process: Process
    facts: list[dict[str, Any]] = field(default_factory=list)

    def numbers(self, kind: str) -> list[int]:
        return [fact[kind] for fact in self.facts if kind in fact]

    async def until(self, kind: str, more: int = 1, within_s: float = 30) -> None:
        """Wait for `more` further facts of this kind."""
        count = len(self.numbers(kind)) + more

        async def reached() -> bool:
            assert self.process.returncode is None or len(self.numbers(kind)) >= count, self.facts[-5:]
            return len(self.numbers(kind)) >= count

        await eventually(reached, f"{more} {kind} of {self.facts[-3:]}", within_s)

    async def ask(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def finish(self, within_s: float = 70) -> None:
        """Have it flush and end."""
        await self.ask("flush")
        assert await asyncio.wait_for(self.process.wait(), within_s) == 0, self.facts[-5:]

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def sensor(url: str, buffer: Path, *, python: str = sys.executable, **settings: str) -> AsyncIterator[Sensor]:
    """Run a device; it is killed at the end if it has not finished."""
    environment = os.environ | {"URL": url, "BUFFER": str(buffer), "START": "1", "RATE": "50"} | settings
    environment |= {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(python, str(SENSOR)), cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE
    )
    running = Sensor(process)
    reading = asyncio.create_task(_read(running))
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def _read(running: Sensor) -> None:
    assert running.process.stdout
    async for line in running.process.stdout:
        running.facts.append(json.loads(line))


@dataclass
class System:
    """Auth, a persister and the settings of gateways."""

    auth: Running
    settings: dict[str, str]
    mongodb: tuple[str, str]

    async def device(self, email: str = "ada@example.com") -> tuple[str, str]:
        """Register a user and a device of that user; return its id and token."""
        _, device, token = await registered_device(self.auth.url, email)
        return device, token

    def values(self, device: str) -> Counter[int]:
        """Return how often each number is stored."""
        url, database = self.mongodb
        with MongoClient[dict[str, Any]](url) as client:
            return Counter(one["value"] for one in client[database]["readings"].find({"_id.device": device}))

    async def accounts_for(self, device: str, *sensors: Sensor) -> None:
        """Check that each reading sent is stored once, or rejected or dropped and told; and nothing else is stored."""
        sent, rejected, dropped, failed = (
            {number for one in sensors for number in one.numbers(kind)}
            for kind in ("sent", "rejected", "dropped", "failed")
        )
        good = {number for number in sent if number % 10}
        assert good
        assert sent - good <= rejected | dropped, "a bad reading was not told"
        assert not rejected & good

        async def stored() -> bool:
            return good - dropped <= set(self.values(device))

        await eventually(stored, f"all of {len(good)} are stored")
        values = self.values(device)
        assert set(values.values()) == {1}, "stored twice"
        assert not failed & set(values), "stored although the buffer did not take it"


@asynccontextmanager
async def system(
    folder: Path, mongodb: tuple[str, str], broker_url: str = "", **auth_settings: str
) -> AsyncIterator[System]:
    """Start auth and a persister."""
    users = f"sqlite+aiosqlite:///{folder / 'users.db'}"
    await migrated(users)
    broker_url = broker_url or f"embedded://{folder / 'queue.db'}"
    secrets = {"AUTH_DATABASE_URL": users, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
    async with (
        started("auth", **secrets, **auth_settings) as auth,
        started("persister", BROKER_URL=broker_url, READINGS_URL=mongodb[0], READINGS_DATABASE=mongodb[1]),
    ):
        yield System(auth, {"BROKER_URL": broker_url, "AUTH_URL": auth.url}, mongodb)
