"""When sessions end with their tokens: each is warned a minute before, then told, and closed."""

import asyncio
import time
from collections.abc import Callable

# The clock of the timers and the calendar may drift apart over a month.
_SLACK_S = 0.01

Tell = Callable[[str, bool], None]
"""Takes the socket's id and whether the token is over (True) or about to be (False)."""


class Expiries:
    """One timer a session. Times are seconds since 1970."""

    def __init__(self, warn_s: float, tell: Tell) -> None:
        self._warn_s = warn_s
        self._tell = tell
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set(self, sid: str, expires_at: float) -> None:
        """Warn and end the session at its times; to be called again when its token is another."""
        self.drop(sid)
        self._wait(sid, expires_at, warned=False)

    def drop(self, sid: str) -> None:
        """Forget a session."""
        if (timer := self._timers.pop(sid, None)) is not None:
            timer.cancel()

    def _wait(self, sid: str, expires_at: float, *, warned: bool) -> None:
        due_s = expires_at - time.time() - (0 if warned else self._warn_s)
        loop = asyncio.get_running_loop()
        self._timers[sid] = loop.call_later(max(0.0, due_s), self._due, sid, expires_at, warned)

    def _due(self, sid: str, expires_at: float, warned: bool) -> None:
        due_at = expires_at - (0 if warned else self._warn_s)
        if time.time() < due_at - _SLACK_S:
            self._wait(sid, expires_at, warned=warned)
        elif warned:
            del self._timers[sid]
            self._tell(sid, True)
        else:
            self._wait(sid, expires_at, warned=True)
            self._tell(sid, False)
