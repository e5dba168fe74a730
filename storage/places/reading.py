"""Reading a series over all places, in the direction in which its readings move.

`readings` is read first, then the state, then each sealed collection, then pieces, then blocks: each when the one
before is whole. A reading that moves meanwhile is met twice at worst, and of two copies the one with the lower seal
number stays. All of one question is asked in one session, so that after a failover nothing is older than what was read
before.
"""

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from readings.collections import READINGS
from readings.document import split_documents
from runtime.mongodb import in_driver_thread
from storage.codec.columns import Columns, concatenate
from storage.codec.to_documents import documents_of
from storage.places.blocks import Blocks
from storage.places.documents import READABLE
from storage.places.found import Batch, Found
from storage.places.loose import Loose, LooseReadings
from storage.places.moving import until_unmoved
from storage.places.names import PIECES, sealed_name
from storage.places.pieces import Pieces
from storage.places.sessions import Sessions
from storage.places.state import State, read_state
from storage.places.threads import in_thread_if_large
from storage.places.window import Window, position_at

# Readings that a stream asks for at first, and then at most: so many that they have some BYTES as documents. 4,096
# usual ones have 0.7 MB, and 0.5 MB as CSV; in the driver they are several times in memory.
FIRST_READINGS, STREAM_READINGS, BYTES = 1000, 4096, 1024 * 1024


class Place(NamedTuple):
    """A collection of documents, and the seal number of its readings."""

    name: str
    number: int


class Places:
    """Reads one database. Raises the driver's errors, and BlockError or DocumentError for what is damaged."""

    def __init__(self, client: Any, database: str) -> None:
        self._database = client[database].with_options(
            codec_options=READABLE, read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self.blocks = Blocks(self._database)
        self.session = Sessions(client).one
        self._loose_readings = LooseReadings(self._database.delegate)

    def collection(self, name: str) -> Any:
        """Return one of the collections, as readers ask it."""
        return self._database[name]

    async def state(self, session: Any) -> State:
        """Read the state."""
        return await read_state(self.blocks.heads, session)

    async def documents(self, window: Window, limit: int) -> list[bytes]:
        """Return at most `limit` readings of a window as documents, in its direction."""
        async with self.session() as session:
            found, hot, state = await self._loose(window, limit, session)
            if not state.waiting and not state.has_blocks:
                return split_documents(hot.documents)
            await self._add_pieces_and_blocks(found, state, limit, session, exact=True)
            if found.places == 1 and hot.documents:
                return split_documents(hot.documents)
            columns, _, _ = found.batch(exact=True)
            return [] if columns is None else documents_of(columns)

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
        async with self.session() as session:
            found, _, state = await self._loose(window, most, session)
            await self._add_pieces_and_blocks(found, state, most, session, exact=limit is not None)
            found_bytes, count = max(found.bytes, 1), found.documents
            following = BYTES * count // found_bytes if count else STREAM_READINGS
            batch = await in_thread_if_large(found.count(), lambda: found.batch(exact=limit is not None))
            return batch._replace(next_size=min(max(following, FIRST_READINGS), STREAM_READINGS))

    async def loose(self, window: Window, limit: int, session: Any) -> tuple[Found, State]:
        """Return the first `limit` readings of a window that are in no block, and the state as it was after hot."""
        found, _, state = await self._loose(window, limit, session)
        if state.has_blocks:
            pieces = await self._pieces(found.rest, session)
            found.add(await pieces.first(found.rest, limit))
        return found, state

    async def has_any(self, query: dict[str, Any]) -> bool:
        """Return whether a filter on the first fields of keys finds anything in any place."""
        async with self.session() as session:
            if await self.has(READINGS, query, session):
                return True
            state = await self.state(session)
            names = [sealed_name(number) for number in state.waiting]
            for name in [*names, *((PIECES, self.blocks.heads.name) if state.has_blocks else ())]:
                if await self.has(name, query, session):
                    return True
        return False

    async def has(self, name: str, query: dict[str, Any], session: Any) -> bool:
        """Return whether a filter finds anything in one of the collections."""

        async def find() -> Any:
            return await self._database[name].find_one(query, {"_id": 1}, session=session)

        return await until_unmoved(find) is not None

    async def _loose(self, window: Window, limit: int, session: Any) -> Loose:
        return await in_driver_thread(lambda: self._loose_readings.read(window, limit, session.delegate))

    async def _pieces(self, window: Window, session: Any) -> Pieces:
        return await until_unmoved(lambda: self.blocks.pieces(window, session))

    async def _add_pieces_and_blocks(
        self, found: Found, state: State, limit: int, session: Any, *, exact: bool
    ) -> None:
        """Add what is in pieces and blocks; pieces are opened only where the readings are that will be returned."""
        if not state.has_blocks or found.rest.is_empty:
            return
        pieces = await self._pieces(found.rest, session)
        if pieces.count >= limit:
            found.add(await pieces.first(found.rest, limit))
        found.add(await until_unmoved(lambda: self._of_blocks(found.rest, limit, session)), whole=not exact)
        if pieces.count < limit:
            found.add(await pieces.first(found.rest, limit))

    async def _of_blocks(self, window: Window, limit: int, session: Any) -> Columns | None:
        """Return the readings of the first blocks of a window in order, at least `limit` if it has so many."""
        found: list[Columns] = []
        count = 0
        async for stored in self.blocks.walk(window, session):
            if stored.lies_in(window):
                columns = window.cut(await self.blocks.columns(stored, session))
                found.append(columns)
                count += len(columns)
                if count >= limit:
                    break
        return concatenate(found[::-1] if window.descending else found) if found else None
