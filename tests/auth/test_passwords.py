import asyncio
import threading
import time
from collections.abc import Iterator

import bcrypt
import pytest
from prometheus_client import CollectorRegistry

from auth.metrics import AuthMetrics
from auth.passwords import PasswordHasher, Verdict, password_error, password_hasher
from runtime.http.problems import Problem


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    with password_hasher(cost=4, threads=2, queue=8, metrics=AuthMetrics(CollectorRegistry())) as it:
        yield it


@pytest.mark.parametrize("length", [8, 72, 73, 200, 1024])
async def test_every_byte_of_a_password_counts(hasher: PasswordHasher, length: int) -> None:
    password = "x" * length
    stored = await hasher.hash(password)
    assert await hasher.verify(password, stored) is Verdict.RIGHT
    assert await hasher.verify("x" * (length - 1) + "y", stored) is Verdict.WRONG
    assert await hasher.verify("x" * (length - 1), stored) is Verdict.WRONG
    assert await hasher.verify("x" * (length + 1), stored) is Verdict.WRONG


async def test_a_nul_character_does_not_end_a_password(hasher: PasswordHasher) -> None:
    stored = await hasher.hash("abcdefgh\0one")
    assert await hasher.verify("abcdefgh\0two", stored) is Verdict.WRONG
    assert await hasher.verify("abcdefgh\0one", stored) is Verdict.RIGHT


async def test_two_hashes_of_one_password_differ(hasher: PasswordHasher) -> None:
    assert await hasher.hash("password one") != await hasher.hash("password one")


async def test_nobody_has_the_password_of_an_unknown_user(hasher: PasswordHasher) -> None:
    assert await hasher.verify("", None) is Verdict.WRONG
    assert await hasher.verify("any password", None) is Verdict.WRONG


DAMAGED = {
    "empty": "",
    "text": "not a hash",
    "cut short": "$2b$04$" + "a" * 52,
    "an impossible salt": "$2b$04$" + "z" * 53,
    "a cost that would take days": "$2b$31$" + "." * 53,
    "another algorithm": "$argon2id$v=19$m=65536,t=3,p=4$abc$def",
    "not ASCII": "$2b$04$" + "é" * 53,
    "a line break": "$2b$04$" + "." * 53 + "\n",
}


@pytest.mark.parametrize("stored", DAMAGED.values(), ids=DAMAGED.keys())
async def test_a_damaged_hash_is_nobodys(hasher: PasswordHasher, stored: str) -> None:
    assert await hasher.verify("any password", stored) is Verdict.DAMAGED


async def test_unknown_wrong_and_damaged_do_the_same_work(
    hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await hasher.hash("the right one")
    costs: list[bytes] = []
    real = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        right = real(password, hashed)
        costs.append(hashed[:7])  # after the work: a salt that is refused costs none
        return right

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    for known in (None, stored, *DAMAGED.values()):
        costs.clear()
        await hasher.verify("a wrong one", known)
        assert costs == [b"$2b$04$"]


async def test_a_full_pool_refuses_at_once_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    real = bcrypt.hashpw

    def waiting(password: bytes, salt: bytes) -> bytes:
        go_on.wait(10)
        return real(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", waiting)
    registry = CollectorRegistry()
    with password_hasher(cost=4, threads=1, queue=2, metrics=AuthMetrics(registry)) as hasher:
        taken = [asyncio.create_task(hasher.hash(f"password {n}")) for n in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as caught:
            await hasher.hash("one too many")
        assert caught.value.status == 503
        assert int(caught.value.headers["Retry-After"]) >= 1
        assert registry.get_sample_value("tidegate_auth_password_refused_total") == 1
        go_on.set()
        assert len(await asyncio.gather(*taken)) == 3
        assert await hasher.hash("now there is room")


async def test_callers_who_go_away_do_not_free_a_busy_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    begun = threading.Event()
    real = bcrypt.hashpw

    def waiting(password: bytes, salt: bytes) -> bytes:
        begun.set()
        go_on.wait(10)
        return real(password, salt)

    monkeypatch.setattr(bcrypt, "hashpw", waiting)
    with password_hasher(cost=4, threads=1, queue=0, metrics=AuthMetrics(CollectorRegistry())) as hasher:
        gone = asyncio.create_task(hasher.hash("a password"))
        await asyncio.to_thread(begun.wait, 10)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        with pytest.raises(Problem):
            await hasher.hash("another one")
        go_on.set()


async def test_the_event_loop_goes_on_while_passwords_are_hashed() -> None:
    with password_hasher(cost=11, threads=1, queue=4, metrics=AuthMetrics(CollectorRegistry())) as hasher:
        hashing = asyncio.create_task(hasher.hash("a password"))
        turns = 0
        while not hashing.done():
            started = time.monotonic()
            await asyncio.sleep(0.001)
            turns += time.monotonic() - started < 0.05
        assert turns > 5


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("1234567", "too_short"),
        ("rh3umlwp", None),
        ("ééééééé", "too_short"),
        ("é" * 512, None),
        ("é" * 512 + "x", "too_long"),
        ("x" * 1025, "too_long"),
    ],
)
def test_passwords_have_8_characters_to_1024_bytes(password: str, code: str | None) -> None:
    error = password_error(password)
    assert (error and error.code) == code


@pytest.mark.parametrize("password", ["Ada Lovelace", "ADA LOVELACE", "ada.lovelace@example.org", "Ada.Lovelace"])
def test_passwords_are_not_the_name_or_the_address(password: str) -> None:
    error = password_error(password, ("Ada Lovelace", "ada.lovelace@example.org"))
    assert error is not None
    assert error.code == "too_common"
    assert password_error(f"{password} 7", ("Ada Lovelace", "ada.lovelace@example.org")) is None


async def test_what_waits_is_asked_again_when_its_turn_has_come() -> None:
    with password_hasher(cost=4, threads=1, queue=20, metrics=AuthMetrics(CollectorRegistry())) as hasher:
        stored = await hasher.hash("the right one")
        failed = 0

        def recheck() -> None:
            if failed >= 3:
                raise Problem(429)

        async def guess(password: str) -> None:
            nonlocal failed
            verdict = await hasher.verify(password, stored, recheck=recheck)
            failed += verdict is Verdict.WRONG

        outcomes = await asyncio.gather(*(guess(f"guess {n}") for n in range(20)), return_exceptions=True)
        assert failed == 3
        assert [outcome.status for outcome in outcomes if isinstance(outcome, Problem)] == [429] * 17
        failed = 0
        await asyncio.gather(*(guess("the right one") for _ in range(20)))  # every place is free again
        assert failed == 0
