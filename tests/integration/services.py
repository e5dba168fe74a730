"""Starts services as an operator does: `python -m NAME` with an environment, ready once `/readyz` is 200."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from testing.servers.ports import free_port

ROOT = Path(__file__).parent.parent.parent
SECRET = "a-secret-of-the-tests-only"
# A start takes 2 s; on a machine that does other work at the same time it may take a minute.
READY_WITHIN_S = 90.0
# Tests of a promised stop look at the clock themselves.
ENDS_WITHIN_S = 60.0


@dataclass
class Running:
    """One started process."""

    name: str
    process: Process = field(repr=False)
    port: int
    ops_port: int
    settings: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), ENDS_WITHIN_S)

    async def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def started(
    name: str, *, until: str = "readyz", python: str = sys.executable, **settings: str
) -> AsyncIterator[Running]:
    """Start a service (the name may have arguments) and wait until it is ready, or only until it is alive (`healthz`).

    It is killed at the end if a test has not stopped it.
    """
    port, ops_port = int(settings.get("PORT", 0)) or free_port(), free_port()
    environment = {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "OPS_HOST": "127.0.0.1",
        "OPS_PORT": str(ops_port),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        python, "-m", *name.split(), cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL
    )
    running = Running(name, process, port, ops_port, settings)
    try:
        await _answers(running, until)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _answers(running: Running, question: str) -> None:
    answer, loop = "nothing", asyncio.get_running_loop()
    deadline = loop.time() + READY_WITHIN_S
    timeout = aiohttp.ClientTimeout(total=READY_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while loop.time() < deadline:
            if running.process.returncode is not None:
                raise AssertionError(f"{running.name} ended with {running.process.returncode} before it was ready")
            try:
                async with session.get(f"http://127.0.0.1:{running.ops_port}/{question}") as response:
                    answer = await response.text()
                    if response.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(f"{running.name} is not {question} within {READY_WITHIN_S:g} s: {answer}")


async def migrated(database_url: str) -> None:
    """Run `python -m auth migrate`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "auth", "migrate", cwd=ROOT, env={**os.environ, "AUTH_DATABASE_URL": database_url}
    )
    assert await process.wait() == 0


async def run_auth_keys(settings: dict[str, str], *arguments: str) -> str:
    """Run `python -m auth keys …` as an operator does, and return its output; AssertionError if it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", "keys", *arguments),
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"auth keys {arguments[0]}: {err.decode()}"
    return out.decode()
