"""The blocks of a series: which of them have readings of a window, and these readings."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import bson

from readings.document import AS_MILLISECONDS
from readings.filters import in_time_range
from readings.keys import Position
from storage.codec.block import decode_columns
from storage.codec.columns import Columns
from storage.codec.head_table import HeadTable, head_table, live_heads
from storage.codec.packed import BlockError
from storage.places.commands import find_document
from storage.places.documents import SUMS, LiveBlock, columns_key, head_end, live_block, series_name
from storage.places.moving import PlacesChanged
from storage.places.names import BLOCKS, COLUMNS
from storage.places.raw_find import find_first
from storage.places.window import Window

_SETTLED = {"pending": {"$exists": False}}
WITHOUT_SUMS: dict[str, Any] = dict.fromkeys(SUMS, 0)
# Heads fetched at once where many are needed; some hundred bytes for each hour that they sum up.
HEADS_PER_QUERY = 2000


class FoundHead(NamedTuple):
    """The last document of a `head_query`, without its sums; None if there is none."""

    document: dict[str, Any] | None


def head_query(window: Window) -> dict[str, Any]:
    """Return the filter of the heads of which the last one is where a window is read first.

    It depends on the end of the window from which that is read, not on the other one.
    """
    lowest = in_time_range(window.series)["_id"]["$gte"]
    bound = {"$lt": window.key(window.end)} if window.descending else {"$lte": window.key(window.start)}
    return {"_id": {"$gte": lowest, **bound}, **_SETTLED}


class Blocks:
    """The blocks of one database of the synchronous driver. Every method raises its errors and BlockError."""

    def __init__(self, database: Any) -> None:
        self._heads = database.get_collection(BLOCKS, codec_options=AS_MILLISECONDS)
        self._columns = database.get_collection(COLUMNS, codec_options=AS_MILLISECONDS)

    def columns(self, block: LiveBlock, session: Any, *, positions_alone: bool = False) -> Columns:
        """Return the readings of a block, or only their ts and seq; PlacesChanged if its head has been replaced."""
        key = columns_key(block.key, block.start, block.columns)
        document = find_document(self._columns, {"_id": key}, {}, session=session)
        if document is None:
            raise PlacesChanged
        if not isinstance(data := document.get("data"), bytes):
            raise BlockError("the columns of a block have no data")
        return decode_columns(data, series_name(block.key), block.count, positions_alone=positions_alone)

    def walk(self, window: Window, session: Any, found: FoundHead | None = None) -> Iterator[LiveBlock]:
        """Yield the live blocks of a window one after the other, in its direction; PlacesChanged if one is missing.

        `found`: what `head_query` has found, if that was asked already.
        """
        if window.descending:
            yield from self._walk_down(window, session, found)
            return
        block = self._first(window, session, found)
        while block is not None:
            yield block
            if block.until >= window.end:
                return
            block = live_block(self._document_at(window, block.until, session))

    def heads_in(self, window: Window, session: Any) -> HeadTable | None:
        """Return the heads of the first live blocks of a window, HEADS_PER_QUERY or fewer; None if there are none.

        The last one ends after the window if these are all. PlacesChanged if one is missing.
        """
        first = self._first(window, session)
        if first is None:
            return None
        query = {"_id": {"$gte": first.key, "$lt": window.key(window.end)}}
        found = find_first(self._heads, query, limit=HEADS_PER_QUERY, session=session)
        live = live_heads(head_table(found.documents), first.start)
        is_all = found.total < HEADS_PER_QUERY and not found.is_cut
        if live is None or (is_all and tuple(live.until[-1].tolist()) < window.end):
            raise PlacesChanged
        return live

    def opened(self, document: bytes, session: Any, *, positions_alone: bool = False) -> Columns:
        """Return the readings of the block with this head, as `columns`."""
        block = live_block(bson.decode(document, AS_MILLISECONDS))
        return self.columns(block, session, positions_alone=positions_alone)

    def _first(self, window: Window, session: Any, asked: FoundHead | None = None) -> LiveBlock | None:
        """Return the live block in which a window starts, or else the first one after that."""
        found = self._begin(replace(window, descending=False), session, asked)
        if found is None:  # what was before has been removed
            rest = {"$gt": window.key(window.start), "$lt": window.key(window.end)}
            found = self._find({"_id": rest, **_SETTLED}, session)
            return None if found is None else live_block(found)
        # Of a block before the window, nothing else has to be readable.
        while (until := head_end(found)) <= window.start:
            found = self._document_at(window, until, session)
        return live_block(found)

    def _document_at(self, window: Window, start: Position, session: Any) -> dict[str, Any]:
        """Return the head of the block that begins where another one ends."""
        found = self._find({"_id": window.key(start)}, session)
        if found is None:
            raise PlacesChanged
        return found

    def _find(self, query: dict[str, Any], session: Any, *, last: bool = False) -> dict[str, Any] | None:
        """Return the first or the last head in the order of `_id`, without its sums."""
        return find_document(self._heads, query, WITHOUT_SUMS, last=last, session=session)

    def _begin(self, window: Window, session: Any, asked: FoundHead | None) -> dict[str, Any] | None:
        """Return what `head_query` finds, or has found."""
        return self._find(head_query(window), session, last=True) if asked is None else asked.document

    def _walk_down(self, window: Window, session: Any, asked: FoundHead | None) -> Iterator[LiveBlock]:
        end = window.end
        above: LiveBlock | None = None
        while True:
            found = self._begin(replace(window, end=end), session, asked)
            asked = None
            if found is None:
                return
            # A block that is still marked as pending, though it is live, lies between two that are not.
            chain = [live_block(found)]
            while chain[-1].until < end:
                chain.append(live_block(self._document_at(window, chain[-1].until, session)))
            if above is not None and chain[-1].until != end:
                raise PlacesChanged
            yield from reversed(chain)
            above, end = chain[0], chain[0].start
            if end <= window.start:
                return
