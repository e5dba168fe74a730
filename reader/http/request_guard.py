"""What every question has in common: whose it is, whether there is room for it, how long it took, how it fails."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from access.bearer import Bearer
from access.revocations import RevocationList, revocation_keys_of
from access.tokens import Verified
from reader.history.from_mongodb import HistoryUnavailable
from reader.http.concurrency import Gate
from reader.metrics import ReaderMetrics
from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("reader")

SCOPE = "readings:read"
RETRY_AFTER_S = 2


class Asking:
    """Lets owners ask for what is theirs."""

    def __init__(
        self, bearer: Bearer, revocations: RevocationList, questions: Gate, exports: Gate, metrics: ReaderMetrics
    ) -> None:
        self._bearer = bearer
        self._revocations = revocations
        self._questions = questions
        self._exports = exports
        self._metrics = metrics

    async def claims(self, request: web.Request) -> Verified:
        """Return the claims of a token that may read; Problem 401, 403 or 503."""
        return await self._bearer.claims(request, SCOPE)

    def is_active(self, claims: Verified) -> bool:
        """Say whether a token that was good when its question began still is: for answers that take long."""
        return time.time() < claims.exp and not self._revocations.is_revoked(revocation_keys_of(claims))

    @asynccontextmanager
    async def asked(self, owner: str, call: str) -> AsyncIterator[None]:
        """Answer one question within; Problem 429 or 503 when there is no room, 503 when MongoDB does not answer."""
        started = time.perf_counter()
        gate = self._exports if call == "export" else self._questions
        async with gate.entered(owner):
            try:
                yield
            except HistoryUnavailable as error:
                self._metrics.failures.inc()
                log.warning("MongoDB did not answer.", call=call, error=str(error))
                raise Problem(
                    503,
                    "The readings cannot be read at the moment.",
                    code="unavailable",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                    extra={"retryAfterMs": RETRY_AFTER_S * 1000},
                ) from error
            finally:
                self._metrics.query_seconds.labels(call).observe(time.perf_counter() - started)
