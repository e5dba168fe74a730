"""A semaphore shared by parties: each may hold a share of the slots, and parties take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Waiter = asyncio.Future[None]


class FairSemaphore:
    """Grants `limit` slots, at most `limit_per_party` to one party; further requests wait in a queue per party.

    A released slot goes to the next queue that may use it (round robin): a party with a thousand requests waits for
    them without delaying a party with one. Nothing is rejected here; timeouts are the caller's.
    """

    def __init__(self, limit: int, limit_per_party: int) -> None:
        self._limit = limit
        self._limit_per_party = limit_per_party
        self._held: Counter[str] = Counter()
        self._held_in_total = 0
        # The waiters of each party, the party whose turn is next first. No queue is empty.
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    @asynccontextmanager
    async def slot(self, party: str) -> AsyncIterator[None]:
        """Hold a slot while the context is open; waits until one is free."""
        # While slots are free, only parties that have used up their share wait: this overtakes nobody.
        if self._held_in_total < self._limit and self._may_acquire(party):
            self._acquire(party)
        else:
            await self._wait(party)
        try:
            yield
        finally:
            self._release(party)

    async def _wait(self, party: str) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._queues.setdefault(party, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the slot was granted at the same moment
                self._release(party)
            raise

    def _acquire(self, party: str) -> None:
        self._held[party] += 1
        self._held_in_total += 1

    def _release(self, party: str) -> None:
        self._held_in_total -= 1
        self._held[party] -= 1
        if not self._held[party]:
            del self._held[party]
        while (next_party := self._next_party()) is not None:
            queue = self._queues[next_party]
            while queue and queue[0].cancelled():
                queue.popleft()
            waiter = queue.popleft() if queue else None
            if queue:
                self._queues.move_to_end(next_party)
            else:
                del self._queues[next_party]
            if waiter is not None:
                self._acquire(next_party)
                waiter.set_result(None)
                return

    def _next_party(self) -> str | None:
        """Return the next waiting party below its share; skips at most as many parties as there are slots."""
        return next((party for party in self._queues if self._may_acquire(party)), None)

    def _may_acquire(self, party: str) -> bool:
        return self._held[party] < self._limit_per_party
