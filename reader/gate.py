"""How many requests may be answered at once, of everybody and of one owner; beyond it, a refusal and not a queue."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from reader.metrics import ReaderMetrics
from runtime.problems import Problem

RETRY_AFTER_S = 1


class Gate:
    """Counts who is inside."""

    def __init__(self, metrics: ReaderMetrics, what: str, *, most: int, most_per_owner: int) -> None:
        self._metrics = metrics
        self._what = what
        self._most = most
        self._most_per_owner = most_per_owner
        self._inside: Counter[str] = Counter()

    @contextmanager
    def entered(self, owner: str) -> Iterator[None]:
        """Stay inside as long as the context lasts; Problem 429 or 503 where there is no room."""
        if self._inside[owner] >= self._most_per_owner:
            raise self._refused(429, "owner", self._most_per_owner)
        if self._inside.total() >= self._most:
            raise self._refused(503, "everybody", self._most)
        self._inside[owner] += 1
        try:
            yield
        finally:
            self._inside[owner] -= 1
            if not self._inside[owner]:
                del self._inside[owner]

    def _refused(self, status: int, scope: str, limit: int) -> Problem:
        self._metrics.busy.labels(scope).inc()
        code = "rate_limited" if status == 429 else "busy"
        return Problem(
            status,
            f"{limit} {self._what} at once are answered; come again.",
            code=code,
            headers={"Retry-After": str(RETRY_AFTER_S)},
            extra={"limit": limit, "scope": scope, "retryAfterMs": RETRY_AFTER_S * 1000},
        )
