"""Causally consistent sessions: after a failover, nothing that is read in one is older than what was read before."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

MAX_FREE = 64


class Sessions:
    """Sessions that one question after the other uses: to open and to end one takes two calls of the driver."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._free: list[Any] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """Lend a session to one question."""
        session = self._free.pop() if self._free else await self._client.start_session(causal_consistency=True)
        yield session
        # Not after an error or a time limit: a command may still be using it.
        if len(self._free) < MAX_FREE:
            self._free.append(session)
