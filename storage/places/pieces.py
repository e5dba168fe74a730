"""The pieces of a series that a question needs, opened only where it needs them."""

from typing import Any

from bson import MaxKey, MinKey

from readings.keys import Key
from storage.codec.columns import Columns, concatenate, first_wins
from storage.places.blocks import WITHOUT_SUMS, FoundHead, head_query
from storage.places.commands import ask
from storage.places.documents import Piece, piece_columns, piece_of, series_name
from storage.places.names import BLOCKS
from storage.places.window import Window, after, position_index


def of_pieces(series: Key) -> dict[str, Any]:
    """Return the filter of all pieces of a series."""
    return {"_id": {"$gte": {**series, "level": MinKey()}, "$lt": {**series, "level": MaxKey()}}}


def pieces_filter(window: Window) -> dict[str, Any]:
    """Return the filter of the pieces that may have readings of a window."""
    return of_pieces(window.series) | {
        "last.ts": {"$gte": window.key(window.start)["ts"]},
        "first.ts": {"$lte": window.key(window.end)["ts"]},
    }


def pieces_in(collection: Any, window: Window, session: Any) -> "Pieces":
    """Return the pieces that may have readings of a window; the errors of the synchronous driver, and BlockError."""
    # By ascending _id: what is merged meanwhile is found further on.
    return Pieces([*collection.find(pieces_filter(window), session=session).sort("_id", 1)])


def pieces_and_head(collection: Any, window: Window, session: Any) -> tuple["Pieces", FoundHead | None]:
    """Return the same, and the head that `Blocks.walk` asks for first, in one command: half of what two take.

    Neither collection is ever renamed, and what is merged into blocks leaves pieces when it can be read there: MongoDB
    reads the pieces first, or both at one time. No head without asking for it, if the pieces are more than one reply.
    """
    heads = [{"$match": head_query(window)}, {"$sort": {"_id": -1}}, {"$limit": 1}, {"$project": WITHOUT_SUMS}]
    pipeline = [
        {"$match": pieces_filter(window)},
        {"$sort": {"_id": 1}},
        {"$unionWith": {"coll": BLOCKS, "pipeline": heads}},
    ]
    command = {"aggregate": collection.name, "pipeline": pipeline, "cursor": {}}
    cursor = ask(collection, command, session, collection.codec_options)["cursor"]
    if cursor["id"]:
        # Not in the session: its reply is of the newest write, for whose majority the next read would wait.
        collection.database.command({"killCursors": collection.name, "cursors": [cursor["id"]]})
        return pieces_in(collection, window, session), None
    found = cursor["firstBatch"]
    # Only a head has a bound.
    head = found.pop() if found and "until" in found[-1] else None
    return Pieces(found), FoundHead(head)


class Pieces:
    """Pieces as they were found in a window. `count`: how many readings they have, repeats and others included.

    BlockError when one of the documents is no piece; its columns are read only where they are needed.
    """

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        self._pieces = [(piece_of(document), document) for document in documents]
        self.count = sum(piece.count for piece, _ in self._pieces)

    def first(self, window: Window, limit: int) -> Columns | None:
        """Return the readings at the start of a window in its direction, in order: at least `limit`, or all of them.

        The window lies in that of the pieces. None if they have none in it; BlockError when one of them is damaged.
        """
        pieces = [each for each in self._pieces if each[0].first < window.end and each[0].last >= window.start]
        if not pieces:
            return None
        return _first(pieces, window, limit)


def _first(pieces: list[tuple[Piece, dict[str, Any]]], window: Window, limit: int) -> Columns:
    pieces.sort(key=(lambda each: each[0].last) if window.descending else (lambda each: each[0].first))
    if window.descending:
        pieces.reverse()
    series, found, count = series_name(window.series), list[Columns](), 0
    for number, (_, document) in enumerate(pieces, start=1):
        found.append(window.cut(piece_columns(document, series)))
        count += len(found[-1])
        if count < limit or number == len(pieces):
            continue
        merged = first_wins(concatenate(found)).columns
        following = pieces[number][0]
        # What lies before all that follows is whole.
        if window.descending:
            whole = merged.take(slice(position_index(merged, after(following.last)), None))
        else:
            whole = merged.take(slice(0, position_index(merged, following.first)))
        if len(whole) >= limit:
            return whole
        found, count = [merged], len(merged)
    return first_wins(concatenate(found)).columns
