"""Limits on guessing: what fails too often has to wait, and never for ever.

Only failures count. Three buckets are asked before any password is hashed:

- an account from one address: a thief who tries one account, or its owner who has forgotten;
- an account from anywhere: thieves with many addresses. It is wide, for its owner waits too while it is empty;
- an address: one who tries many accounts, refresh tokens, or both.

Each is a bucket that fills again with time; a failure that was already on its way when it ran empty is a debt, so that
guessing in parallel gains nothing. Sign-ups have a bucket of their own by address, in which each one counts.

Everything is in memory and bounded: each replica counts for itself, so n of them allow n times as much, and a restart
forgives. What is asked of them is the difference between ten guesses a minute and a million.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from auth.accounts import email_key
from auth.settings import AuthSettings
from runtime.addresses import ClientAddresses, network_of
from runtime.problems import Problem

# Some 200 bytes each.
MAX_KEYS = 100_000


class Bucket:
    """Holds up to `burst` failures a key and forgives one every `every_s` seconds (GCRA: one number a key)."""

    def __init__(
        self, burst: int, every_s: float, *, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS
    ) -> None:
        self.burst = burst
        self._every_s = every_s
        self._clock = clock
        self._max_keys = max_keys
        # When a key's bucket will be full again.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return how long the key has to wait; 0 when there is room for one more."""
        now = self._clock()
        return max(0.0, self._full_at.get(key, now) - now - (self.burst - 1) * self._every_s)

    def take(self, key: str) -> None:
        """Count one."""
        now = self._clock()
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._every_s
        self._full_at.move_to_end(key)
        while self._full_at and (len(self._full_at) > self._max_keys or next(iter(self._full_at.values())) <= now):
            self._full_at.popitem(last=False)

    def forgive(self, key: str) -> None:
        """Forget the key's failures."""
        self._full_at.pop(key, None)


@dataclass(slots=True)
class Attempt:
    """One try. Whoever makes it says when it failed."""

    has_failed: bool = False

    def failed(self) -> None:
        """Count the try as a failure."""
        self.has_failed = True


class GuessingLimits:
    """The limits of one replica."""

    def __init__(
        self,
        settings: AuthSettings,
        addresses: ClientAddresses,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._addresses = addresses
        self._here = Bucket(settings.account_failures, settings.account_failure_seconds, clock=clock)
        self._anywhere = Bucket(
            settings.account_failures_anywhere, settings.account_failure_anywhere_seconds, clock=clock
        )
        self._address = Bucket(settings.address_failures, settings.address_failure_seconds, clock=clock)
        self._sign_ups = Bucket(settings.address_signups, settings.address_signup_seconds, clock=clock)
        self._refused = Counter(
            "tidegate_auth_rate_limited_total", "Requests refused for too many failures.", ["scope"], registry=registry
        )
        for scope in ("account", "address"):
            self._refused.labels(scope)

    @contextmanager
    def log_in(self, request: web.Request, email: str) -> Iterator[Attempt]:
        """Guard a try at a password; Problem 429 when there were too many failures."""
        network, account = network_of(self._addresses.of(request)), email_key(email)
        here = f"{account} {network}"
        self._check("account", self._here, here)
        self._check("account", self._anywhere, account)
        self._check("address", self._address, network)
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if attempt.has_failed:
                self._here.take(here)
                self._anywhere.take(account)
                self._address.take(network)
        self._here.forgive(here)  # reached by a success only

    @contextmanager
    def refresh(self, request: web.Request) -> Iterator[Attempt]:
        """Guard a try at a refresh token; Problem 429 when there were too many failures."""
        network = network_of(self._addresses.of(request))
        self._check("address", self._address, network)
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if attempt.has_failed:
                self._address.take(network)

    def sign_up(self, request: web.Request) -> None:
        """Count a sign-up; Problem 429 when there were too many from its address."""
        network = network_of(self._addresses.of(request))
        self._check("address", self._sign_ups, network)
        self._sign_ups.take(network)

    def _check(self, scope: str, bucket: Bucket, key: str) -> None:
        wait_s = bucket.wait_s(key)
        if not wait_s:
            return
        self._refused.labels(scope).inc()
        raise Problem(
            429,
            f"Too many attempts; try again in {wait_s:.0f} s." if wait_s >= 1 else "Too many attempts; try again soon.",
            code="rate_limited",
            headers={"Retry-After": str(int(wait_s) + 1)},
            extra={"limit": bucket.burst, "scope": scope, "retryAfterMs": int(wait_s * 1000) + 1},
        )
