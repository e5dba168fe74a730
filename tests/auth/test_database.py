import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import func, insert, select
from structlog.testing import capture_logs

from auth.app import auth_service
from auth.migrate import migrate
from database.connection import open_database
from database.tables import signing_keys
from runtime.http.problems import Problem
from testing.servers.mariadb import MariaDBServer
from tests.auth.service import Answer, Client, make_settings, running

# What the service has when nobody sets it.
DEADLINE_S = 2.5


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MariaDBServer]:
    """A MariaDB that the test may pause and kill."""
    with MariaDBServer(tmp_path) as server:
        yield server


async def timed_log_in(client: Client) -> tuple[Answer, float]:
    started = time.monotonic()
    answer = await client.log_in()
    return answer, time.monotonic() - started


def assert_unavailable(answer: Answer) -> None:
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) >= 1


async def until_ready(client: Client) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.service.check()
            except Problem:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_server_that_hangs_costs_at_most_3_seconds_and_recovers(own_server: MariaDBServer) -> None:
    url = own_server.create_database()
    await migrate(url)
    async with running(make_settings(url, database_timeout_seconds=DEADLINE_S)) as client:
        token = await client.new_user()
        own_server.pause()
        try:
            # More than the pool has connections: nobody waits for another's.
            for answer, seconds in await asyncio.gather(*(timed_log_in(client) for _ in range(25))):
                assert_unavailable(answer)
                assert seconds < 3
            with pytest.raises(Problem):
                await client.service.check()
            # Whether a token is still active is not known; the keys that verify it are.
            assert_unavailable(await client.get("/user/token", token=token))
            assert (await client.get("/.well-known/jwks.json")).status == 200
        finally:
            own_server.resume()
        await until_ready(client)
        assert (await client.log_in()).status == 200


async def test_a_server_that_is_away_is_503_and_comes_back(own_server: MariaDBServer) -> None:
    url = own_server.create_database()
    await migrate(url)
    async with running(make_settings(url, database_timeout_seconds=DEADLINE_S)) as client:
        await client.new_user()
        own_server.kill()
        answer, seconds = await timed_log_in(client)
        assert_unavailable(answer)
        assert seconds < 3
        own_server.restart()
        await until_ready(client)
        assert (await client.log_in()).status == 200


async def test_a_service_whose_server_hangs_still_ends_in_time(own_server: MariaDBServer) -> None:
    url = own_server.create_database()
    await migrate(url)
    try:
        async with running(make_settings(url, database_timeout_seconds=DEADLINE_S)) as client:
            await client.new_user()
            own_server.pause()
            started = time.monotonic()
        assert time.monotonic() - started < 3
    finally:
        own_server.resume()


async def test_a_start_without_a_database_fails_and_says_why() -> None:
    settings = make_settings("mysql+aiomysql://nobody:hunter22@127.0.0.1:1/none", database_timeout_seconds=DEADLINE_S)
    with capture_logs() as logs, pytest.raises(Problem):
        async with auth_service(settings, registry=CollectorRegistry()):
            pass
    assert logs[0]["event"] == "The database does not answer."
    assert "127.0.0.1" in logs[0]["why"]
    assert "hunter22" not in str(logs)


async def test_a_locked_file_is_503_and_readers_go_on(sqlite_url: str, tmp_path: Path) -> None:
    await migrate(sqlite_url)
    async with running(make_settings(sqlite_url, database_timeout_seconds=0.3)) as client:
        await client.new_user()
        with closing(sqlite3.connect(tmp_path / "users.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer, seconds = await timed_log_in(client)
            assert_unavailable(answer)
            assert seconds < 2
            await client.service.check()
            other.execute("ROLLBACK")
        assert (await client.log_in()).status == 200


async def test_an_error_rolls_everything_back(database_url: str) -> None:
    async with open_database(database_url, connections=2, timeout_s=2.5) as database:
        row = {"number": 7, "kid": "k", "public_key": "p", "sealed_private_key": "s", "created_at_ms": 1}

        async def fail() -> None:
            async with database.begin() as connection:
                await connection.execute(insert(signing_keys).values(row))
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        async with database.connect() as connection:
            assert await connection.scalar(select(func.count()).select_from(signing_keys)) == 0


async def test_writers_of_one_file_have_their_turn_in_the_order_they_came(sqlite_url: str) -> None:
    """With SQLite's own locks, a writer that polls at the wrong moment goes on waiting and may starve."""
    await migrate(sqlite_url)
    done: list[int] = []
    async with open_database(sqlite_url, connections=10, timeout_s=30) as database:

        async def write(number: int) -> None:
            async with database.begin():
                await asyncio.sleep(0.005)
                done.append(number)

        await asyncio.gather(*(write(number) for number in range(40)))
    assert done == list(range(40))
