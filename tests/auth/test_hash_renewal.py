"""A log-in renews a password hash whose cost is not the current one."""

import asyncio

import pytest

from auth.passwords import PasswordHasher
from runtime.http.problems import Problem
from tests.auth.rows import store_hash, stored_hash
from tests.auth.service import PASSWORD, make_settings, running


@pytest.mark.parametrize(("before", "after"), [(4, 5), (5, 4)])
async def test_a_log_in_renews_a_hash_of_another_cost(database_url: str, before: int, after: int) -> None:
    async with running(make_settings(database_url, bcrypt_cost=before)) as client:
        await client.sign_up()
    old = await stored_hash(database_url)
    async with running(make_settings(database_url, bcrypt_cost=after)) as client:
        assert (await client.log_in(password="a wrong password")).status == 401
        assert await stored_hash(database_url) == old
        assert (await client.log_in()).status == 200
        new = await stored_hash(database_url)
        assert (old[:7], new[:7]) == (f"$2b$0{before}$", f"$2b$0{after}$")
        assert (await client.log_in()).status == 200
        assert await stored_hash(database_url) == new  # once is enough


async def test_a_log_in_does_not_fail_with_the_renewal(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(make_settings(database_url, bcrypt_cost=4)) as client:
        await client.sign_up()
    old = await stored_hash(database_url)

    async def full(_: PasswordHasher, __: str) -> str:
        raise Problem(503, "all threads are busy")

    async with running(make_settings(database_url, bcrypt_cost=5)) as client:
        monkeypatch.setattr(PasswordHasher, "hash", full)
        assert (await client.log_in()).status == 200
        assert await stored_hash(database_url) == old


async def test_a_password_changed_meanwhile_stays_changed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(make_settings(database_url, bcrypt_cost=4)) as client:
        await client.sign_up()
    begun, go_on = asyncio.Event(), asyncio.Event()
    real = PasswordHasher.hash

    async def waiting(hasher: PasswordHasher, password: str) -> str:
        begun.set()
        await go_on.wait()
        return await real(hasher, password)

    monkeypatch.setattr(PasswordHasher, "hash", waiting)
    async with running(make_settings(database_url, bcrypt_cost=5)) as client:
        log_in = asyncio.create_task(client.log_in(password=PASSWORD))
        await asyncio.wait_for(begun.wait(), 10)
        await store_hash(database_url, "what another request stored")
        go_on.set()
        await log_in
        assert await stored_hash(database_url) == "what another request stored"
