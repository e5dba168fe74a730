"""Reading a series over all places, in the direction in which its readings move.

`readings` is read first, then the state, then each sealed collection, then pieces, then blocks: each when the one
before is whole. A reading that moves meanwhile is met twice at worst, and of two copies the one with the lower seal
number stays. All of one question is asked in one session, so that after a failover nothing is older than what was read
before.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import pymongo
from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from readings.collections import READINGS
from readings.document import split_documents
from runtime.mongodb import in_driver_thread
from storage.codec.columns import Columns
from storage.codec.to_documents import documents_of
from storage.places.documents import READABLE
from storage.places.first import FirstReadings
from storage.places.found import Batch
from storage.places.moving import until_unmoved
from storage.places.names import BLOCKS, PIECES, sealed_name
from storage.places.sessions import Sessions
from storage.places.state import State, read_state
from storage.places.window import Window, position_at

# Readings that a stream asks for at first, and then at most; in between, as many as have some BYTES as documents. 4,096
# usual ones have 0.7 MB, and 0.5 MB as CSV; in the driver they are in memory several times.
FIRST_READINGS, STREAM_READINGS, BYTES = 1000, 4096, 1024 * 1024
Result = TypeVar("Result")


class Places:
    """Reads one database. Raises the driver's errors, and BlockError or DocumentError for what is damaged."""

    def __init__(self, client: Any, database: str) -> None:
        self._database = client[database].with_options(
            codec_options=READABLE, read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self.session = Sessions(client).one
        self._first = FirstReadings(self._database.delegate)

    def collection(self, name: str) -> Any:
        """Return one of the collections, as readers ask it."""
        return self._database[name]

    async def state(self, session: Any) -> State:
        """Read the state."""
        return await read_state(self._database[BLOCKS], session)

    async def ask(self, read: Callable[[FirstReadings, Any], Result], session: Any) -> Result:
        """Return what a function reads in a session of the synchronous driver, in one of its threads.

        All that it reads together has the client's time limit.
        """

        def limited() -> Result:
            with pymongo.timeout(self._database.delegate.client.options.timeout):
                return read(self._first, session.delegate)

        return await in_driver_thread(limited)

    async def documents(self, window: Window, limit: int) -> list[bytes]:
        """Return at most `limit` readings of a window as documents, in its direction."""

        def read(first: FirstReadings, session: Any) -> list[bytes]:
            found, hot, state = first.read(window, limit, session, exact=True)
            if not (state.waiting or state.has_blocks) or (found.places == 1 and hot.documents):
                return split_documents(hot.documents)
            columns, _, _ = found.batch(exact=True)
            return [] if columns is None else documents_of(columns)

        async with self.session() as session:
            return await self.ask(read, session)

    async def page(self, window: Window, limit: int) -> Batch:
        """Return at most `limit` readings of a window, in its direction."""
        async with self.session() as session:
            return await self.ask(
                lambda first, session: first.read(window, limit, session, exact=True).found.batch(exact=True), session
            )

    async def stream(self, window: Window, limit: int | None = None) -> AsyncGenerator[Columns]:
        """Yield the readings of a window in its direction, at most `limit`, some thousand at a time."""
        left, has_more, size = limit, True, FIRST_READINGS
        while has_more and (left is None or left > 0):
            columns, has_more, size = await self.batch(window, left, size)
            if columns is not None:
                window = window.behind(position_at(columns, -1))
                left = None if left is None else left - len(columns)
                yield columns

    async def batch(self, window: Window, limit: int | None, size: int) -> Batch:
        """Return the readings at the start of a window, at most `limit`: `size`, or as many as are quickest to read."""
        most = min(size, STREAM_READINGS) if limit is None else min(limit, size, STREAM_READINGS)
        exact = limit is not None

        def read(first: FirstReadings, session: Any) -> Batch:
            found = first.read(window, most, session, exact=exact).found
            found_bytes, count = max(found.bytes, 1), found.documents
            following = BYTES * count // found_bytes if count else STREAM_READINGS
            return found.batch(exact=exact)._replace(next_size=min(max(following, FIRST_READINGS), STREAM_READINGS))

        async with self.session() as session:
            return await self.ask(read, session)

    async def has_any(self, query: dict[str, Any]) -> bool:
        """Return whether a filter on the first fields of keys finds anything in any place."""
        async with self.session() as session:
            if await self.has(READINGS, query, session):
                return True
            state = await self.state(session)
            names = [sealed_name(number) for number in state.waiting]
            for name in [*names, *((PIECES, BLOCKS) if state.has_blocks else ())]:
                if await self.has(name, query, session):
                    return True
        return False

    async def has(self, name: str, query: dict[str, Any], session: Any) -> bool:
        """Return whether a filter finds anything in one of the collections."""

        async def find() -> Any:
            return await self._database[name].find_one(query, {"_id": 1}, session=session)

        return await until_unmoved(find) is not None
