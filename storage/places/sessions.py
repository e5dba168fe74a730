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
        # The latest time of what any question has read: a later one reads nothing older.
        self._seen: Any = None

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Any]:
        """Lend a session to one question."""
        session = self._free.pop() if self._free else await self._client.start_session(causal_consistency=True)
        if self._seen is not None:
            session.advance_operation_time(self._seen)
        try:
            yield session
        finally:
            if self._seen is None or (session.operation_time is not None and session.operation_time > self._seen):
                self._seen = session.operation_time
        # Not after an error or a time limit: a command may still be using it.
        if len(self._free) < MAX_FREE:
            self._free.append(session)


class CausalReads:
    """Collections whose reads are all made in one session; writes are not, as several may be made at once.

    A majority read alone may be of an older time than the one before it: a primary that was just elected has all that a
    majority has, but knows only a moment later that a majority has it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.session: Any = None

    async def begin(self) -> Any:
        """Return a new session in place of the one before; every later read is made in it.

        What is written in it, by one call at a time, is seen by later reads; what is written without it,
        perhaps not, if there is a failover in between.
        """
        before, self.session = self.session, await self._client.start_session(causal_consistency=True)
        if before is not None:
            await before.end_session()
        return self.session

    def of(self, collection: Any) -> Any:
        """Return a collection that is read in the session, once there is one."""
        return _CausallyRead(collection, self)


class _CausallyRead:
    def __init__(self, collection: Any, reads: CausalReads) -> None:
        self._collection = collection
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    def find(self, *arguments: Any, **options: Any) -> Any:
        return self._collection.find(*arguments, session=self._reads.session, **options)

    async def find_one(self, *arguments: Any, **options: Any) -> Any:
        return await self._collection.find_one(*arguments, session=self._reads.session, **options)
