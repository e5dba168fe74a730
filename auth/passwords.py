"""Passwords: hashed and checked with bcrypt in a bounded pool of threads.

In: what a person typed. Out: a hash to store, or a verdict. The event loop is never held; when the pool and its queue
are full, callers get Problem 503 at once. A missing or damaged stored hash costs the same time as a wrong password:
that of a hash of BCRYPT_COST. So after a change of BCRYPT_COST the time tells who has not logged in since; each log-in
renews a hash (auth/accounts.py).

Compared is what RFC 8265's OpaqueString makes of a password (4.2): spaces of every script are SPACE, and letters are
composed (NFC), so that one password typed on two keyboards is one. Its list of forbidden characters is left out: it
depends on the release of Unicode, and would refuse what a newer telephone can type. Accounts of before have a hash of
the password as it was typed. Where the two forms differ, a wrong password is held against both, whoever's it is and
whether there is such a user: how long that takes tells of what was typed and of nothing else.
"""

import asyncio
import base64
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TypeVar

import bcrypt
from prometheus_client import CollectorRegistry, Counter, Histogram

from auth.common_passwords import is_common
from runtime.http.problems import FieldError, Problem

Result = TypeVar("Result")

Allowed = Callable[[], None]
"""Raises when the work is no longer wanted."""

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_BYTES = 1024
# Nothing longer becomes a password of MAX_PASSWORD_BYTES: composed letters and SPACE have at least a third of the bytes
# (Unicode Standard Annex 15). It also bounds the work, which grows with the square of the accents on one letter.
MAX_TYPED_BYTES = 4 * MAX_PASSWORD_BYTES
MAX_COST = 16
RETRY_AFTER_S = 2

# Anything else in the column is damage: bcrypt would raise, or a cost of 31 would hold a thread for days.
_STORED = re.compile(r"\$2b\$(\d\d)\$[./A-Za-z0-9]{53}")
_HASH_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5)


def always() -> None:
    """Allow."""


class Verdict(Enum):
    """What came of comparing a password with a stored hash."""

    RIGHT = "right"
    RIGHT_AS_TYPED = "right as it was typed, which is not the form that is stored now"
    WRONG = "wrong"
    DAMAGED = "damaged"


class PasswordHasher:
    """Hashes passwords in a few threads. At most `threads + queue` are accepted at a time, and served in turn."""

    def __init__(
        self, pool: ThreadPoolExecutor, cost: int, *, threads: int, queue: int, registry: CollectorRegistry
    ) -> None:
        self._pool = pool
        self._cost = cost
        self._free_places = threads + queue
        # The queue is on the loop's side, not in the pool, so that `allowed` is asked when the turn has come.
        self._turns = asyncio.Semaphore(threads)
        # A salt and a hash that no password has: what unknown users are compared with.
        self._decoy = f"$2b${cost:02}$" + "." * 53
        self._seconds = Histogram(
            "tidegate_auth_password_hash_seconds",
            "Time in a thread to hash or check one password.",
            registry=registry,
            buckets=_HASH_BUCKETS_S,
        )
        self._refused = Counter(
            "tidegate_auth_password_refused_total",
            "Passwords not looked at because all threads and their queue were full.",
            registry=registry,
        )

    async def hash(self, password: str) -> str:
        """Return what to store: 60 characters of ASCII. Problem 503 when the pool is full."""
        return await self._in_thread(lambda: self._hash(password))

    def is_outdated(self, stored: str) -> bool:
        """Say whether new hashes have another cost than this one."""
        form = _STORED.fullmatch(stored)
        return form is None or int(form.group(1)) != self._cost

    async def verify(self, password: str, stored: str | None, *, allowed: Allowed = always) -> Verdict:
        """Compare with a stored hash, or with nobody's for None. Problem 503 when the pool is full.

        `allowed` is called when the turn has come, and raises when the work is no longer wanted: of many guesses that
        wait together, those behind the last one that is allowed are not looked at.
        """
        return await self._in_thread(lambda: self._verify(password, stored), allowed)

    async def _in_thread(self, work: Callable[[], Result], allowed: Allowed = always) -> Result:
        if not self._free_places:
            self._refused.inc()
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise Problem(503, "Too many people are logging in; try again.", code="busy", headers=headers)
        self._free_places -= 1
        try:
            await self._turns.acquire()
        except BaseException:
            self._free_places += 1
            raise
        try:
            allowed()
            future = self._pool.submit(work)
        except BaseException:
            self._free()
            raise
        loop = asyncio.get_running_loop()
        answer = asyncio.wrap_future(future)

        def ended(_: "Future[Result]") -> None:
            with suppress(RuntimeError):  # the loop may have closed
                loop.call_soon_threadsafe(self._free)

        # By the thread, not by the caller: one who goes away leaves the thread busy. And after `wrap_future`, so that
        # the caller goes on before the next in turn does, and a wrong password counts in time.
        future.add_done_callback(ended)
        return await answer

    def _free(self) -> None:
        self._free_places += 1
        self._turns.release()

    def _hash(self, password: str) -> str:
        with self._seconds.time():
            return bcrypt.hashpw(_digest(prepared(password)), bcrypt.gensalt(self._cost)).decode()

    def _verify(self, password: str, stored: str | None) -> Verdict:
        form = prepared(password)
        verdict = self._compare(form, stored)
        if verdict is Verdict.RIGHT or form == password:
            return verdict
        # For a missing or damaged hash too, so that the time is the same.
        return Verdict.RIGHT_AS_TYPED if self._compare(password, stored) is Verdict.RIGHT else verdict

    def _compare(self, form: str, stored: str | None) -> Verdict:
        digest = _digest(form)
        with self._seconds.time():
            try:
                if stored is not None and _usable(stored):
                    return Verdict.RIGHT if bcrypt.checkpw(digest, stored.encode()) else Verdict.WRONG
            except ValueError:
                pass  # a salt with impossible bits; bcrypt says so before it does any work
            bcrypt.checkpw(digest, self._decoy.encode())
        return Verdict.WRONG if stored is None else Verdict.DAMAGED


@contextmanager
def password_hasher(*, cost: int, threads: int, queue: int, registry: CollectorRegistry) -> Iterator[PasswordHasher]:
    """Run `threads` threads (0: one a core) as long as the context lasts; what still waits at its end is dropped."""
    count = threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(count, thread_name_prefix="bcrypt")
    try:
        yield PasswordHasher(pool, cost, threads=count, queue=queue, registry=registry)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def prepared(password: str) -> str:
    """Return the form of a password that is hashed: RFC 8265, 4.2, for what is short enough to be one."""
    if len(password.encode()) > MAX_TYPED_BYTES:
        return password
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", spaced)


def password_error(password: str, about: Sequence[str] = ()) -> FieldError | None:
    """Say what makes a new password unacceptable, or None. `about`: what anyone who knows the user would try first.

    Characters and bytes are those of the prepared form: an accent is none of its own, however it was typed.
    """
    form = prepared(password)
    if len(form) < MIN_PASSWORD_CHARS:
        return FieldError("password", "too_short", f"A password has at least {MIN_PASSWORD_CHARS} characters.")
    if len(form.encode()) > MAX_PASSWORD_BYTES:
        return FieldError("password", "too_long", f"A password has at most {MAX_PASSWORD_BYTES} bytes of UTF-8.")
    if is_common(form):
        return FieldError("password", "too_common", "This password is among the first that anyone tries.")
    told = (prepared(part).lower() for text in about for part in (text, text.partition("@")[0]))
    if form.lower() in told:
        return FieldError("password", "too_common", "A password must not be the name or the e-mail address.")
    return None


def _digest(password: str) -> bytes:
    # bcrypt takes 72 bytes and stops at NUL. 64 characters of base64 carry all of SHA-384, so every byte counts.
    return base64.b64encode(hashlib.sha384(password.encode()).digest())


def _usable(stored: str) -> bool:
    form = _STORED.fullmatch(stored)
    return form is not None and 4 <= int(form.group(1)) <= MAX_COST
