"""How many requests may be answered at once, of everybody and of one owner; beyond it they wait a little in a queue.

The queue is as long as what is inside, and short in time: a page's burst of questions is answered, and who asks for
more than there is room for hears so.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from reader.metrics import ReaderMetrics
from runtime.http.problems import Problem

RETRY_AFTER_S = 1


class Gate:
    """Counts who is inside, and lets those in who wait, first come first served among those for whom there is room."""

    def __init__(
        self, metrics: ReaderMetrics, what: str, *, most: int, most_per_owner: int, wait_s: float = 0.0
    ) -> None:
        self._metrics = metrics
        self._what = what
        self._most = most
        self._most_per_owner = most_per_owner
        self._wait_s = wait_s
        self._inside: Counter[str] = Counter()
        # Who waits, in the order of their coming.
        self._waiting: dict[asyncio.Future[None], str] = {}
        self._waiting_of: Counter[str] = Counter()

    @asynccontextmanager
    async def entered(self, owner: str) -> AsyncIterator[None]:
        """Stay inside as long as the context lasts; Problem 429 or 503 where there is no room, nor in time."""
        if self._has_room(owner):  # nobody waits for it: whoever could have it has been let in
            self._inside[owner] += 1
        else:
            await self._let_in_later(owner)
        try:
            yield
        finally:
            self._leave(owner)

    def _has_room(self, owner: str) -> bool:
        return self._inside[owner] < self._most_per_owner and self._inside.total() < self._most

    async def _let_in_later(self, owner: str) -> None:
        if not self._wait_s or self._waiting_of[owner] >= self._most_per_owner or len(self._waiting) >= self._most:
            raise self._refused(*self._full(owner))
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = owner
        self._waiting_of[owner] += 1
        try:
            await asyncio.wait((turn,), timeout=self._wait_s)
        except asyncio.CancelledError:
            if turn.done():
                self._leave(owner)
            raise
        finally:
            self._waiting.pop(turn, None)
            _take_one(self._waiting_of, owner)
        if not turn.done():
            raise self._refused(*self._full(owner))

    def _leave(self, owner: str) -> None:
        _take_one(self._inside, owner)
        for turn, waiting in list(self._waiting.items()):
            if self._inside.total() >= self._most:
                return
            if self._has_room(waiting):
                self._inside[waiting] += 1
                del self._waiting[turn]
                turn.set_result(None)

    def _full(self, owner: str) -> tuple[int, str, int]:
        if self._inside[owner] >= self._most_per_owner:
            return 429, "owner", self._most_per_owner
        return 503, "everybody", self._most

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


def _take_one(counts: Counter[str], owner: str) -> None:
    counts[owner] -= 1
    if not counts[owner]:
        del counts[owner]
