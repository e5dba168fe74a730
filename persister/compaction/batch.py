"""Writes one batch of chunks: of each series what the planner says, and each kind of write for all series together.

The order is that of reading reversed: blocks first, then pieces, and only then are the pieces deleted whose readings
are elsewhere. So a process may end anywhere in it, and the batch may be written again.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pymongo

from persister.compaction.at_once import gather_some
from persister.compaction.blocks import Blocks, Change, Step, appended, begun, replaced
from persister.compaction.garbage import Garbage
from persister.compaction.heads import ChangedError, HeadInfo, Heads
from persister.compaction.pieces import Pieces, name_of, new_run
from persister.compaction.planner import BLOCK_MIN, DENSE, SAMPLE_EVERY, Plan, needs_end, plan
from persister.compaction.positions import count_until
from persister.compaction.scan import Chunk
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.decode import decode
from storage.places.documents import Piece, piece_columns
from storage.places.window import position_at, position_index

TimeLeft = Callable[[], Awaitable[float | None]]
"""Renews the lease if it is time, and returns for how many seconds it holds; None without a lease."""

_TRIES = 10
# While series are merged with their pieces, a reading takes some 200 bytes.
READINGS_AT_ONCE = 65_536


@dataclass(slots=True)
class Counts:
    """What was done. `bytes` are those of columns that were written."""

    readings: int = 0
    repeats: int = 0
    bytes: int = 0
    blocks: int = 0
    pieces: int = 0

    def add(self, other: "Counts") -> None:
        """Add what else was done."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True, eq=False)
class _Work:
    """One chunk, and what is planned and decoded for it."""

    chunk: Chunk
    pieces: list[Piece] = field(default_factory=list)
    head: HeadInfo | None = None
    plan: Plan = field(default_factory=Plan)
    # What becomes blocks, what may be merged into blocks, and what becomes a run of pieces.
    tail: Columns | None = None
    late: Columns | None = None
    kept: list[Columns] = field(default_factory=list)
    repeats: int = 0

    @property
    def readings(self) -> int:
        """How many readings it holds in memory, those of the pieces included."""
        return len(self.chunk.columns) + sum(piece.count for piece in self.plan.merged)

    def forget(self) -> None:
        """Free the memory of what is written, or will be planned again."""
        self.tail, self.late, self.kept = None, None, []


async def without_end() -> None:
    """Return the time left where nobody else writes."""


class BatchWriter:
    """Writes to pieces and blocks. Raises the driver's errors, BlockError, and ChangedError when tries are used up."""

    def __init__(
        self,
        blocks: Blocks,
        heads: Heads,
        pieces: Pieces,
        garbage: Garbage,
        step: Step,
        time_left: TimeLeft = without_end,
    ) -> None:
        self._time_left = time_left
        self._blocks = blocks
        self._heads = heads
        self._pieces = pieces
        self._garbage = garbage
        self._step = step

    async def write(self, chunks: Sequence[Chunk]) -> Counts:
        """Put the readings of chunks, which are of different series in order, where they belong."""
        counts = Counts(readings=sum(len(chunk.columns) for chunk in chunks))
        left = list(chunks)
        for _ in range(_TRIES):
            left = await self._try(left, counts)
            if not left:
                return counts
        raise ChangedError(f"the blocks of {len(left)} series were changed again and again")

    async def _try(self, chunks: list[Chunk], counts: Counts) -> list[Chunk]:
        """Write chunks; return those whose series someone else has changed meanwhile."""
        with pymongo.timeout(await self._time_left()):
            works = [work for work in await self._planned(chunks) if not work.plan.stored]
        again: list[_Work] = []
        for some in _parted(works):
            with pymongo.timeout(await self._time_left()):
                again += await self._write_some(some, counts)
            for work in some:
                work.forget()
        return [work.chunk for work in works if work in again]

    async def _write_some(self, planned: list[_Work], counts: Counts) -> list[_Work]:
        """Write what was planned; return the works to be done again."""
        loaded = await self._pieces.load([piece for work in planned for piece in work.plan.merged])
        for work in planned:
            self._arrange(work, loaded)
            await asyncio.sleep(0)
        again = await self._append(planned, counts)
        works = [work for work in planned if work not in again]
        for work in works:
            if work.late is not None and not await self._merge_late(work, work.late, counts):
                again.append(work)
        works = [work for work in works if work not in again]
        documents = [document for work in works for document in self._run(work)]
        await self._step("compactor.before_pieces")
        await self._pieces.insert(documents)
        await self._step("compactor.pieces_inserted")
        await self._pieces.delete([piece for work in works for piece in work.plan.merged])
        counts.repeats += sum(work.repeats for work in works)
        counts.pieces += len(documents)
        counts.bytes += sum(len(document["columns"]) for document in documents)
        return again

    async def _planned(self, chunks: list[Chunk]) -> list[_Work]:
        pieces = await self._pieces.of([chunk.key for chunk in chunks])
        works = [_Work(chunk, pieces[name_of(chunk.key)]) for chunk in chunks]
        asking = [work for work in works if needs_end(work.chunk.incoming, work.pieces)]
        heads = await gather_some(self._last(work.chunk) for work in asking)
        for work, head in zip(asking, heads, strict=True):
            work.head = head
        for work in works:
            incoming, end = work.chunk.incoming, work.head.last if work.head else None
            behind = incoming.count - (count_until(work.chunk.columns, end) if end else 0)
            work.plan = plan(incoming, work.pieces, end=end, behind=behind)
        return works

    async def _last(self, chunk: Chunk) -> HeadInfo | None:
        for _ in range(_TRIES):
            try:
                return await self._heads.last(chunk.key)
            except ChangedError:
                await asyncio.sleep(0.01)
        return await self._heads.last(chunk.key)

    @staticmethod
    def _arrange(work: _Work, loaded: dict[Any, dict[str, Any]]) -> None:
        """Decode what is merged, and divide it into what comes after the last block and what does not."""
        chunk = work.chunk
        found = [loaded[piece.key["id"]] for piece in work.plan.merged if piece.key["id"] in loaded]
        parts = [piece_columns(document, chunk.series) for document in found]
        if work.plan.takes_incoming:
            parts.append(chunk.columns)
        if not parts:
            return
        merged = first_wins(concatenate(parts))
        work.repeats = merged.repeated
        end = count_until(merged.columns, work.head.last) if work.head else 0
        tail, late = merged.columns.take(slice(end, None)), merged.columns.take(slice(end))
        if len(tail) >= BLOCK_MIN:
            work.tail = tail
        elif len(tail):
            work.kept.append(tail)
        if len(late) >= SAMPLE_EVERY:
            work.late = late
        elif len(late):
            work.kept.insert(0, late)

    async def _append(self, works: list[_Work], counts: Counts) -> list[_Work]:
        """Write the readings after the last blocks; return the works to be done again."""
        again: list[_Work] = []
        appending = [(work, work.tail) for work in works if work.tail is not None]
        while appending:
            changes: dict[int, tuple[_Work, Change, Columns | None]] = {}
            for work, tail in appending:
                rest: Columns | None = None
                if work.head is None:
                    change, rest = begun(work.chunk.key, tail)
                else:
                    change = appended(work.chunk.key, work.head, tail)
                changes[id(change)] = work, change, rest
                await asyncio.sleep(0)
            lost = await self._blocks.apply([change for _, change, _ in changes.values()])
            for change in lost:
                again.append(changes.pop(id(change))[0])
                await self._give_way(change)
            appending = []
            for work, change, rest in changes.values():
                _count(counts, change)
                if rest is None or not len(rest):
                    continue
                work.head = await self._last(work.chunk)
                if work.head is None or work.head.last >= position_at(rest, 0):  # someone else was here
                    again.append(work)
                else:
                    appending.append((work, rest))
        return again

    async def _merge_late(self, work: _Work, late: Columns, counts: Counts) -> bool:
        """Merge late readings into the blocks in which they are dense, and keep the others; False to do it again."""
        at, kept = 0, list[Columns]()
        while at < len(late):
            # Between two samples there is no block in which they could be dense.
            window = min(SAMPLE_EVERY, len(late) - at)
            try:
                head = await self._heads.at(work.chunk.key, position_at(late, at + window // 2))
            except ChangedError:
                return False
            start = max(position_index(late, head.start), at) if head else at
            until = position_index(late, head.until) if head else at
            if head is None or until - start < DENSE * head.count:
                until = max(until, at + window)
                kept.append(late.take(slice(at, until)))
            else:
                if start > at:
                    kept.append(late.take(slice(at, start)))
                if not await self._replace(work, head, late.take(slice(start, until)), counts):
                    return False
            at = until
        if kept:
            work.kept.insert(0, concatenate(kept))
        return True

    async def _replace(self, work: _Work, head: HeadInfo, late: Columns, counts: Counts) -> bool:
        """Merge readings into a block; False if it was changed meanwhile."""
        packed = await self._blocks.columns_of(head)
        if packed is None:
            return False
        own = decode(packed, work.chunk.series)
        merged = first_wins(concatenate([own, late]))
        if len(merged.columns) == len(own) and bool((merged.columns.seals == own.seals).all()):
            work.repeats += merged.repeated
            return True
        change = replaced(work.chunk.key, head, merged.columns)
        if await self._blocks.apply([change]):
            await self._give_way(change)
            return False
        work.repeats += merged.repeated
        _count(counts, change)
        return True

    async def _give_way(self, change: Change) -> None:
        """Wait a moment after a change that had no effect, or remove what an ended process left in its way."""
        if change.is_refused:
            with suppress(ChangedError):
                await self._garbage.remove(change.series)
        await asyncio.sleep(random.uniform(0, 0.02))

    @staticmethod
    def _run(work: _Work) -> list[dict[str, Any]]:
        """Return the documents of the new pieces."""
        documents: list[dict[str, Any]] = []
        documents += new_run(work.chunk.key, work.plan.level, work.kept)
        if not work.plan.takes_incoming:
            documents += new_run(work.chunk.key, 0, [work.chunk.columns], work.chunk.newest)
        return documents


def _parted(works: Sequence[_Work]) -> Iterator[list[_Work]]:
    """Yield works in parts of READINGS_AT_ONCE, or of one work with more."""
    part: list[_Work] = []
    readings = 0
    for work in works:
        if part and readings + work.readings > READINGS_AT_ONCE:
            yield part
            part, readings = [], 0
        part.append(work)
        readings += work.readings
    if part:
        yield part


def _count(counts: Counts, change: Change) -> None:
    counts.bytes += change.bytes
    counts.blocks += len(change.first) + len(change.rights)
