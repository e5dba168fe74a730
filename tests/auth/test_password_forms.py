"""A password matches however a keyboard encodes it (RFC 8265's OpaqueString), also against older hashes."""

import time

import bcrypt
import pytest
from prometheus_client import CollectorRegistry

from auth.metrics import AuthMetrics
from auth.passwords import Verdict, _digest, password_error, password_hasher, prepared
from tests.auth.rows import store_hash, stored_hash
from tests.auth.service import Client, make_settings, running

COMPOSED = "crème brûlée à la carte"
APART = "cre\u0300me bru\u0302le\u0301e a\u0300 la carte"
OTHER_SPACES = COMPOSED.replace(" ", "\u00a0", 1).replace(" ", "\u3000", 1)


def hash_as_typed(password: str) -> str:
    """Hash a password as typed, like older releases."""
    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(4)).decode()


@pytest.mark.parametrize("chosen", [COMPOSED, APART, OTHER_SPACES], ids=["composed", "apart", "other spaces"])
async def test_a_password_is_the_same_however_it_is_typed(client: Client, chosen: str) -> None:
    assert (await client.sign_up(password=chosen)).status == 201
    for typed in (COMPOSED, APART, OTHER_SPACES):
        assert (await client.log_in(password=typed)).status == 200, typed
    for wrong in (COMPOSED.replace("è", "e"), COMPOSED.upper(), COMPOSED + " ", COMPOSED.replace(" ", "")):
        assert (await client.log_in(password=wrong)).status == 401, wrong
    token = (await client.log_in(password=APART)).json["accessToken"]
    change = {"password": "another good one", "currentPassword": OTHER_SPACES}
    assert (await client.call("PATCH", "/user/me", json=change, token=token)).status == 200


@pytest.mark.parametrize("typed", [APART, OTHER_SPACES, COMPOSED], ids=["apart", "other spaces", "composed"])
async def test_an_account_of_before_is_not_locked_out_and_its_hash_is_renewed(
    client: Client, database_url: str, typed: str
) -> None:
    await client.sign_up()
    await store_hash(database_url, hash_as_typed(typed))
    assert (await client.log_in(password="wrong " + typed)).status == 401
    assert (await client.log_in(password=typed)).status == 200
    for form in (COMPOSED, APART, OTHER_SPACES):
        assert (await client.log_in(password=form)).status == 200, "from now on in every form"
    renewed = await stored_hash(database_url)
    assert (await client.log_in(password=typed)).status == 200
    assert await stored_hash(database_url) == renewed, "once is enough"


async def test_an_account_of_before_changes_its_password(client: Client, database_url: str) -> None:
    token = await client.new_user()
    await store_hash(database_url, hash_as_typed(APART))
    change = {"password": "another good one", "currentPassword": APART}
    assert (await client.call("PATCH", "/user/me", json=change, token=token)).status == 200


@pytest.mark.parametrize(("typed", "comparisons"), [(COMPOSED, 1), (APART, 2), (OTHER_SPACES, 2)])
async def test_the_work_for_a_wrong_password_depends_on_what_was_typed_and_on_nothing_else(
    monkeypatch: pytest.MonkeyPatch, typed: str, comparisons: int
) -> None:
    done: list[bytes] = []
    real = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        right = real(password, hashed)
        done.append(hashed[:7])
        return right

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    with password_hasher(cost=4, threads=1, queue=1, metrics=AuthMetrics(CollectorRegistry())) as hasher:
        composed, apart = await hasher.hash("ein anderes Paßwort"), hash_as_typed("ein anderes Pa\u0301ßwort")
        for stored in (None, composed, apart, "damaged", "$2b$04$" + "z" * 53):
            done.clear()
            assert await hasher.verify(typed, stored) in (Verdict.WRONG, Verdict.DAMAGED)
            assert done == [b"$2b$04$"] * comparisons, stored


async def test_a_wrong_password_in_two_forms_is_one_try(database_url: str) -> None:
    async with running(make_settings(database_url, account_failures=3)) as client:
        await client.sign_up()
        assert [(await client.log_in(password=APART)).status for _ in range(4)] == [401, 401, 401, 429]
        assert client.metric("tidegate_auth_logins_total", outcome="failed") == 3


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("e\u0301" * 7, "too_short"),
        ("e\u0301" * 8, None),
        ("e\u0301" * 512, None),
        ("e\u0301" * 513, "too_long"),
        ("\u1100\u1161\u11a8" * 341, None),  # 341 syllables of Hangul, 1,023 bytes; 3,069 as they are typed
        ("\u1100\u1161\u11a8" * 342, "too_long"),
        ("\u3000" * 1020 + "x" * 4, None),
        ("x" * 4097, "too_long"),
    ],
)
def test_characters_and_bytes_are_counted_as_they_are_kept(password: str, code: str | None) -> None:
    error = password_error(password)
    assert (error and error.code) == code


@pytest.mark.parametrize("password", ["Ame\u0301lie\u00a0Poulain", "AMÉLIE POULAIN"])
def test_a_password_is_not_the_name_in_another_spelling(password: str) -> None:
    error = password_error(password, ("Amélie Poulain", "amelie@example.org"))
    assert error is not None
    assert error.code == "too_common"


def test_accents_without_end_cost_no_time() -> None:
    begun = time.process_time()
    for _ in range(20):
        prepared("a" + "\u0301\u0316" * 8000)  # 32 kB; sorted, that is some 0.1 s each
    assert time.process_time() - begun < 0.2
