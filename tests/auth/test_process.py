import asyncio
import signal

import aiohttp

from auth.migrate import migrate
from tests.auth.processes import QUICK, line_with, process
from tests.auth.service import PASSWORD


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
