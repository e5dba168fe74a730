"""An outage of the users' database is logged once at its start, with its reason, and once at its end; no tracebacks."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from access.revocations import RevocationList
from access.tokens import KeySet
from auth.migrate import migrate
from auth.tokens import keys as key_module
from database.connection import open_database
from runtime.http.problems import Problem
from testing.servers.mariadb import MariaDBServer
from tests.auth.processes import QUICK, process
from tests.auth.service import Client, make_settings, running

AWAY = "mysql+aiomysql://nobody:hunter22@127.0.0.1:1/none"


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MariaDBServer]:
    """A MariaDB that the test may pause and kill."""
    with MariaDBServer(tmp_path) as server:
        yield server


def told(logs: list[EventDict]) -> Counter[tuple[str, str]]:
    """Count the log lines of the polling loops and the database, without those that clients cause."""
    about = ("database", "signing keys", "revoked tokens", "issuer's keys")
    return Counter((line["log_level"], line["event"]) for line in logs if any(word in line["event"] for word in about))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["killed", "stalled"])
async def test_each_part_tells_an_outage_once_and_its_end_once(
    own_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(key_module, "REREAD_EVERY_S", 0.1)
    url = own_server.create_database()
    await migrate(url)
    begin, end = {
        "killed": (own_server.kill, own_server.restart),
        "stalled": (own_server.pause, own_server.resume),
    }[how]
    asked = 0
    async with running(make_settings(url, database_timeout_seconds=0.8)) as client:

        async def revoked(since: str | None) -> bytes:
            nonlocal asked
            asked += 1
            return await client.service.revocations(since)

        async with (
            KeySet(client.service.jwks, every_s=0.1).kept_fresh(),
            RevocationList(revoked, every_s=0.1).kept_fresh(),
        ):
            token = await client.new_user()
            with capture_logs() as logs:
                calls = [asyncio.create_task(keep_calling(client, token)) for _ in range(8)]
                await asyncio.to_thread(begin)
                try:
                    before = asked
                    await until(lambda: asked > before + 4)
                finally:
                    await asyncio.to_thread(end)
                await until(lambda: told(logs)["info", "The list of revoked tokens is fetched again."] > 0)
                await until(lambda: told(logs)["info", "The signing keys are read again."] > 0)
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)
    assert told(logs) == {
        ("warning", "The database does not answer."): 1,
        ("info", "The database answers again."): 1,
        ("warning", "The signing keys could not be read again."): 1,
        ("info", "The signing keys are read again."): 1,
        ("warning", "The list of revoked tokens could not be fetched."): 1,
        ("info", "The list of revoked tokens is fetched again."): 1,
    }
    reasons = [line.get("why") or line["error"] for line in logs if line["log_level"] == "warning"]
    assert all("does not answer" in reason or "MySQL server" in reason or "0.8 s" in reason for reason in reasons)
    assert not [line for line in logs if "exc_info" in line]


async def keep_calling(client: Client, token: str) -> None:
    while True:
        await client.get("/user/me", token=token)


async def test_a_connection_that_is_lost_when_it_goes_back_to_the_pool_leaves_no_traceback(
    own_server: MariaDBServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_server.create_database()
    await migrate(url)
    async with open_database(url, connections=1, timeout_s=5) as database:
        await database.check()

        async def cut() -> None:
            async with database.connect():
                own_server.kill()
                raise LookupError

        with caplog.at_level(logging.DEBUG):
            with pytest.raises(LookupError):
                await cut()
            with pytest.raises(Problem):
                await database.check()
    assert not [record for record in caplog.records if record.exc_info]


async def test_what_is_no_lost_connection_is_still_told_by_the_pool(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(sqlite_url)
    async with open_database(sqlite_url, connections=1, timeout_s=5) as database:
        pool = database._engine.pool
        for error in (TypeError("a fault"), ConnectionResetError()):
            name = f"{type(pool).__module__}.{type(pool).__name__}"
            logging.getLogger(name).error("in the pool", exc_info=error)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [TypeError]


@pytest.mark.parametrize("arguments", [("migrate",), ()], ids=["migrate", "serve"])
async def test_a_start_without_a_database_says_why_in_a_line(arguments: tuple[str, ...]) -> None:
    async with process(*arguments, AUTH_DATABASE_URL=AWAY, **QUICK) as auth:
        _, said = await auth.communicate()
    assert auth.returncode == 1
    assert b"does not answer" in said
    assert b"127.0.0.1" in said
    for word in (b"Traceback", b'"exception"', b"hunter22"):
        assert word not in said


@pytest.mark.parametrize("secret", ["", "another secret altogether"], ids=["not migrated", "another secret"])
async def test_a_start_that_is_refused_says_why_in_a_line(sqlite_url: str, secret: str) -> None:
    if secret:
        await migrate(sqlite_url)
        async with running(make_settings(sqlite_url)):
            pass
    async with process(
        AUTH_DATABASE_URL=sqlite_url, **QUICK | ({"SIGNING_KEY_SECRET": secret} if secret else {})
    ) as it:
        _, said = await it.communicate()
    assert it.returncode == 1
    assert (b"SIGNING_KEY_SECRET does not open" if secret else b"python -m auth migrate") in said
    assert b'"exception"' not in said
