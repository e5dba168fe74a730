import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from auth.migrate import migrate
from tests.auth.service import PASSWORD, SECRET

QUICK = {"SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4", "HOST": "127.0.0.1", "PORT": "0", "OPS_PORT": "0"}


@asynccontextmanager
async def process(*arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
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


async def test_the_process_serves_reports_and_stops_cleanly(database_url: str) -> None:
    await migrate(database_url)
    async with process(AUTH_DATABASE_URL=database_url, **QUICK) as auth, aiohttp.ClientSession() as session:
        ops = (await line_with(auth, "Health and metrics are served."))["port"]
        port = (await line_with(auth, "Accounts, devices and tokens are served."))["port"]
        body = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
        async with session.post(f"http://127.0.0.1:{port}/user/signup", json=body) as response:
            assert response.status == 201
        assert (await line_with(auth, "A user signed up."))["logger"] == "auth.audit"
        async with session.get(f"http://127.0.0.1:{ops}/readyz") as response:
            assert (await response.json())["checked"] == ["database"]
        async with session.get(f"http://127.0.0.1:{ops}/metrics") as response:
            assert 'tidegate_auth_signups_total{outcome="created"} 1.0' in await response.text()
        auth.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(auth.wait(), 10) == 0


async def test_missing_settings_are_named() -> None:
    async with process() as auth:
        _, said = await auth.communicate()
        assert auth.returncode == 2
        assert b"AUTH_DATABASE_URL" in said
        assert b"SIGNING_KEY_SECRET" in said


async def test_a_database_that_was_not_migrated_ends_the_start(sqlite_url: str) -> None:
    async with process(AUTH_DATABASE_URL=sqlite_url, **QUICK) as auth:
        _, said = await auth.communicate()
        assert auth.returncode == 1
        assert b"python -m auth migrate" in said


async def test_a_migration_whose_database_is_away_fails() -> None:
    url = "mysql+aiomysql://nobody:hunter22@127.0.0.1:1/none"
    async with process("migrate", AUTH_DATABASE_URL=url) as auth:
        _, said = await auth.communicate()
        assert auth.returncode == 1
        assert b"hunter22" not in said


async def test_an_unknown_command_is_answered_with_the_usage() -> None:
    async with process("serve") as auth:
        _, said = await auth.communicate()
        assert auth.returncode == 2
        assert b"usage: python -m auth" in said
