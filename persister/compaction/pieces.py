"""Reads and writes the pieces of series."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import bson
from bson import MaxKey, ObjectId

from persister.compaction.planner import PIECE_MAX
from persister.compaction.positions import cut
from readings.document import AS_MILLISECONDS
from readings.keys import Key
from storage.codec.columns import Columns
from storage.codec.packed import BlockTooLarge
from storage.codec.to_documents import documents_of
from storage.places.documents import Piece, piece_document, piece_of
from storage.places.pieces import of_pieces

Name = tuple[str, str, str]
# Of a piece that is planned with: its bounds and its size. What a decoded document costs adds up.
_BOUNDS = {"columns": 0, "newest": 0, "version": 0}
# One scan over all series between the first and the last, while it does not find more than this a series asked for.
_FOREIGN = 16


def name_of(key: Key) -> Name:
    """Return the names of a series, in order, of any key that begins with them."""
    return key["owner"], key["device"], key["sensorType"]


def new_run(
    series: Key, level: int, columns: Iterable[Columns], newest: bytes | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the documents of a run of pieces with these ordered readings, of which no piece has those of two columns.

    `newest` is the document of the last one, if it is at hand.
    """
    run = ObjectId()
    parts = [part for each in columns for part in cut(each, PIECE_MAX)]
    while parts:
        part = parts.pop(0)
        document = newest if newest is not None and not parts else documents_of(part.take(slice(-1, None)))[0]
        fields = bson.decode(document, AS_MILLISECONDS)
        key = fields.pop("_id")
        try:
            yield piece_document(series, level, run, part, {"ts": key["ts"], "seq": key["seq"], **fields})
        except BlockTooLarge:
            if len(part) == 1:  # which only a document written by hand can be
                raise
            parts[:0] = cut(part, -(-len(part) // 2))


class Pieces:
    """The pieces of one database. Every method raises the driver's errors."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    async def of(self, series: Sequence[Key]) -> dict[Name, list[Piece]]:
        """Return the pieces of series, which are in order, without their columns, in ascending order."""
        found: dict[Name, list[Piece]] = {name_of(key): [] for key in series}
        query = {"_id": {"$gte": series[0], "$lt": {**series[-1], "level": MaxKey()}}}
        left = _FOREIGN * len(series) + 100
        cursor = self._collection.find(query, _BOUNDS).sort("_id", 1).limit(left)
        last: Name | None = None
        async for document in cursor:
            last = name_of(document["_id"])
            left -= 1
            if last in found:
                found[last].append(_piece(document))
        if not left and last is not None:
            await self._each(found, [key for key in series if _bytes(name_of(key)) >= _bytes(last)])
        return found

    async def _each(self, found: dict[Name, list[Piece]], series: Iterable[Key]) -> None:
        """Read the pieces of one series after the other, as there are too many others between them."""
        for key in series:
            cursor = self._collection.find(of_pieces(key), _BOUNDS).sort("_id", 1)
            found[name_of(key)] = [_piece(document) async for document in cursor]

    async def load(self, pieces: Sequence[Piece]) -> dict[ObjectId, dict[str, Any]]:
        """Return the documents of pieces by the last part of their key; some may have been deleted meanwhile."""
        if not pieces:
            return {}
        cursor = self._collection.find({"_id": {"$in": [piece.key for piece in pieces]}})
        return {document["_id"]["id"]: document async for document in cursor}

    async def insert(self, documents: Sequence[dict[str, Any]]) -> None:
        """Insert pieces."""
        if documents:
            await self._collection.insert_many(documents, ordered=False)

    async def delete(self, pieces: Sequence[Piece]) -> None:
        """Delete pieces whose readings are elsewhere."""
        if pieces:
            await self._collection.delete_many({"_id": {"$in": [piece.key for piece in pieces]}})

    async def delete_series(self, bounds: dict[str, Any]) -> None:
        """Delete all pieces in bounds of `readings.filters`."""
        await self._collection.delete_many(bounds)


def _piece(document: dict[str, Any]) -> Piece:
    return piece_of(document | {"newest": {}})


def _bytes(name: Name) -> tuple[bytes, ...]:
    # MongoDB compares texts by their bytes.
    return tuple(part.encode() for part in name)
