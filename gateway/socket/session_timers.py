"""Timers for the end of each session's token: a warning a minute before, then the expiry.

A timer of the event loop would count the monotonic clock from the moment it was set, and miss a clock that was set or a
host that slept. So the time of day is compared four times a second, for all sessions at once: the next timers are on
top of a heap, and a check of 100,000 sessions of which none is due costs as much as one of a single session.
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

POLL_EVERY_S = 0.25
# Timers run before other tasks get a turn.
_BATCH = 500
# Cancelled timers are removed from the heap when they outnumber the active ones by this.
_MAX_STALE = 1000

OnExpiry = Callable[[str, bool], None]
"""Called with the socket's id and whether the token has expired (True) or is about to (False)."""


class _Timer(NamedTuple):
    """A session's next timer. `at` and `expires_at` are in seconds since 1970."""

    at: float
    sid: str
    expires_at: float
    expired: bool


class SessionTimers:
    """The timers of all sessions. Times are seconds since 1970; `on_expiry` is called while `running` is entered."""

    def __init__(self, warn_s: float, on_expiry: OnExpiry) -> None:
        """`on_expiry` is called `warn_s` seconds before a token expires, and again when it does."""
        self._warn_s = warn_s
        self._on_expiry = on_expiry
        self._next: dict[str, _Timer] = {}
        self._heap: list[_Timer] = []

    def __len__(self) -> int:
        return len(self._next)

    def schedule(self, sid: str, expires_at: float) -> None:
        """Set the session's timers; call again when it has another token."""
        self._push(_Timer(expires_at - self._warn_s, sid, expires_at, expired=False))

    def cancel(self, sid: str) -> None:
        """Remove the session's timers."""
        self._next.pop(sid, None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run due timers until the context is left."""
        async with background(self._run(), name="session timers"):
            yield

    async def _run(self) -> None:
        while True:
            more = False
            try:
                more = self.run_due() == _BATCH
            except Exception:  # an error at one session's expiry must not keep the timers of others from running
                log.exception("A session could not be ended with its token.")
            await asyncio.sleep(0 if more else POLL_EVERY_S)

    def run_due(self) -> int:
        """Run the timers that are due now, at most 500; return how many were taken off the heap."""
        now, taken = time.time(), 0
        while self._heap and self._heap[0].at <= now and taken < _BATCH:
            taken += 1
            timer = heapq.heappop(self._heap)
            if self._next.get(timer.sid) is not timer:
                continue
            if timer.expired:
                del self._next[timer.sid]
            else:
                self._push(timer._replace(at=timer.expires_at, expired=True))
            self._on_expiry(timer.sid, timer.expired)
        return taken

    def _push(self, timer: _Timer) -> None:
        self._next[timer.sid] = timer
        heapq.heappush(self._heap, timer)
        if len(self._heap) > 2 * len(self._next) + _MAX_STALE:
            self._heap = list(self._next.values())
            heapq.heapify(self._heap)
