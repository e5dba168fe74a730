"""Limits on concurrent requests, in total and per owner; excess requests wait briefly in a queue.

At most as many requests wait as may run, for at most `wait_s` seconds: a page's burst of requests succeeds, and a
client over its limit gets 429 or 503.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reader.metrics import ReaderMetrics
from runtime.http.problems import Problem

RETRY_AFTER_S = 1


class ConcurrencyLimiter:
    """Grants slots first come, first served, skipping owners that have reached their own limit."""

    def __init__(
        self, metrics: ReaderMetrics, what: str, *, limit: int, limit_per_owner: int, wait_s: float = 0.0
    ) -> None:
        """Limit `what` (a plural noun for error details); with `wait_s` 0 nothing waits."""
        self._metrics = metrics
        self._what = what
        self._limit = limit
        self._limit_per_owner = limit_per_owner
        self._wait_s = wait_s
        self._active: Counter[str] = Counter()
        # Waiters and their owners, in order of arrival.
        self._waiters: dict[asyncio.Future[None], str] = {}
        self._waiting_per_owner: Counter[str] = Counter()

    @asynccontextmanager
    async def slot(self, owner: str) -> AsyncIterator[None]:
        """Hold a slot while the context is open; Problem 429 or 503 when none becomes free in time."""
        if self._has_slot(owner):  # no waiter could use it: it would have been granted the slot
            self._active[owner] += 1
        else:
            await self._wait_for_slot(owner)
        try:
            yield
        finally:
            self._release(owner)

    def _has_slot(self, owner: str) -> bool:
        return self._active[owner] < self._limit_per_owner and self._active.total() < self._limit

    async def _wait_for_slot(self, owner: str) -> None:
        queue_full = len(self._waiters) >= self._limit or self._waiting_per_owner[owner] >= self._limit_per_owner
        if queue_full or not self._wait_s:
            raise self._rejection(*self._exceeded(owner))
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = owner
        self._waiting_per_owner[owner] += 1
        try:
            await asyncio.wait((waiter,), timeout=self._wait_s)
        except asyncio.CancelledError:
            if waiter.done():
                self._release(owner)
            raise
        finally:
            self._waiters.pop(waiter, None)
            _decrement(self._waiting_per_owner, owner)
        if not waiter.done():
            raise self._rejection(*self._exceeded(owner))

    def _release(self, owner: str) -> None:
        _decrement(self._active, owner)
        for waiter, waiting_owner in list(self._waiters.items()):
            if self._active.total() >= self._limit:
                return
            if self._has_slot(waiting_owner):
                self._active[waiting_owner] += 1
                del self._waiters[waiter]
                waiter.set_result(None)

    def _exceeded(self, owner: str) -> tuple[int, str, int]:
        """Return the status, scope and value of the limit that was reached."""
        if self._active[owner] >= self._limit_per_owner:
            return 429, "owner", self._limit_per_owner
        return 503, "everybody", self._limit

    def _rejection(self, status: int, scope: str, limit: int) -> Problem:
        self._metrics.busy.labels(scope).inc()
        code = "rate_limited" if status == 429 else "busy"
        return Problem(
            status,
            f"At most {limit} {self._what} are served at a time; try again later.",
            code=code,
            headers={"Retry-After": str(RETRY_AFTER_S)},
            extra={"limit": limit, "scope": scope, "retryAfterMs": RETRY_AFTER_S * 1000},
        )


def _decrement(counts: Counter[str], owner: str) -> None:
    counts[owner] -= 1
    if not counts[owner]:
        del counts[owner]
