"""Reading a series over all places, in the direction in which its readings move.

`readings` is read first, then the state, then each sealed collection, then pieces, then blocks: each when the one
before is whole. A reading that moves meanwhile is met twice at worst, and of two copies the one with the lower seal
number stays. All of one question is asked in one session, so that after a failover nothing is older than what was read
before.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from readings.collections import READINGS
from readings.document import DocumentError, split_documents
from storage.codec.columns import Columns, concatenate
from storage.codec.to_documents import documents_of
from storage.places.blocks import Blocks
from storage.places.documents import READABLE
from storage.places.found import Batch, Found
from storage.places.moving import until_unmoved
from storage.places.names import BEGINNING, PIECES, UNSEALED, sealed_name
from storage.places.pieces import Pieces
from storage.places.raw import Raw, read_raw
from storage.places.sealed_bounds import SealedBounds
from storage.places.sessions import Sessions
from storage.places.state import DAY_MS, State, read_state
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
        # As it was when last read; only the limits of retention are taken from here.
        self._state: State | None = None
        self._sealed_bounds = SealedBounds()

    def collection(self, name: str) -> Any:
        """Return one of the collections, as readers ask it."""
        return self._database[name]

    async def state(self, session: Any) -> State:
        """Read the state."""
        self._state = await read_state(self.blocks.heads, session)
        return self._state

    async def documents(self, window: Window, limit: int) -> list[bytes]:
        """Return at most `limit` readings of a window as documents, in its direction."""
        async with self.session() as session:
            window, hot, state = await self._hot(window, limit, session)
            if not state.waiting and not state.has_blocks:
                return split_documents(hot.documents)
            found = await self._documents(hot, state, window, limit, session)
            await self._add_pieces_and_blocks(found, state, limit, session, exact=True)
            if found.places == 1 and hot.documents:
                return split_documents(hot.documents)
            columns, _, _ = await found.batch(exact=True)
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
            window, hot, state = await self._hot(window, most, session)
            found = await self._documents(hot, state, window, most, session)
            await self._add_pieces_and_blocks(found, state, most, session, exact=limit is not None)
            found_bytes, count = max(found.bytes, 1), found.documents
            following = BYTES * count // found_bytes if count else STREAM_READINGS
            batch = await found.batch(exact=limit is not None)
            return batch._replace(next_size=min(max(following, FIRST_READINGS), STREAM_READINGS))

    async def loose(self, window: Window, limit: int, session: Any) -> tuple[Found, State]:
        """Return the first `limit` readings of a window that are in no block, and the state as it was after hot."""
        window, hot, state = await self._hot(window, limit, session)
        found = await self._documents(hot, state, window, limit, session)
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

    async def _hot(self, window: Window, limit: int, session: Any) -> tuple[Window, Raw, State]:
        """Return a window without what is past its retention, the first unsealed documents in it, and then the state.

        The limit is that of the state: hot is read again if it was another one before.
        """
        state = self._state or await self.state(session)
        while True:
            days = state.days(window.series["sensorType"])
            retained = _retained(window, days)
            hot = await self.raw(READINGS, retained, limit, session)
            state = await self.state(session)
            if state.days(window.series["sensorType"]) == days:
                return retained, hot, state

    async def _documents(self, hot: Raw, state: State, window: Window, limit: int, session: Any) -> Found:
        found = Found(window, limit)
        await found.add_documents(hot, UNSEALED)
        # What is sealed last is mostly the newest.
        for number in reversed(state.waiting) if window.descending else state.waiting:
            if self._sealed_bounds.may_have(number, found.rest):
                await self._add_sealed(found, number, limit, state, session)
        return found

    async def _add_sealed(self, found: Found, number: int, limit: int, state: State, session: Any) -> None:
        window = found.rest
        raw = await self.raw(sealed_name(number), window, limit, session)
        with suppress(DocumentError):
            self._sealed_bounds.note(state, number, window, raw.first_position())
        await found.add_documents(raw, number)

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

    async def raw(self, name: str, window: Window, limit: int, session: Any) -> Raw:
        """Return the first documents of a window in `readings` or a sealed collection."""
        return await until_unmoved(lambda: read_raw(self._database[name], window, limit, session))


def _retained(window: Window, days: int) -> Window:
    """Return a window without what is older than a number of days; 0 for no limit."""
    if not days:
        return window
    oldest_ms = int(time.time() * 1000) - days * DAY_MS
    return replace(window, start=max(window.start, (oldest_ms, BEGINNING[1])))
