"""Reads the heads of a series' blocks, and says which of them are live (storage/places/documents.py)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bson import Int64, MaxKey, MinKey, ObjectId
from bson.datetime_ms import DatetimeMS

from readings.document import position_in
from readings.filters import in_time_range
from readings.keys import Key, Position
from storage.codec.packed import BlockError
from storage.places.names import END

_PROJECTION = {"until": 1, "edit": 1, "pending": 1, "columns": 1, "count": 1, "last.ts": 1, "last.seq": 1}
_HEADS_PER_READ = 4


class ChangedError(Exception):
    """The blocks of a series were changed while they were read or written: do it again."""


@dataclass(frozen=True, slots=True)
class HeadInfo:
    """What is needed of a head to change it. `edit` is what a change names, `last` its newest reading."""

    key: Key
    start: Position
    until: Position
    edit: ObjectId
    columns: ObjectId
    count: int
    last: Position
    pending: bool


def head_info(document: dict[str, Any]) -> HeadInfo:
    """Return the head of a document decoded with AS_MILLISECONDS; BlockError for another document."""
    try:
        key, last, until = document["_id"], document["last"], document["until"]
        return HeadInfo(
            key,
            position_in(key),
            position_in(until),
            document["edit"],
            document["columns"],
            int(document["count"]),
            position_in(last),
            bool(document.get("pending")),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise BlockError(f"not the head of a block: {error!r}") from error


def live(heads: Iterable[HeadInfo]) -> list[HeadInfo]:
    """Return the live ones of heads in ascending order, without a gap among them.

    ChangedError when the live ones do not follow each other: they were read while they were changed.
    """
    found: list[HeadInfo] = []
    for head in heads:
        follows = bool(found) and found[-1].until == head.start
        if found and not head.pending and not follows:
            raise ChangedError("blocks do not follow each other")
        if follows or not head.pending:
            found.append(head)
    return found


class Heads:
    """The heads of one database. Every method raises the driver's errors, ChangedError and BlockError."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks

    async def last(self, series: Key) -> HeadInfo | None:
        """Return the last block of a series; None if it has none."""
        return await self._at(series, {**series, "ts": MaxKey()}, END)

    async def at(self, series: Key, position: Position) -> HeadInfo | None:
        """Return the block whose bounds contain a position; None if none do."""
        ts, seq = position
        return await self._at(series, {**series, "ts": DatetimeMS(ts), "seq": Int64(seq)}, position)

    async def all(self, series: Key) -> list[HeadInfo]:
        """Return every head of a series, live or not, in ascending order."""
        cursor = self._blocks.find(in_time_range(series), _PROJECTION).sort("_id", 1)
        return [head_info(document) async for document in cursor]

    async def _at(self, series: Key, key: Key, position: Position) -> HeadInfo | None:
        query = {"_id": {"$gte": {**series, "ts": MinKey()}, "$lte": key}}
        limit, found = _HEADS_PER_READ, list[HeadInfo]()
        # Down to the first one that is not pending: from there on it is known which ones are live.
        while True:
            cursor = self._blocks.find(query, _PROJECTION).sort("_id", -1).limit(limit)
            found = [head_info(document) for document in await cursor.to_list(limit)]
            if len(found) < limit or not all(head.pending for head in found):
                break
            limit *= 4
        settled = next((at for at, head in enumerate(found) if not head.pending), None)
        if settled is None:
            return None
        last = live(reversed(found[: settled + 1]))[-1]
        if position >= last.until and last.until != END:
            # The next block begins there, and was inserted before this one's head was changed to end there.
            raise ChangedError("a block's neighbour is missing")
        return last
