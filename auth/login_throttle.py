"""Login throttling: after too many failures the next attempt has to wait, but never indefinitely (OWASP ASVS 5, 6.3.1).

Only failures count, and each is counted before the next guess is hashed. A log-in is checked against three buckets,
each of which refills over time:

- the account from this address: one client that tries many passwords, or the owner who has forgotten theirs;
- the account from anywhere: many addresses that try one account (100 an hour, the limit of NIST SP 800-63B, 3.2.2);
- the address: one client that tries many accounts.

Attackers cannot lock an owner out: an address that once logged in to the account with the right password is checked
against the first bucket only, which other addresses cannot empty. During an attack, an owner at a new address competes
with it for attempts. Responses do not reveal whether an account exists. Refresh tokens and sign-ups have buckets of
their own, by address; every sign-up counts, whatever its outcome. New API keys have one by account: a key that is
deleted leaves a revocation that every gateway and reader keeps for as long as the key would have lived.

All state is in memory and bounded: each replica counts separately, so n replicas allow n times as many attempts, and a
restart resets the counts. The limits only need to separate a few guesses a minute from a million.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from aiohttp import web
from prometheus_client import Counter

from auth.accounts import email_key
from auth.metrics import AuthMetrics
from auth.settings import AuthSettings
from runtime.http.addresses import ClientAddresses, network_of
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.token_bucket import Clock, KeyedTokenBuckets

log = logger("auth.audit")

Scope = Literal["account", "address", "key"]

# about 350 bytes each. To push a key out of memory takes as many failures of others, each the time of a hash.
MAX_KEYS = 50_000
# New API keys of a user: as many as there may be at a time, then one a minute.
API_KEY_BURST = 100
API_KEY_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket and the key to check in it."""

    scope: Scope
    bucket: KeyedTokenBuckets
    key: str


class ThrottledAttempt:
    """One attempt at a log-in, refresh, sign-up or claim; the caller reports its failure with `failed`."""

    def __init__(self, checked: list[Limit], counted: list[Limit], refused: Counter) -> None:
        self._checked = checked
        self._counted = counted
        self._refused = refused
        self.has_failed = False

    def check(self) -> None:
        """Raise Problem 429 if a limit is exceeded; call again after any wait, as other attempts may have failed."""
        limit = max(self._checked, key=lambda each: each.bucket.wait_s(each.key))
        wait_s = limit.bucket.wait_s(limit.key)
        if wait_s:
            self._refused.labels(limit.scope).inc()
            raise _rate_limited(limit, wait_s)

    def failed(self) -> None:
        """Count the attempt as a failure."""
        self.has_failed = True
        for limit in self._counted:
            had_room = not limit.bucket.wait_s(limit.key)
            limit.bucket.take(limit.key)
            wait_s = limit.bucket.wait_s(limit.key)
            if had_room and wait_s:
                log.warning("Too many attempts; the next has to wait.", scope=limit.scope, wait_s=round(wait_s, 1))


def count_attempt(limit: Limit, refused: Counter) -> None:
    """Count an attempt whatever its outcome; raise Problem 429 after too many."""
    attempt = ThrottledAttempt([limit], [limit], refused)
    attempt.check()
    attempt.failed()


class LoginThrottle:
    """The throttle of one replica."""

    def __init__(
        self,
        settings: AuthSettings,
        addresses: ClientAddresses,
        metrics: AuthMetrics,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        bucket = partial(KeyedTokenBuckets, max_keys=MAX_KEYS, clock=clock)
        self._addresses = addresses
        self._account_from_address = bucket(settings.account_failures, settings.account_failure_seconds)
        self._account = bucket(settings.account_failures_anywhere, settings.account_failure_anywhere_seconds)
        self._address = bucket(settings.address_failures, settings.address_failure_seconds)
        self._refreshes = bucket(settings.address_failures, settings.address_failure_seconds)
        self._sign_ups = bucket(settings.address_signups, settings.address_signup_seconds)
        self._api_keys = bucket(API_KEY_BURST, API_KEY_EVERY_S)
        # Pairs of account and address that have logged in successfully, least recently used first.
        self._trusted: OrderedDict[str, None] = OrderedDict()
        self._refused = metrics.rate_limited

    @contextmanager
    def log_in(self, request: web.Request, email: str) -> Iterator[ThrottledAttempt]:
        """Guard an attempt at a password; raise Problem 429 after too many failures."""
        network, account = network_of(self._addresses.of(request)), email_key(email)
        pair = f"{account} {network}"
        limits = [
            Limit("account", self._account_from_address, pair),
            Limit("account", self._account, account),
            Limit("address", self._address, network),
        ]
        attempt = ThrottledAttempt(limits[:1] if pair in self._trusted else limits, limits, self._refused)
        attempt.check()
        yield attempt
        if not attempt.has_failed:  # and nothing was raised: the password was right
            self._account_from_address.reset(pair)
            self._trust(pair)

    @contextmanager
    def refresh(self, request: web.Request) -> Iterator[ThrottledAttempt]:
        """Guard an attempt at a refresh token; raise Problem 429 after too many failures."""
        limits = [Limit("address", self._refreshes, network_of(self._addresses.of(request)))]
        attempt = ThrottledAttempt(limits, limits, self._refused)
        attempt.check()
        yield attempt

    def sign_up(self, request: web.Request) -> None:
        """Count a sign-up; raise Problem 429 after too many from its address."""
        count_attempt(Limit("address", self._sign_ups, network_of(self._addresses.of(request))), self._refused)

    def new_api_key(self, user_id: str) -> None:
        """Count a new API key; raise Problem 429 after too many of its user."""
        count_attempt(Limit("account", self._api_keys, user_id), self._refused)

    def _trust(self, pair: str) -> None:
        self._trusted[pair] = None
        self._trusted.move_to_end(pair)
        if len(self._trusted) > MAX_KEYS:
            self._trusted.popitem(last=False)


def _rate_limited(limit: Limit, wait_s: float) -> Problem:
    return Problem(
        429,
        f"Too many attempts; try again in {math.ceil(wait_s)} s.",
        code="rate_limited",
        headers={"Retry-After": str(math.ceil(wait_s))},
        extra={"limit": limit.bucket.burst, "scope": limit.scope, "retryAfterMs": math.ceil(wait_s * 1000)},
    )
