"""Writes blocks: changes heads by compare-and-swap, so that of several writers of one series exactly one succeeds.

`Blocks.apply` inserts new columns and then new heads, pending; replaces the head of the block on their left if its
`edit` is still the one that was read; takes `pending` away; and deletes columns that nothing names any more. The
replacement makes everything visible at once. A process that ends before it leaves columns and pending heads behind that
no reader looks at, and `persister.compaction.garbage` removes them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from broker.failpoints import Point
from persister.compaction.at_once import gather_some
from persister.compaction.heads import HeadInfo
from persister.compaction.planner import BLOCK_MAX, BLOCK_USUAL
from persister.compaction.positions import cut
from persister.mongodb_errors import DUPLICATE_KEY
from readings.keys import Key, Position
from storage.codec.block import Block, encode_block
from storage.codec.columns import Columns
from storage.codec.packed import BlockTooLarge
from storage.places.documents import StoredHead, columns_document, columns_key
from storage.places.names import BEGINNING, END
from storage.places.window import position_at

Step = Callable[[Point], Awaitable[None]]
"""Called before and after each write, for the fault tests."""


@dataclass(slots=True)
class _Part:
    """A block to be written."""

    document: dict[str, Any]
    columns: dict[str, Any]


@dataclass(slots=True)
class Change:
    """A change of one series' blocks that becomes visible at once.

    `left` is the block that is changed, None for a series without blocks. `first` has its new readings, and is empty if
    only its end changes. `rights` become blocks between it and its neighbour.
    """

    series: Key
    left: HeadInfo | None
    first: list[_Part]
    rights: list[_Part]
    edit: ObjectId = field(default_factory=ObjectId)
    # One of its heads exists already.
    is_refused: bool = False

    @property
    def bytes(self) -> int:
        """The bytes of the new columns."""
        return sum(len(part.columns["data"]) for part in (*self.first, *self.rights))


def appended(series: Key, left: HeadInfo, tail: Columns) -> Change:
    """Return the change that adds readings after the last block, which keeps its own."""
    return Change(series, left, [], _parts(series, tail, BLOCK_USUAL, position_at(tail, 0), END, pending=True))


def begun(series: Key, columns: Columns) -> tuple[Change, Columns]:
    """Return the change that writes the first block of a series, and the readings that did not fit it.

    It has no neighbour that could make a second one live at the same moment.
    """
    first = next(cut(columns, BLOCK_USUAL))
    while True:
        try:
            block = encode_block(first, BEGINNING, END)
        except BlockTooLarge:
            if len(first) == 1:  # which only a document written by hand can be
                raise
            first = next(cut(first, -(-len(first) // 2)))
        else:
            part = _part(series, block, int(first.seals[-1]), pending=False)
            return Change(series, None, [part], []), columns.take(slice(len(first), None))


def replaced(series: Key, left: HeadInfo, columns: Columns) -> Change:
    """Return the change that gives a block other readings, in several parts if they are too many."""
    first, *rights = _parts(series, columns, BLOCK_MAX, left.start, left.until, pending=True)
    first.document.pop("pending")
    change = Change(series, left, [first], rights)
    first.document["edit"] = change.edit
    return change


def _parts(series: Key, columns: Columns, most: int, start: Position, until: Position, *, pending: bool) -> list[_Part]:
    pieces = [*cut(columns, most)]
    starts = [start, *(position_at(piece, 0) for piece in pieces[1:])]
    ends = [*starts[1:], until]
    parts: list[_Part] = []
    for piece, begin, end in zip(pieces, starts, ends, strict=True):
        try:
            block = encode_block(piece, begin, end)
        except BlockTooLarge:
            if len(piece) == 1:
                raise
            parts += _parts(series, piece, -(-len(piece) // 2), begin, end, pending=pending)
        else:
            parts.append(_part(series, block, int(piece.seals[-1]), pending=pending))
    return parts


def _part(series: Key, block: Block, last_seal: int, *, pending: bool) -> _Part:
    number = ObjectId()
    head = StoredHead(block.head, number, ObjectId(), last_seal, pending)
    return _Part(head.document(), columns_document(series, block.head.start, number, block.columns))


class Blocks:
    """The blocks of one database. Every method raises the driver's errors; nothing is certain then."""

    def __init__(self, blocks: Any, columns: Any, step: Step) -> None:
        self._blocks = blocks
        self._columns = columns
        self._step = step

    async def apply(self, changes: Sequence[Change]) -> list[Change]:
        """Make changes of different series, and return those that had no effect, as someone else was first."""
        if not changes:
            return []
        parts = [part for change in changes for part in (*change.first, *change.rights)]
        await self._step("compactor.before_columns")
        await self._columns.insert_many([part.columns for part in parts], ordered=False)
        await self._step("compactor.columns_inserted")
        await self._insert_heads(changes)
        await self._step("compactor.heads_inserted")
        possible = [change for change in changes if not change.is_refused]
        done = await gather_some(self._replace_left(change) for change in possible)
        await self._step("compactor.head_replaced")
        lost = [change for change in changes if change.is_refused]
        lost += [change for change, is_done in zip(possible, done, strict=True) if not is_done]
        await self._undo(lost)
        await self._clean_up([change for change, is_done in zip(possible, done, strict=True) if is_done])
        return lost

    async def _insert_heads(self, changes: Sequence[Change]) -> None:
        """Insert the pending heads, and note the changes of which one exists already."""
        heads = [(change, part.document) for change in changes for part in change.rights]
        if not heads:
            return
        try:
            await self._blocks.insert_many([document for _, document in heads], ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            errors = details.get("writeErrors", ())
            if details.get("writeConcernErrors") or any(one.get("code") != DUPLICATE_KEY for one in errors):
                raise
            for one in errors:
                heads[one["index"]][0].is_refused = True

    async def _replace_left(self, change: Change) -> bool:
        """Make a change visible; return False if another one was first."""
        if change.left is None:
            try:
                await self._blocks.insert_one(change.first[0].document)
            except DuplicateKeyError:
                return False
            return True
        query = {"_id": change.left.key, "edit": change.left.edit}
        if change.first:
            result = await self._blocks.replace_one(query, change.first[0].document)
        else:
            start = change.rights[0].document["_id"]
            until = {"ts": start["ts"], "seq": start["seq"]}
            result = await self._blocks.update_one(query, {"$set": {"until": until, "edit": change.edit}})
        return bool(result.matched_count)

    async def _undo(self, changes: Sequence[Change]) -> None:
        """Delete what was inserted for changes that had no effect. Their heads never became live."""
        if not changes:
            return
        rights = [part.document for change in changes for part in change.rights]
        for document in rights:
            await self._blocks.delete_one({"_id": document["_id"], "edit": document["edit"], "pending": True})
        columns = [part.columns["_id"] for change in changes for part in (*change.first, *change.rights)]
        await self._columns.delete_many({"_id": {"$in": columns}})

    async def _clean_up(self, changes: Sequence[Change]) -> None:
        """Take `pending` away, and delete the columns that were replaced."""
        rights = [part.document for change in changes for part in change.rights]
        await self.settle([(document["_id"], document["edit"]) for document in rights])
        await self._step("compactor.pending_cleared")
        old = [
            columns_key(change.left.key, change.left.start, change.left.columns)
            for change in changes
            if change.left is not None and change.first
        ]
        if old:
            await self._columns.delete_many({"_id": {"$in": old}})

    async def settle(self, heads: Sequence[tuple[Key, ObjectId]]) -> None:
        """Take `pending` away from live heads, given by `_id` and `edit`."""
        change = {"$unset": {"pending": ""}, "$set": {"edit": ObjectId()}}
        if heads:
            updates = [UpdateOne({"_id": key, "edit": edit}, change) for key, edit in heads]
            await self._blocks.bulk_write(updates, ordered=False)

    async def columns_of(self, head: HeadInfo) -> bytes | None:
        """Return the columns of a block, packed; None if they were replaced meanwhile."""
        key = columns_key(head.key, head.start, head.columns)
        found = await self._columns.find_one({"_id": key})
        return None if found is None else bytes(found["data"])

    async def fence(self, head: HeadInfo) -> bool:
        """Change a head's `edit` only, so that no change that has read it before succeeds; False if one already did."""
        result = await self._blocks.update_one({"_id": head.key, "edit": head.edit}, {"$set": {"edit": ObjectId()}})
        return bool(result.matched_count)

    async def delete_pending(self, heads: Sequence[HeadInfo], columns: Sequence[Key]) -> None:
        """Delete pending heads and columns that are known to be of no block."""
        for head in heads:
            await self._blocks.delete_one({"_id": head.key, "edit": head.edit, "pending": True})
        if columns:
            await self._columns.delete_many({"_id": {"$in": list(columns)}})
