"""Authentication, admission, timing and error mapping shared by all requests for history."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from access.bearer import Bearer, forbidden, require_covered
from access.claims import Verified
from access.revocations import RevocationList, revocation_keys_of
from reader.history.from_mongodb import HistoryUnavailable
from reader.http.concurrency import ConcurrencyLimiter
from reader.metrics import ReaderMetrics
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("reader")

SCOPE, WRITE_SCOPE = "readings:read", "readings:write"
RETRY_AFTER_S = 2


class RequestGuard:
    """Admits requests of owners to their own readings."""

    def __init__(
        self,
        bearer: Bearer,
        revocations: RevocationList,
        queries: ConcurrencyLimiter,
        exports: ConcurrencyLimiter,
        metrics: ReaderMetrics,
    ) -> None:
        self._bearer = bearer
        self._revocations = revocations
        self._queries = queries
        self._exports = exports
        self._metrics = metrics

    async def claims(self, request: web.Request) -> Verified:
        """Return the claims of a token that may read, and covers the devices that the request names.

        Problem 401, 403 or 503. If a request names no device, limit the response to the `devices` of the claims.
        """
        return _covering(await self._bearer.claims(request, SCOPE), request)

    async def claims_of_device(self, request: web.Request) -> Verified:
        """Return the claims of a token that may read or send, as `claims` otherwise."""
        claims = await self._bearer.claims(request)
        if not claims.allows(SCOPE) and not claims.allows(WRITE_SCOPE):
            raise forbidden(WRITE_SCOPE)
        return _covering(claims, request)

    def token_active(self, claims: Verified) -> bool:
        """Return whether a token that was valid when its request began still is; for responses that take long."""
        return time.time() < claims.exp and not self._revocations.is_revoked(revocation_keys_of(claims))

    @asynccontextmanager
    async def admitted(self, owner: str, call: str) -> AsyncIterator[None]:
        """Run one request in the context; Problem 429 or 503 without a free slot, 503 when MongoDB fails."""
        started = time.perf_counter()
        limiter = self._exports if call == "export" else self._queries
        async with limiter.slot(owner):
            try:
                yield
            except HistoryUnavailable as error:
                self._metrics.failures.inc()
                log.warning("MongoDB did not respond.", call=call, error=str(error))
                raise Problem(
                    503,
                    "The readings cannot be read at the moment.",
                    code="unavailable",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                    extra={"retryAfterMs": RETRY_AFTER_S * 1000},
                ) from error
            finally:
                self._metrics.query_seconds.labels(call).observe(time.perf_counter() - started)


def _covering(claims: Verified, request: web.Request) -> Verified:
    """Return the claims of a token that covers every device that a request names; Problem 403."""
    for device in (*request.query.getall("device", ()), *request.headers.getall("X-Device-Id", ())):
        require_covered(claims, device)
    if "id" in request.match_info:
        require_covered(claims, request.match_info["id"])
    return claims
