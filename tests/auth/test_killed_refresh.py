"""`kill -9` during a refresh: the client can continue, and no token works twice."""

import asyncio
import os
import sys
from pathlib import Path

from sqlalchemy import update

from database.tables import refresh_tokens
from tests.auth.refresh_until_killed import USER_AGENT
from tests.auth.rows import change
from tests.auth.service import Client

ROOT = Path(__file__).parents[2]


async def refresh_and_kill(database_url: str, token: str, where: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.auth.refresh_until_killed", database_url, token, where),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await child.stdout.readline() == b"here\n"
    finally:
        child.kill()
        await child.wait()


async def test_killed_between_the_halves_nothing_has_happened(client: Client, database_url: str) -> None:
    await client.sign_up()
    tokens = (await client.log_in()).json
    await refresh_and_kill(database_url, tokens["refreshToken"], "between")
    body = {"refreshToken": tokens["refreshToken"]}
    answer = await client.post("/user/refresh", body)
    assert answer.status == 200, "the token was not used up"
    assert (await client.post("/user/refresh", body)).status == 401, "and serves once"
    assert (await client.log_in()).status == 200


async def test_killed_before_the_answer_the_old_token_is_used_up(client: Client, database_url: str) -> None:
    await client.sign_up()
    tokens = (await client.log_in()).json
    await refresh_and_kill(database_url, tokens["refreshToken"], "after")
    body = {"refreshToken": tokens["refreshToken"]}
    at_once = await client.post("/user/refresh", body, headers={"User-Agent": USER_AGENT})
    assert (at_once.status, at_once.json["code"]) == (401, "refresh_used")
    assert (await client.get("/user/token", token=tokens["accessToken"])).status == 200, "the access token serves on"
    await change(database_url, update(refresh_tokens).values(used_at_ms=refresh_tokens.c.used_at_ms - 10_001))
    later = await client.post("/user/refresh", body, headers={"User-Agent": USER_AGENT})
    assert (later.status, later.json["code"]) == (401, "unauthorized")
    assert (await client.get("/user/token", token=tokens["accessToken"])).status == 401
    assert (await client.log_in()).status == 200
