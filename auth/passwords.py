"""Passwords: hashed and checked with bcrypt in a bounded pool of threads.

In: a password as typed. Out: a hash to store, or a verdict. The event loop is never blocked; if the pool and its queue
are full, callers get Problem 503 at once. A missing or damaged stored hash takes the same time as a wrong password:
that of one hash at BCRYPT_COST. After a change of BCRYPT_COST, the time therefore reveals which users have not logged
in since; each log-in renews the hash (auth/accounts.py).

Passwords are hashed in the form of RFC 8265's OpaqueString (4.2): spaces of every script become SPACE and letters are
composed (NFC), so that a password matches whichever keyboard it was typed on. Its list of forbidden characters is not
applied: it depends on the Unicode version and would refuse characters that newer phones can type. Older accounts have a
hash of the password as typed. If the two forms differ and the first does not match, the second is compared as well, for
every user and even for unknown ones: the time then depends on what was typed and on nothing else.
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

from auth.common_passwords import is_common
from auth.metrics import AuthMetrics
from runtime.http.problems import FieldError, Problem

Result = TypeVar("Result")

Recheck = Callable[[], None]
"""Called just before a password is hashed; raises to skip the work."""

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_BYTES = 1024
# Nothing longer shrinks to MAX_PASSWORD_BYTES: composed letters and SPACE keep at least a third of the bytes (Unicode
# Standard Annex 15). It also bounds the work, which is quadratic in the number of accents on one letter.
MAX_TYPED_BYTES = 4 * MAX_PASSWORD_BYTES
MAX_COST = 16
RETRY_AFTER_S = 2

# Anything else in the column is damaged: bcrypt would raise, or a cost of 31 would block a thread for days.
_STORED = re.compile(r"\$2b\$(\d\d)\$[./A-Za-z0-9]{53}")


def no_recheck() -> None:
    """Do nothing: hash in any case."""


class Verdict(Enum):
    """The result of comparing a password with a stored hash."""

    RIGHT = "right"
    RIGHT_AS_TYPED = "right as it was typed, which is not the form that is stored now"
    WRONG = "wrong"
    DAMAGED = "damaged"


class PasswordHasher:
    """Hashes passwords in a few threads. At most `threads + queue` are accepted at a time, first come, first served."""

    def __init__(self, pool: ThreadPoolExecutor, cost: int, *, threads: int, queue: int, metrics: AuthMetrics) -> None:
        self._pool = pool
        self._cost = cost
        self._free_slots = threads + queue
        # The queue is in the event loop, not in the pool, so that `recheck` is called just before the work.
        self._threads = asyncio.Semaphore(threads)
        # A salt and a hash that no password has: used for unknown users.
        self._decoy = f"$2b${cost:02}$" + "." * 53
        self._metrics = metrics

    async def hash(self, password: str) -> str:
        """Return the hash to store, 60 ASCII characters; raise Problem 503 if the queue is full."""
        return await self._in_thread(lambda: self._hash(password))

    def is_outdated(self, stored: str) -> bool:
        """Return whether the stored hash has another cost than new ones."""
        form = _STORED.fullmatch(stored)
        return form is None or int(form.group(1)) != self._cost

    async def verify(self, password: str, stored: str | None, *, recheck: Recheck = no_recheck) -> Verdict:
        """Compare a password with a stored hash, or with a decoy if it is None; raise Problem 503 if the queue is full.

        `recheck` is called when a thread is free, and raises to skip the work: of many guesses in the queue, those
        after the last one permitted are not hashed.
        """
        return await self._in_thread(lambda: self._verify(password, stored), recheck)

    async def _in_thread(self, work: Callable[[], Result], recheck: Recheck = no_recheck) -> Result:
        if not self._free_slots:
            self._metrics.hashes_refused.inc()
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise Problem(503, "Too many people are logging in; try again.", code="busy", headers=headers)
        self._free_slots -= 1
        try:
            await self._threads.acquire()
        except BaseException:
            self._free_slots += 1
            raise
        try:
            recheck()
            future = self._pool.submit(work)
        except BaseException:
            self._free()
            raise
        loop = asyncio.get_running_loop()
        result = asyncio.wrap_future(future)

        def ended(_: "Future[Result]") -> None:
            with suppress(RuntimeError):  # the loop may have closed
                loop.call_soon_threadsafe(self._free)

        # Freed by the thread, not by the caller: if the caller goes away, the thread is still busy. Registered after
        # `wrap_future`, so that the caller resumes before the next in the queue, and a wrong password counts in time.
        future.add_done_callback(ended)
        return await result

    def _free(self) -> None:
        self._free_slots += 1
        self._threads.release()

    def _hash(self, password: str) -> str:
        with self._metrics.hash_seconds.time():
            return bcrypt.hashpw(_digest(prepared(password)), bcrypt.gensalt(self._cost)).decode()

    def _verify(self, password: str, stored: str | None) -> Verdict:
        form = prepared(password)
        verdict = self._compare(form, stored)
        if verdict is Verdict.RIGHT or form == password:
            return verdict
        # Also for a missing or damaged hash, so that the time is the same.
        return Verdict.RIGHT_AS_TYPED if self._compare(password, stored) is Verdict.RIGHT else verdict

    def _compare(self, form: str, stored: str | None) -> Verdict:
        digest = _digest(form)
        with self._metrics.hash_seconds.time():
            try:
                if stored is not None and _usable(stored):
                    return Verdict.RIGHT if bcrypt.checkpw(digest, stored.encode()) else Verdict.WRONG
            except ValueError:
                pass  # an invalid salt, which bcrypt refuses before it does any work
            bcrypt.checkpw(digest, self._decoy.encode())
        return Verdict.WRONG if stored is None else Verdict.DAMAGED


@contextmanager
def password_hasher(*, cost: int, threads: int, queue: int, metrics: AuthMetrics) -> Iterator[PasswordHasher]:
    """Run `threads` threads (0: one per core) until the context ends; work still in the queue is then dropped."""
    count = threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(count, thread_name_prefix="bcrypt")
    try:
        yield PasswordHasher(pool, cost, threads=count, queue=queue, metrics=metrics)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def prepared(password: str) -> str:
    """Return the form of a password that is hashed (RFC 8265, 4.2); texts too long for a password stay unchanged."""
    if len(password.encode()) > MAX_TYPED_BYTES:
        return password
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", spaced)


def password_error(password: str, about: Sequence[str] = ()) -> FieldError | None:
    """Return why a new password is unacceptable, or None. `about`: name and e-mail address, which must not be it.

    Characters and bytes are counted in the prepared form, in which a letter and its accent are one character.
    """
    form = prepared(password)
    if len(form) < MIN_PASSWORD_CHARS:
        return FieldError("password", "too_short", f"A password has at least {MIN_PASSWORD_CHARS} characters.")
    if len(form.encode()) > MAX_PASSWORD_BYTES:
        return FieldError("password", "too_long", f"A password has at most {MAX_PASSWORD_BYTES} bytes of UTF-8.")
    if is_common(form):
        return FieldError("password", "too_common", "This password is among the first that attackers try.")
    forbidden = (prepared(part).lower() for text in about for part in (text, text.partition("@")[0]))
    if form.lower() in forbidden:
        return FieldError("password", "too_common", "A password must not be the name or the e-mail address.")
    return None


def _digest(password: str) -> bytes:
    # bcrypt uses 72 bytes and stops at NUL. 64 base64 characters carry all of SHA-384, so every byte counts.
    return base64.b64encode(hashlib.sha384(password.encode()).digest())


def _usable(stored: str) -> bool:
    form = _STORED.fullmatch(stored)
    return form is not None and 4 <= int(form.group(1)) <= MAX_COST
