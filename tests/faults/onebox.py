"""A onebox whose whole process group is killed again and again while a fleet streams."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp

from testing.servers.ports import free_port
from tests.integration.services import ROOT

RESTART_AFTER_S = 0.3
STARTS_WITHIN_S = 60.0


def socket_url(data: Path) -> str:
    """Return the URL of a running onebox's mongod."""
    return f"mongodb://{quote(str(data / 'mongodb' / 'mongod.sock'), safe='')}"


class Onebox:
    """A onebox that can be killed and restarted on the same data and port."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._port = free_port()
        self._process: Process | None = None
        # A process that ends by itself fails its scenario at once.
        self.crashes: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def mongodb_url(self) -> str:
        return socket_url(self._data)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @classmethod
    @asynccontextmanager
    async def running(cls, data: Path) -> AsyncIterator["Onebox"]:
        onebox = cls(data)
        await onebox.start()
        try:
            yield onebox
        finally:
            await onebox.kill()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "onebox", "--devices", "0", "--port", str(self._port), "--data", str(self._data)),
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with aiohttp.ClientSession() as session, asyncio.timeout(STARTS_WITHIN_S):
            while True:
                assert self._process.returncode is None, f"onebox ended with {self._process.returncode}"
                try:
                    async with session.get(f"{self.url}/.well-known/jwks.json") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Send SIGKILL to the whole process group at once."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    async def crash(self, random: random.Random) -> None:
        """Kill it at a random time, and start it again."""
        await asyncio.sleep(random.uniform(0, 2))
        await self.kill()
        await asyncio.sleep(RESTART_AFTER_S)
        await self.start()
