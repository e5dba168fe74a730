"""`python -m auth …` in processes of their own, with only the given environment: commands, and the service."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.auth.service import SECRET

# Settings of a service that starts fast, on free ports.
QUICK = {"SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4", "HOST": "127.0.0.1", "PORT": "0", "OPS_PORT": "0"}


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


async def auth(url: str, *arguments: str, stdin: bytes | str = "", **variables: str) -> Ran:
    """Run a command to its end."""
    it = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", *arguments),
        env={"PATH": os.environ["PATH"], "AUTH_DATABASE_URL": url, "BCRYPT_COST": "4"} | variables,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await it.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
    return Ran(it.returncode or 0, out.decode(), err.decode())


async def keys(url: str, *arguments: str, **variables: str) -> Ran:
    """Run `keys …` with the secret of the tests' services."""
    return await auth(url, "keys", *arguments, SIGNING_KEY_SECRET=SECRET, **variables)


@asynccontextmanager
async def process(*arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start `python -m auth` with JSON logs, and kill it at the end if it is still running."""
    it = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", *arguments),
        env={"PATH": os.environ["PATH"], "LOG_FORMAT": "json"} | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield it
    finally:
        if it.returncode is None:
            it.kill()
        await it.communicate()


async def line_with(it: asyncio.subprocess.Process, message: str) -> dict[str, Any]:
    """Wait for a log line; the lines before it are dropped."""
    assert it.stderr is not None
    async with asyncio.timeout(60):
        while raw := await it.stderr.readline():
            line: dict[str, Any] = msgspec.json.decode(raw)
            if line["message"] == message:
                return line
    raise AssertionError(f"the process has ended without saying: {message}")
