"""When sessions end with their tokens: each is warned a minute before, then told, and closed.

A timer would count the monotonic clock from the moment that it was set, and know nothing of a clock that was put right
or a host that slept. So the time of day is looked at four times a second, for all sessions at once: those that are due
next are on top of a heap, and a look at 100,000 sessions of which none is due costs as much as one at a single session.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from runtime.background import background
from runtime.logs import logger

log = logger("gateway.socket.session_timers")

LOOK_EVERY_S = 0.25
# After so many others have a turn.
_LOOKED_AT_ONCE = 500
# What is in the heap but holds no longer is thrown out when it is more than what holds, and than this.
_MOST_STALE = 1000

Tell = Callable[[str, bool], None]
"""Takes the socket's id and whether the token is over (True) or about to be (False)."""


class _Due(NamedTuple):
    """What comes next for a session. `at` and `expires_at` are in seconds since 1970."""

    at: float
    sid: str
    expires_at: float
    over: bool


class Expiries:
    """When each session's token ends. Times are seconds since 1970; who is due is told within `kept`."""

    def __init__(self, warn_s: float, tell: Tell) -> None:
        self._warn_s = warn_s
        self._tell = tell
        self._next: dict[str, _Due] = {}
        self._heap: list[_Due] = []

    def __len__(self) -> int:
        return len(self._next)

    def set(self, sid: str, expires_at: float) -> None:
        """Warn and end the session at its times; to be called again when its token is another."""
        self._wait(_Due(expires_at - self._warn_s, sid, expires_at, over=False))

    def drop(self, sid: str) -> None:
        """Forget a session."""
        self._next.pop(sid, None)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Tell who is due as long as the context lasts."""
        async with background(self._keep(), name="expiries"):
            yield

    async def _keep(self) -> None:
        while True:
            more = False
            try:
                more = self.look() == _LOOKED_AT_ONCE
            except Exception:  # what one session's end runs into must not keep all others from theirs
                log.exception("The end of a session's token could not be told.")
            await asyncio.sleep(0 if more else LOOK_EVERY_S)

    def look(self) -> int:
        """Tell who is due now; return how many were looked at, which are at most 500."""
        now, looked_at = time.time(), 0
        while self._heap and self._heap[0].at <= now and looked_at < _LOOKED_AT_ONCE:
            looked_at += 1
            due = heapq.heappop(self._heap)
            if self._next.get(due.sid) is not due:
                continue
            if due.over:
                del self._next[due.sid]
            else:
                self._wait(due._replace(at=due.expires_at, over=True))
            self._tell(due.sid, due.over)
        return looked_at

    def _wait(self, due: _Due) -> None:
        self._next[due.sid] = due
        heapq.heappush(self._heap, due)
        if len(self._heap) > 2 * len(self._next) + _MOST_STALE:
            self._heap = list(self._next.values())
            heapq.heapify(self._heap)
