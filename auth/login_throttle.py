"""Limits on guessing: what fails too often has to wait, and never for ever (OWASP ASVS 5, 6.3.1).

Only failures count, and they are counted before any password is hashed for the next guess. A log-in passes three
buckets, each of which fills again with time:

- the account from this address: one who tries many passwords for one account, or its owner who has forgotten it;
- the account from anywhere: many addresses that try one account (100 an hour, the bound of NIST SP 800-63B, 3.2.2);
- the address: one who tries many accounts.

Nobody locks another out: an address from which the account's password was once right answers to the first bucket only,
which strangers elsewhere cannot empty. An owner at a new address during an attack competes for a place with it.
What is said does not tell whether there is such an account. Refresh tokens and sign-ups have buckets of their own, by
address: a sign-up counts whatever comes of it.

Everything is in memory and bounded: each replica counts for itself, so n of them allow n times as much, and a restart
forgives. That is the difference between a few guesses a minute and a million, which is what the limits are for.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from auth.accounts import email_key
from auth.settings import AuthSettings
from runtime.http.addresses import ClientAddresses, network_of
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.token_bucket import Clock, KeyedTokenBuckets

log = logger("auth.audit")

Scope = Literal["account", "address"]

# Some 350 bytes each. To push a key out of memory takes as many failures of others, each the time of a hash.
MAX_KEYS = 50_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A bucket and whose place in it is meant."""

    scope: Scope
    bucket: KeyedTokenBuckets
    key: str


class Attempt:
    """One try at a password or a refresh token. Whoever makes it says when it failed."""

    def __init__(self, asked: list[Limit], counted: list[Limit], refused: Counter) -> None:
        self._asked = asked
        self._counted = counted
        self._refused = refused
        self.has_failed = False

    def check(self) -> None:
        """Raise Problem 429 when there is no room; to be asked again after a wait, for others may have failed."""
        limit = max(self._asked, key=lambda each: each.bucket.wait_s(each.key))
        wait_s = limit.bucket.wait_s(limit.key)
        if wait_s:
            self._refused.labels(limit.scope).inc()
            raise _rate_limited(limit, wait_s)

    def failed(self) -> None:
        """Count the try as a failure."""
        self.has_failed = True
        for limit in self._counted:
            had_room = not limit.bucket.wait_s(limit.key)
            limit.bucket.take(limit.key)
            wait_s = limit.bucket.wait_s(limit.key)
            if had_room and wait_s:
                log.warning("Too many attempts; the next has to wait.", scope=limit.scope, wait_s=round(wait_s, 1))


class GuessingLimits:
    """The limits of one replica."""

    def __init__(
        self,
        settings: AuthSettings,
        addresses: ClientAddresses,
        registry: CollectorRegistry,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        def bucket(burst: int, every_s: float) -> KeyedTokenBuckets:
            return KeyedTokenBuckets(burst, every_s, max_keys=MAX_KEYS, clock=clock)

        self._addresses = addresses
        self._here = bucket(settings.account_failures, settings.account_failure_seconds)
        self._anywhere = bucket(settings.account_failures_anywhere, settings.account_failure_anywhere_seconds)
        self._address = bucket(settings.address_failures, settings.address_failure_seconds)
        self._refreshes = bucket(settings.address_failures, settings.address_failure_seconds)
        self._sign_ups = bucket(settings.address_signups, settings.address_signup_seconds)
        # Accounts with an address that once knew the password. The longest unused comes first.
        self._known: OrderedDict[str, None] = OrderedDict()
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
        limits = [
            Limit("account", self._here, here),
            Limit("account", self._anywhere, account),
            Limit("address", self._address, network),
        ]
        attempt = Attempt(limits[:1] if here in self._known else limits, limits, self._refused)
        attempt.check()
        yield attempt
        if not attempt.has_failed:  # nor was anything raised: the password was right
            self._here.reset(here)
            self._remember(here)

    @contextmanager
    def refresh(self, request: web.Request) -> Iterator[Attempt]:
        """Guard a try at a refresh token; Problem 429 when there were too many failures."""
        limits = [Limit("address", self._refreshes, network_of(self._addresses.of(request)))]
        attempt = Attempt(limits, limits, self._refused)
        attempt.check()
        yield attempt

    def sign_up(self, request: web.Request) -> None:
        """Count a sign-up; Problem 429 when there were too many from its address."""
        limits = [Limit("address", self._sign_ups, network_of(self._addresses.of(request)))]
        attempt = Attempt(limits, limits, self._refused)
        attempt.check()
        attempt.failed()

    def _remember(self, here: str) -> None:
        self._known[here] = None
        self._known.move_to_end(here)
        if len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)


def _rate_limited(limit: Limit, wait_s: float) -> Problem:
    return Problem(
        429,
        f"Too many attempts; try again in {math.ceil(wait_s)} s.",
        code="rate_limited",
        headers={"Retry-After": str(math.ceil(wait_s))},
        extra={"limit": limit.bucket.burst, "scope": limit.scope, "retryAfterMs": math.ceil(wait_s * 1000)},
    )
