"""The blocks of a series: which of them have readings of a window, and these readings."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import bson
from pymongo.read_concern import ReadConcern

from readings.document import AS_MILLISECONDS, split_documents
from readings.filters import in_time_range
from readings.keys import Position
from storage.codec.block import Block, decode_block
from storage.codec.columns import Columns
from storage.codec.head_sums import HeadSums, head_sums_from
from storage.codec.packed import BlockError
from storage.places.documents import StoredHead, columns_key, head_end, stored_head
from storage.places.moving import PlacesChanged
from storage.places.names import BLOCKS, COLUMNS, PIECES
from storage.places.pieces import Pieces, pieces_filter
from storage.places.threads import in_thread_if_large
from storage.places.window import Window

_SETTLED = {"pending": {"$exists": False}}
# Heads fetched at once where many are needed; some hundred bytes for each hour that they sum up.
HEADS_PER_QUERY = 500


class StoredSums(NamedTuple):
    """The sums of a block, and its whole head as it is stored."""

    sums: HeadSums
    document: bytes

    def stored(self) -> StoredHead:
        """Return the head; BlockError when it is damaged."""
        return stored_head(bson.decode(self.document, AS_MILLISECONDS))


class Blocks:
    """Pieces and blocks of one database. Every method raises the driver's errors and BlockError."""

    def __init__(self, database: Any) -> None:
        options: dict[str, Any] = {"codec_options": AS_MILLISECONDS, "read_concern": ReadConcern("majority")}
        self.heads = database.get_collection(BLOCKS, **options)
        self._columns = database.get_collection(COLUMNS, **options)
        self._pieces = database.get_collection(PIECES, **options)

    async def pieces(self, window: Window, session: Any) -> Pieces:
        """Return the pieces that may have readings of a window."""
        # By ascending _id: what is merged meanwhile is found further on.
        found = self._pieces.find(pieces_filter(window), session=session).sort("_id", 1)
        return Pieces([document async for document in found])

    async def columns(self, stored: StoredHead, session: Any, *, positions_alone: bool = False) -> Columns:
        """Return the readings of a block, or only their ts and seq; PlacesChanged if its head has been replaced."""
        key = columns_key(stored.head.key, stored.head.start, stored.columns)
        document = await self._columns.find_one({"_id": key}, session=session)
        if document is None:
            raise PlacesChanged
        if not isinstance(data := document.get("data"), bytes):
            raise BlockError("the columns of a block have no data")
        block = Block(stored.head, data)
        return await in_thread_if_large(
            stored.head.sums.count, lambda: decode_block(block, positions_alone=positions_alone)
        )

    async def walk(self, window: Window, session: Any) -> AsyncIterator[StoredHead]:
        """Yield the live blocks of a window one after the other, in its direction; PlacesChanged if one is missing."""
        if window.descending:
            async for stored in self._walk_down(window, session):
                yield stored
            return
        first = await self._first(window, session)
        if first is None:
            return
        yield first
        stored = first
        while stored.head.until < window.end:
            stored = await self._at(window, stored, session)
            yield stored

    async def sums_of(self, window: Window, session: Any) -> list[StoredSums]:
        """Return the sums of the first HEADS_PER_QUERY live blocks of a window, lowest first; fewer are all of them.

        PlacesChanged if one is missing.
        """
        first = await self._first(window, session)
        if first is None:
            return []
        query = {"_id": {"$gte": first.head.key, "$lt": window.key(window.end)}}
        cursor = self.heads.find_raw_batches(query, limit=HEADS_PER_QUERY, batch_size=HEADS_PER_QUERY, session=session)
        documents = [one async for batch in cursor.sort("_id", 1) for one in split_documents(batch)]
        live = await in_thread_if_large(len(documents) * 20, lambda: _live_sums(documents, first.head.start))
        if not live or (len(documents) < HEADS_PER_QUERY and live[-1].sums.until < window.end):
            raise PlacesChanged
        return live

    async def _first(self, window: Window, session: Any) -> StoredHead | None:
        """Return the live block in which a window starts, or else the first one behind that."""
        begin = {"$gte": in_time_range(window.series)["_id"]["$gte"], "$lte": window.key(window.start)}
        found = await self.heads.find_one({"_id": begin, **_SETTLED}, sort=[("_id", -1)], session=session)
        if found is None:  # what was before has been removed
            rest = {"$gt": window.key(window.start), "$lt": window.key(window.end)}
            found = await self.heads.find_one({"_id": rest, **_SETTLED}, sort=[("_id", 1)], session=session)
            return None if found is None else stored_head(found)
        # Of a block before the window, nothing else has to be readable.
        while (until := head_end(found)) <= window.start:
            found = await self._document_at(window, until, session)
        return stored_head(found)

    async def _at(self, window: Window, before: StoredHead, session: Any) -> StoredHead:
        """Return the block that begins where another one ends."""
        return stored_head(await self._document_at(window, before.head.until, session))

    async def _document_at(self, window: Window, start: Position, session: Any) -> dict[str, Any]:
        found: dict[str, Any] | None = await self.heads.find_one({"_id": window.key(start)}, session=session)
        if found is None:
            raise PlacesChanged
        return found

    async def _walk_down(self, window: Window, session: Any) -> AsyncIterator[StoredHead]:
        lowest = in_time_range(window.series)["_id"]["$gte"]
        end = window.end
        above: StoredHead | None = None
        while True:
            query = {"_id": {"$gte": lowest, "$lt": window.key(end)}, **_SETTLED}
            found = await self.heads.find_one(query, sort=[("_id", -1)], session=session)
            if found is None:
                return
            # A block that is still marked as pending, though it is live, lies between two that are not.
            chain = [stored_head(found)]
            while chain[-1].head.until < end:
                chain.append(await self._at(window, chain[-1], session))
            if above is not None and chain[-1].head.until != end:
                raise PlacesChanged
            for stored in reversed(chain):
                yield stored
            above, end = chain[0], chain[0].head.start
            if end <= window.start:
                return


def _live_sums(documents: list[bytes], start: Position) -> list[StoredSums]:
    """Return the sums of heads that follow each other from `start` on; PlacesChanged if one is missing."""
    live: list[StoredSums] = []
    for document in documents:
        sums = head_sums_from(document)
        if sums.start == start:
            live.append(StoredSums(sums, document))
            start = sums.until
        elif sums.start > start:
            raise PlacesChanged
    return live
