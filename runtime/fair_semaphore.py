"""A semaphore shared by owners: each may hold a share of the slots, and owners take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Waiter = asyncio.Future[None]


class FairSemaphore:
    """Grants `limit` slots, at most `limit_per_owner` to one owner; further requests wait in a queue per owner.

    A released slot goes to the next queue that may use it (round robin): an owner with a thousand requests waits for
    them without delaying an owner with one. Nothing is rejected here; timeouts are the caller's.
    """

    def __init__(self, limit: int, limit_per_owner: int) -> None:
        self._limit = limit
        self._limit_per_owner = limit_per_owner
        self._held: Counter[str] = Counter()
        self._held_in_total = 0
        # The waiters of each owner, the owner whose turn is next first. No queue is empty.
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()

    @asynccontextmanager
    async def slot(self, owner: str) -> AsyncIterator[None]:
        """Hold a slot while the context is open; waits until one is free."""
        # While slots are free, only owners that have used up their share wait: this overtakes nobody.
        if self._held_in_total < self._limit and self._may_acquire(owner):
            self._acquire(owner)
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._release(owner)

    async def _wait(self, owner: str) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, deque()).append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the slot was granted at the same moment
                self._release(owner)
            raise

    def _acquire(self, owner: str) -> None:
        self._held[owner] += 1
        self._held_in_total += 1

    def _release(self, owner: str) -> None:
        self._held_in_total -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        while (next_owner := self._next_owner()) is not None:
            queue = self._queues[next_owner]
            while queue and queue[0].cancelled():
                queue.popleft()
            waiter = queue.popleft() if queue else None
            if queue:
                self._queues.move_to_end(next_owner)
            else:
                del self._queues[next_owner]
            if waiter is not None:
                self._acquire(next_owner)
                waiter.set_result(None)
                return

    def _next_owner(self) -> str | None:
        """Return the next waiting owner below its share; skips at most as many owners as there are slots."""
        return next((owner for owner in self._queues if self._may_acquire(owner)), None)

    def _may_acquire(self, owner: str) -> bool:
        return self._held[owner] < self._limit_per_owner
