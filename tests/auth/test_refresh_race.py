"""A refresh token that is used twice: by one client in a race with itself, or by two clients."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import select, text, update
from structlog.testing import capture_logs

from auth.migrate import migrate
from auth.sessions import RACE_MS
from auth.tokens.issuer import used_by_hash
from database.connection import open_database, server_time_ms
from database.tables import refresh_tokens
from runtime.times import now_ms
from tests.auth.rows import change
from tests.auth.service import Answer, Client, is_active, make_settings, running, session

BROWSER = "a browser"
HERE, NEAR, ELSEWHERE = "192.0.2.1", "2001:db8::1", "198.51.100.7"


async def refresh(client: Client, tokens: dict[str, Any], *, agent: str = BROWSER, address: str = HERE) -> Answer:
    headers = {"User-Agent": agent, "X-Forwarded-For": address}
    return await client.post("/user/refresh", {"refreshToken": tokens["refreshToken"]}, headers=headers)


async def later(url: str, by_ms: int = RACE_MS + 1) -> None:
    """Backdate the first use of all tokens by `by_ms` milliseconds."""
    await change(url, update(refresh_tokens).values(used_at_ms=refresh_tokens.c.used_at_ms - by_ms))


def outcome(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json.get("code", "")


USED, ENDED = (401, "refresh_used"), (401, "unauthorized")


@pytest.fixture
def behind_proxy(database_url: str) -> Any:
    return running(make_settings(database_url, trusted_proxies=("127.0.0.0/8",)))


async def test_of_many_refreshes_at_once_one_wins_and_the_session_goes_on(client: Client) -> None:
    first = await session(client)
    answers = await asyncio.gather(*(refresh(client, first) for _ in range(5)))
    assert sorted(map(outcome, answers)) == [(200, ""), *[USED] * 4]
    assert all(answer.headers["WWW-Authenticate"].startswith("Bearer") for answer in answers if answer.status == 401)
    (won,) = [answer.json for answer in answers if answer.status == 200]
    assert await is_active(client, first["accessToken"])
    assert await is_active(client, won["accessToken"])
    assert (await refresh(client, won)).status == 200


async def test_a_second_use_later_than_10_s_ends_the_session(client: Client, database_url: str) -> None:
    first = await session(client)
    won = (await refresh(client, first)).json
    await later(database_url, RACE_MS - 5000)
    assert outcome(await refresh(client, first)) == USED
    await later(database_url, 5001)
    assert outcome(await refresh(client, first)) == ENDED
    assert not await is_active(client, won["accessToken"])
    assert outcome(await refresh(client, won)) == ENDED


async def test_a_use_before_this_release_is_a_theft_as_it_was(client: Client, database_url: str) -> None:
    first = await session(client)
    won = (await refresh(client, first)).json
    await change(database_url, update(refresh_tokens).values(used_by_hash=None))
    assert outcome(await refresh(client, first)) == ENDED
    assert not await is_active(client, won["accessToken"])


@pytest.mark.parametrize(
    ("agent", "address", "expected"),
    [
        (BROWSER, HERE, USED),
        (BROWSER, ELSEWHERE, ENDED),
        ("another program", HERE, ENDED),
        ("", HERE, ENDED),
    ],
)
async def test_a_race_is_of_one_network_and_one_program(
    behind_proxy: Any, agent: str, address: str, expected: tuple[int, str]
) -> None:
    async with behind_proxy as client:
        first = await session(client)
        won = (await refresh(client, first)).json
        assert outcome(await refresh(client, first, agent=agent, address=address)) == expected
        assert await is_active(client, won["accessToken"]) is (expected == USED)


async def test_a_network_is_what_one_household_has_of_ipv6(behind_proxy: Any) -> None:
    async with behind_proxy as client:
        first = await session(client)
        await refresh(client, first, address=NEAR)
        assert outcome(await refresh(client, first, address="2001:db8::ffff:7")) == USED
        assert outcome(await refresh(client, first, address="2001:db8:0:1::1")) == ENDED


async def test_a_thief_who_was_first_within_10_s_is_ended_when_the_robbed_client_comes_again(
    client: Client, database_url: str
) -> None:
    stolen = await session(client)
    thief = (await refresh(client, stolen)).json
    assert outcome(await refresh(client, stolen)) == USED
    thief = (await refresh(client, thief)).json  # and goes on
    assert await is_active(client, thief["accessToken"])
    await later(database_url)
    assert outcome(await refresh(client, stolen)) == ENDED  # the robbed client has no other token to come with
    assert not await is_active(client, thief["accessToken"])
    assert outcome(await refresh(client, thief)) == ENDED


async def test_a_thief_who_was_second_within_10_s_is_ended_when_coming_again(client: Client, database_url: str) -> None:
    stolen = await session(client)
    honest = (await refresh(client, stolen)).json
    assert outcome(await refresh(client, stolen)) == USED
    assert await is_active(client, honest["accessToken"])
    await later(database_url)
    assert outcome(await refresh(client, stolen)) == ENDED
    assert not await is_active(client, honest["accessToken"])


async def test_a_race_is_no_guess_and_is_written_down(database_url: str) -> None:
    async with running(make_settings(database_url, address_failures=2)) as client:
        first = await session(client)
        await refresh(client, first)
        with capture_logs() as logs:
            for _ in range(5):
                assert outcome(await refresh(client, first)) == USED
        told = [line for line in logs if "came twice at once" in line["event"]]
        assert len(told) == client.metric("tidegate_auth_refreshes_total", outcome="raced") == 5
        for _ in range(2):
            assert (await client.post("/user/refresh", {"refreshToken": "never issued"})).status == 401
        assert (await client.post("/user/refresh", {"refreshToken": "never issued"})).status == 429


async def test_who_used_a_token_cannot_be_read_from_the_database(behind_proxy: Any, database_url: str) -> None:
    async with behind_proxy as client:
        first = await session(client)
        await refresh(client, first)
    async with open_database(database_url, connections=1, timeout_s=5) as database, database.connect() as connection:
        rows = [dict(row._mapping) for row in await connection.execute(select(refresh_tokens))]
    assert BROWSER not in str(rows)
    assert HERE not in str(rows)
    (used,) = [row["used_by_hash"] for row in rows if row["used_by_hash"] is not None]
    assert used == used_by_hash(first["refreshToken"], HERE, BROWSER)
    assert used != used_by_hash("another session's token", HERE, BROWSER), "two sessions of one person look unlike"


async def test_the_database_servers_clock_judges_and_not_the_hosts(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(mariadb_url)
    hosts_clock = time.time_ns
    async with running(make_settings(mariadb_url, refresh_token_seconds=600)) as client:
        first = await session(client)
        won = (await refresh(client, first)).json
        monkeypatch.setattr(time, "time_ns", lambda: hosts_clock() + 3_600_000_000_000)
        assert outcome(await refresh(client, first)) == USED
        assert (await refresh(client, won)).status == 200, "and no session expires by the host's clock"


async def test_the_database_servers_time_is_utc_wherever_the_server_is(database_url: str) -> None:
    async with open_database(database_url, connections=1, timeout_s=5) as database, database.connect() as connection:
        if connection.dialect.name == "mysql":
            await connection.execute(text("SET time_zone = '+05:30'"))
        assert abs(await server_time_ms(connection) - now_ms()) < 5000
