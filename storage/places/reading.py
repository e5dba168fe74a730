"""Reading a series over all places, in the direction in which its readings move.

`readings` is read first, then the state, then each sealed collection, then pieces, then blocks: each when the one
before is whole. A reading that moves meanwhile is met twice at worst, and of two copies the one with the lower seal
number stays. All of one question is asked in one session, so that after a failover nothing is older than what was read
before.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from pymongo import ReadPreference
from pymongo.read_concern import ReadConcern

from readings.collections import READINGS
from readings.document import split_documents
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.to_documents import documents_of
from storage.places.blocks import Blocks
from storage.places.documents import READABLE
from storage.places.moving import until_unmoved
from storage.places.names import BEGINNING, UNSEALED, sealed_name
from storage.places.raw import Raw, read_raw
from storage.places.state import State, read_state
from storage.places.window import Window, position_at

# Readings that a stream reads at a time, some 150 bytes each as documents.
STREAM_READINGS = 16_384


class Batch(NamedTuple):
    """The first readings of a window in its direction, None if it has none, and whether there may be more."""

    columns: Columns | None
    has_more: bool


class Places:
    """Reads one database. Every method raises the driver's errors, and BlockError when a block is damaged."""

    def __init__(self, client: Any, database: str) -> None:
        self._client = client
        self._database = client[database].with_options(
            codec_options=READABLE, read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self.blocks = Blocks(self._database)
        # As it was when last read; only the limits of retention are taken from here.
        self._state: State | None = None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Open the session of one question."""
        async with await self._client.start_session(causal_consistency=True) as session:
            yield session

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
            window, hot = await self._hot(window, limit, session)
            state = await self.state(session)
            if not state.waiting and not state.has_blocks:
                return split_documents(hot.documents)
            found = await self._loose(hot, state, window, limit, session)
            columns, _ = await self._with_blocks(found, state, limit, session, exact=True)
            return [] if columns is None else documents_of(columns)

    async def read(self, window: Window, limit: int, session: Any, *, exact: bool = True) -> Batch:
        """Return the first readings of a window, each once, in its direction.

        At most `limit`; if not `exact`, as many as are quickest to read.
        """
        found, state = await self.loose(window, limit, session)
        return await self._with_blocks(found, state, limit, session, exact=exact)

    async def stream(self, window: Window, limit: int | None = None) -> AsyncGenerator[Columns]:
        """Yield the readings of a window in its direction, at most `limit`, some thousand at a time."""
        left, has_more = limit, True
        while has_more and (left is None or left > 0):
            columns, has_more = await self.batch(window, left)
            if columns is not None:
                window = window.behind(position_at(columns, -1))
                left = None if left is None else left - len(columns)
                yield columns

    async def batch(self, window: Window, limit: int | None) -> Batch:
        """Return some thousand readings at the start of a window, at most `limit`."""
        most = STREAM_READINGS if limit is None else min(limit, STREAM_READINGS)
        async with self.session() as session:
            return await self.read(window, most, session, exact=limit is not None)

    async def loose(self, window: Window, limit: int, session: Any) -> tuple["Found", State]:
        """Return the first `limit` readings of a window that are in no block, and the state as it was after hot."""
        window, hot = await self._hot(window, limit, session)
        state = await self.state(session)
        return await self._loose(hot, state, window, limit, session), state

    async def _hot(self, window: Window, limit: int, session: Any) -> tuple[Window, Raw]:
        """Return a window without what is past its retention, and the first unsealed documents in it."""
        state = self._state or await self.state(session)
        oldest = state.oldest_ms(window.series["sensorType"], int(time.time() * 1000))
        if oldest is not None:
            window = replace(window, start=max(window.start, (oldest, BEGINNING[1])))
        return window, await self.raw(READINGS, window, limit, session)

    async def _loose(self, hot: Raw, state: State, window: Window, limit: int, session: Any) -> "Found":
        found = Found(window, limit)
        found.add(hot.columns(UNSEALED, window), is_cut=hot.is_cut)
        for number in state.waiting:
            raw = await self.raw(sealed_name(number), found.rest, limit, session)
            found.add(raw.columns(number, window), is_cut=raw.is_cut)
        if state.has_blocks:
            for piece in await until_unmoved(lambda: self.blocks.pieces(found.rest, session)):
                found.add(piece)
        return found

    async def _with_blocks(self, found: "Found", state: State, limit: int, session: Any, *, exact: bool) -> Batch:
        if state.has_blocks:
            found.add(await until_unmoved(lambda: self._of_blocks(found.rest, limit, session)), whole=not exact)
        return found.batch(exact=exact)

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


class Found:
    """What was found of the first `limit` readings of a window. `rest`: where the places that follow may have more."""

    def __init__(self, window: Window, limit: int) -> None:
        self.rest = window
        self._limit = limit
        self._is_cut = False
        self._parts: list[Columns] = []

    def add(self, columns: Columns | None, *, whole: bool = False, is_cut: bool = False) -> None:
        """Add the first readings of one place, in order: all that it has if they are fewer than the limit, or not cut.

        What lies behind as many as the limit is left out, or if they are to be kept `whole`, what lies behind them all.
        """
        columns = None if columns is None else self.rest.cut(columns)
        if columns is None or not len(columns):
            return
        self._parts.append(columns)
        if (count := len(columns)) >= self._limit or is_cut:
            self._is_cut = True
            last = count if whole else min(count, self._limit)
            self.rest = self.rest.until(position_at(columns, count - last if self.rest.descending else last - 1))

    def columns(self) -> Columns | None:
        """Return what was found, in order; None if that is nothing."""
        return self.rest.cut(first_wins(concatenate(self._parts)).columns) if self._parts else None

    def batch(self, *, exact: bool) -> Batch:
        """Return what was found, in the direction of the window, and no more than the limit if it is to be `exact`."""
        columns = self.columns()
        if columns is None:
            return Batch(None, has_more=False)
        is_long = exact and len(columns) > self._limit
        if is_long:
            columns = columns.take(slice(-self._limit, None) if self.rest.descending else slice(0, self._limit))
        if self.rest.descending:
            columns = columns.take(np.arange(len(columns))[::-1])
        return Batch(columns, self._is_cut or is_long)
