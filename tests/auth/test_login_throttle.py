import asyncio
from functools import cache
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry

from auth.login_throttle import LoginThrottle
from auth.metrics import AuthMetrics
from auth.migrate import migrate
from runtime.http.addresses import ClientAddresses
from runtime.http.problems import Problem
from tests.auth.service import PASSWORD, Answer, Client, make_settings, running

URL = "sqlite+aiosqlite:///unused.db"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> LoginThrottle:
    return LoginThrottle(make_settings(URL), ClientAddresses(), AuthMetrics(CollectorRegistry()), clock=clock)


@cache  # making one takes milliseconds
def a_request(address: str) -> web.Request:
    return make_mocked_request("POST", "/user/login").clone(remote=address)


def guess(limits: LoginThrottle, email: str = "ada@example.org", address: str = "192.0.2.1", **more: Any) -> None:
    with limits.log_in(a_request(address), email) as attempt:
        if not more.get("right"):
            attempt.failed()


def guesses_until_refused(limits: LoginThrottle, **more: Any) -> tuple[int, Problem]:
    for n in range(1000):
        try:
            guess(limits, **more)
        except Problem as problem:
            return n, problem
    raise AssertionError("never refused")


def test_new_api_keys_of_one_user_have_to_wait_after_a_hundred_and_others_do_not(
    limits: LoginThrottle, clock: Clock
) -> None:
    for _ in range(100):
        limits.new_api_key("ada")
    with pytest.raises(Problem) as refused:
        limits.new_api_key("ada")
    assert (refused.value.status, refused.value.code) == (429, "rate_limited")
    limits.new_api_key("bob")
    clock.now += 60
    limits.new_api_key("ada")
    with pytest.raises(Problem):
        limits.new_api_key("ada")


def test_many_passwords_for_one_account_have_to_wait(limits: LoginThrottle, clock: Clock) -> None:
    taken, problem = guesses_until_refused(limits)
    assert (taken, problem.status, problem.code) == (10, 429, "rate_limited")
    assert problem.extra == {"limit": 10, "scope": "account", "retryAfterMs": 30_000}
    assert problem.headers["Retry-After"] == "30"
    clock.now += 29.9
    with pytest.raises(Problem):
        guess(limits)
    clock.now += 0.1
    guess(limits)  # never for ever


def test_an_account_is_the_same_however_its_address_is_written(limits: LoginThrottle) -> None:
    for n in range(10):
        guess(limits, "ADA@example.org" if n % 2 else "ada@EXAMPLE.org")
    with pytest.raises(Problem):
        guess(limits)


def test_one_address_that_tries_many_accounts_has_to_wait(limits: LoginThrottle, clock: Clock) -> None:
    for n in range(30):
        guess(limits, f"user-{n}@example.org")
    with pytest.raises(Problem) as caught:
        guess(limits, "user-30@example.org")
    assert caught.value.extra == {"limit": 30, "scope": "address", "retryAfterMs": 2000}
    guess(limits, "user-30@example.org", "192.0.2.2")
    clock.now += 2
    guess(limits, "user-31@example.org")


def test_addresses_of_one_ipv6_network_count_as_one(limits: LoginThrottle) -> None:
    for n in range(30):
        guess(limits, f"user-{n}@example.org", f"2001:db8:1:2::{n:x}")
    with pytest.raises(Problem):
        guess(limits, "another@example.org", "2001:db8:1:2:ffff::1")
    guess(limits, "another@example.org", "2001:db8:1:3::1")


def test_many_addresses_that_try_one_account_have_to_wait(limits: LoginThrottle) -> None:
    for n in range(100):
        guess(limits, address=f"198.51.100.{n}")
    with pytest.raises(Problem) as caught:
        guess(limits, address="203.0.113.1")
    assert caught.value.extra == {"limit": 100, "scope": "account", "retryAfterMs": 36_000}
    guess(limits, "bob@example.org", "203.0.113.1")


def test_others_do_not_lock_an_owner_out(limits: LoginThrottle) -> None:
    guess(limits, address="203.0.113.1", right=True)
    for n in range(100):
        guess(limits, address=f"198.51.100.{n}")
    for n in range(20):
        guess(limits, f"user-{n}@example.org", "203.0.113.1")  # a neighbour behind the same address
    guess(limits, address="203.0.113.1", right=True)
    taken, problem = guesses_until_refused(limits, address="203.0.113.1")
    assert (taken, problem.extra["scope"]) == (10, "account")  # but a known address is no licence to guess


def test_a_right_password_forgives_the_owners_mistakes(limits: LoginThrottle) -> None:
    for _ in range(5):
        for _ in range(5):
            guess(limits)
        guess(limits, right=True)
    assert guesses_until_refused(limits)[0] == 10


def test_what_breaks_off_is_neither_right_nor_wrong(limits: LoginThrottle) -> None:
    for _ in range(9):
        guess(limits)
    for _ in range(20):
        with pytest.raises(Problem, match="503"), limits.log_in(a_request("192.0.2.1"), "ada@example.org"):
            raise Problem(503)
    assert guesses_until_refused(limits)[0] == 1


def test_a_day_of_guessing_gets_no_further_than_the_limit(limits: LoginThrottle, clock: Clock) -> None:
    got = 0
    for _ in range(24 * 120):
        clock.now += 30
        for address in range(8):
            try:
                guess(limits, address=f"198.51.100.{address}")
            except Problem:
                continue
            got += 1
    assert got <= 100 + 24 * 100


def test_wrong_refresh_tokens_have_to_wait_and_hold_up_no_log_in(limits: LoginThrottle) -> None:
    for _ in range(30):
        with limits.refresh(a_request("192.0.2.1")) as attempt:
            attempt.failed()
    with pytest.raises(Problem) as caught, limits.refresh(a_request("192.0.2.1")):
        pass
    assert caught.value.extra == {"limit": 30, "scope": "address", "retryAfterMs": 2000}
    guess(limits)


def test_hundreds_of_sign_ups_a_minute_pass_and_a_flood_does_not(limits: LoginThrottle, clock: Clock) -> None:
    for _ in range(300):
        limits.sign_up(a_request("192.0.2.1"))
    with pytest.raises(Problem) as caught:
        limits.sign_up(a_request("192.0.2.1"))
    assert (caught.value.extra["scope"], caught.value.headers["Retry-After"]) == ("address", "1")
    for _ in range(300):
        clock.now += 0.1
        limits.sign_up(a_request("192.0.2.1"))


def assert_rate_limited(answer: Answer, scope: str, limit: int) -> None:
    assert answer.status == 429
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json["code"], answer.json["scope"], answer.json["limit"]) == ("rate_limited", scope, limit)
    assert 0 < answer.json["retryAfterMs"] <= int(answer.headers["Retry-After"]) * 1000


async def test_of_100_wrong_passwords_few_are_looked_at(sqlite_client: Client) -> None:
    await sqlite_client.sign_up()
    answers = [await sqlite_client.log_in(password=f"guess number {n}") for n in range(100)]
    assert [answer.status for answer in answers] == [401] * 10 + [429] * 90
    assert_rate_limited(answers[-1], "account", 10)
    assert sqlite_client.metric("tidegate_auth_password_hash_seconds_count") == 11
    assert sqlite_client.metric("tidegate_auth_rate_limited_total", scope="account") == 90


async def test_guessing_at_once_gains_nothing(database_url: str) -> None:
    async with running(make_settings(database_url, hash_threads=2)) as client:
        await client.sign_up()
        answers = await asyncio.gather(*(client.log_in(password=f"guess number {n}") for n in range(60)))
        assert {answer.status for answer in answers} == {401, 429}
        # Each of the two threads may have begun with the next before the tenth failure was noted.
        assert 10 <= [answer.status for answer in answers].count(401) <= 12


async def test_an_account_that_does_not_exist_is_limited_alike(sqlite_client: Client) -> None:
    answers = [await sqlite_client.log_in("nobody@example.org") for _ in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    assert_rate_limited(answers[-1], "account", 10)


async def test_50_good_log_ins_at_once_pass(sqlite_client: Client) -> None:
    await sqlite_client.sign_up()
    answers = await asyncio.gather(*(sqlite_client.log_in() for _ in range(50)))
    assert {answer.status for answer in answers} == {200}


async def test_the_current_password_cannot_be_guessed_with_a_stolen_token(sqlite_client: Client) -> None:
    token = await sqlite_client.new_user()
    for n in range(11):
        body = {"currentPassword": f"guess number {n}", "password": "another good one"}
        answer = await sqlite_client.call("PATCH", "/user/me", token=token, json=body)
        assert answer.status == (403 if n < 10 else 429)
    assert_rate_limited(answer, "account", 10)


async def test_limits_can_be_set(database_url: str) -> None:
    settings = make_settings(database_url, account_failures=2, address_failures=3, address_signups=1)
    async with running(settings) as client:
        assert [(await client.sign_up(f"{n}@example.org")).status for n in range(2)] == [201, 429]
        assert [(await client.log_in("0@example.org", "wrong")).status for _ in range(3)] == [401, 401, 429]
        assert (await client.log_in("1@example.org", "wrong")).status == 401
        assert_rate_limited(await client.log_in("2@example.org", PASSWORD), "address", 3)
        answers = [await client.post("/user/refresh", {"refreshToken": "x" * 43}) for _ in range(4)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429]
        assert_rate_limited(answers[-1], "address", 3)


async def test_behind_a_trusted_proxy_each_client_counts_for_itself(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    async with running(make_settings(sqlite_url, trusted_proxies=("127.0.0.0/8",), address_failures=2)) as client:

        async def wrong(n: int, forwarded: str) -> int:
            body = {"email": f"{n}@example.org", "password": "wrong"}
            return (await client.post("/user/login", body, headers={"X-Forwarded-For": forwarded})).status

        assert [await wrong(n, "203.0.113.7") for n in range(3)] == [401, 401, 429]
        assert await wrong(3, "203.0.113.8") == 401
        assert await wrong(4, "203.0.113.9, 203.0.113.7") == 429  # its own invention does not help
