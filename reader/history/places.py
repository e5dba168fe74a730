"""A few places for work that would crowd out everything else: each owner has a share, and owners take turns."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_Turn = asyncio.Future[None]


class Places:
    """Gives `most` places, at most `most_per_owner` of them to one owner; the others wait, each in its owner's line.

    A place that falls free goes to the next line that may have it (round robin): who has a thousand questions waits for
    them, and not whoever has one. Nothing is refused here; how long to wait is the caller's to say.
    """

    def __init__(self, most: int, most_per_owner: int) -> None:
        self._most = most
        self._most_per_owner = most_per_owner
        self._held: Counter[str] = Counter()
        self._held_by_all = 0
        # The lines of those who wait, the one whose turn is next first. No line is empty.
        self._lines: OrderedDict[str, deque[_Turn]] = OrderedDict()

    @asynccontextmanager
    async def one(self, owner: str) -> AsyncIterator[None]:
        """Hold a place as long as the context lasts, after a wait for it."""
        # Lines that wait while there is room are of owners who have their share: nobody is overtaken.
        if self._held_by_all < self._most and self._has_room(owner):
            self._take(owner)
        else:
            await self._wait(owner)
        try:
            yield
        finally:
            self._leave(owner)

    async def _wait(self, owner: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._lines.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place was given in the same moment
                self._leave(owner)
            raise

    def _take(self, owner: str) -> None:
        self._held[owner] += 1
        self._held_by_all += 1

    def _leave(self, owner: str) -> None:
        self._held_by_all -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        # Passed over are those who have their share, at most as many as there are places.
        while (following := next((each for each in self._lines if self._has_room(each)), None)) is not None:
            line = self._lines[following]
            while line and line[0].cancelled():  # who has given up
                line.popleft()
            turn = line.popleft() if line else None
            if line:
                self._lines.move_to_end(following)
            else:
                del self._lines[following]
            if turn is not None:
                self._take(following)
                turn.set_result(None)
                return

    def _has_room(self, owner: str) -> bool:
        return self._held[owner] < self._most_per_owner
