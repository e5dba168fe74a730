"""Throttling of claims, by address and by provisioning key. Every claim counts, whatever its outcome.

A fleet that is switched on at once, behind one address and with one key, has to pass; so the limits bound what claims
cost the database, not how often a key can be guessed, which nobody can. State and replicas are as in login_throttle.py.
"""

import time
from functools import partial

from aiohttp import web

from auth.device_claims import ClaimKey
from auth.login_throttle import MAX_KEYS, Limit, count_attempt
from auth.metrics import AuthMetrics
from auth.settings import AuthSettings
from runtime.http.addresses import ClientAddresses, network_of
from runtime.token_bucket import Clock, KeyedTokenBuckets


class ClaimThrottle:
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
        self._address = bucket(settings.address_claims, settings.address_claim_seconds)
        self._key = bucket(settings.provisioning_key_claims, settings.provisioning_key_claim_seconds)
        self._refused = metrics.rate_limited

    def count_address(self, request: web.Request) -> None:
        """Count a claim from an address; raise Problem 429 after too many."""
        count_attempt(Limit("address", self._address, network_of(self._addresses.of(request))), self._refused)

    def count_key(self, key: ClaimKey) -> None:
        """Count a claim with a provisioning key that exists; raise Problem 429 after too many."""
        count_attempt(Limit("key", self._key, key.id), self._refused)
