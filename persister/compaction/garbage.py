"""Removes what a compactor left that ended in the middle of a change: pending heads and columns of no block.

A writer that is still alive, or only paused, may be about to use them. So they are listed first; then the `edit` of
the live block in whose bounds they are is changed; then they are deleted. A writer that inserted something in the list
had read the head before it was changed, so its own change of the head fails.
"""

from collections.abc import AsyncIterator
from typing import Any

from bson import MaxKey, MinKey

from persister.compaction.blocks import Blocks
from persister.compaction.heads import Heads, live
from persister.compaction.pieces import name_of
from readings.document import position_in
from readings.filters import in_time_range
from readings.keys import Key
from runtime.logs import logger
from storage.places.documents import series_of
from storage.places.names import BEGINNING
from storage.places.state import STATE

log = logger("persister.compaction")

HEADS_PER_READ = 5000
_NAMES = {"_id": 1, "columns": 1, "pending": 1}


class Garbage:
    """What no block needs, in one database.

    Every method raises the driver's errors, ChangedError, and BlockError when the head of a block is damaged.
    """

    def __init__(self, heads_collection: Any, columns: Any, blocks: Blocks, heads: Heads) -> None:
        self._collection = heads_collection
        self._columns = columns
        self._blocks = blocks
        self._heads = heads

    async def remove(self, series: Key) -> int:
        """Remove garbage from one series; return how many heads and columns were deleted.

        Live heads that are still pending become ones that are not.
        """
        heads = await self._heads.all(series)
        if pending_live := [(head.key, head.edit) for head in live(heads) if head.pending]:
            await self._blocks.settle(pending_live)
            heads = await self._heads.all(series)
        alive = live(heads)
        columns = [found["_id"] async for found in self._columns.find(in_time_range(series), {"_id": 1})]
        used = {head.columns for head in alive}
        kept = {head.edit for head in alive}
        removed = 0
        # What is before the first block was of blocks that retention has removed: no change of these succeeds.
        starts = [BEGINNING, *(block.start for block in alive[1:])]
        for block, start in zip(alive, starts, strict=False):
            pending = [head for head in heads if head.edit not in kept and start <= head.start < block.until]
            unused = [key for key in columns if key["id"] not in used and start <= position_in(key) < block.until]
            if (pending or unused) and await self._blocks.fence(block):
                await self._blocks.delete_pending(pending, unused)
                removed += len(pending) + len(unused)
        return removed

    async def series(self) -> AsyncIterator[list[Key]]:
        """Yield the series that seem to have garbage, in order, some at a time; it may turn out to be in use."""
        after: Any = MinKey()
        while True:
            query = {"_id": {"$gt": after, "$ne": STATE, "$type": "object"}}
            cursor = self._collection.find(query, _NAMES).sort("_id", 1).limit(HEADS_PER_READ)
            heads = await cursor.to_list(HEADS_PER_READ)
            end = heads[-1]["_id"] if len(heads) == HEADS_PER_READ else MaxKey()
            yield await self._suspects(heads, after, end)
            if len(heads) < HEADS_PER_READ:
                return
            after = end

    async def _suspects(self, heads: list[dict[str, Any]], after: Any, end: Any) -> list[Key]:
        used = {one.get("columns") for one in heads if not one.get("pending")}
        found = {name_of(one["_id"]): series_of(one["_id"]) for one in heads if one.get("pending")}
        # Columns begin with the key of their head, and follow it in order.
        upper = {"$lt": {**end, "id": MaxKey()}} if isinstance(end, dict) else {"$lt": end}
        cursor = self._columns.find({"_id": {"$gt": after, **upper}}, {"_id": 1}).sort("_id", 1)
        async for document in cursor:
            if document["_id"]["id"] not in used:
                found[name_of(document["_id"])] = series_of(document["_id"])
        return list(found.values())
