"""`python -m persister unseal`: puts all readings back into `readings`, one document each, for a downgrade.

Of several copies of a reading the one with the lowest seal number is valid, and what is in `readings` has the highest.
So every copy from elsewhere replaces what is in `readings`, those with higher numbers first:

1. Sealed collections, from the highest number to the lowest.
2. Pieces and blocks, by the bounds of blocks: the readings of a block, of the pieces in its bounds, and of sealed
   collections with a lower number than some of these, merged.

Until then nothing is removed, and readers see what they saw before: any copy elsewhere wins against `readings`. If the
command is interrupted, the next one does it all again. Then it waits, because readers read `readings` first: one that
did so before a reading was put back must still find it elsewhere. Then the state says at once that there is nothing
elsewhere, and what to remove, and only then is it removed, by UUID. `unsealing` in the state keeps compactors away from
the start on.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import bson
import msgspec
from bson import Int64, MaxKey, MinKey
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo import ReplaceOne
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from persister.collections import SAFE, drop_if_same
from persister.compaction.heads import ChangedError, HeadInfo, Heads, live
from persister.compaction.lease import LEASE_S, Lease, LeaseLostError
from persister.compaction.positions import cut
from persister.compaction.service import Report
from persister.maintenance.readings_collection import ReadingsCollection
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import (
    DUPLICATE_KEY,
    WriteFailed,
    error_text,
    translating_errors,
)
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS
from readings.filters import of_owner
from readings.keys import Key, Position, reading_key
from storage.codec.columns import Columns, concatenate, first_wins
from storage.codec.decode import decode
from storage.codec.from_documents import columns_of, split
from storage.codec.packed import BlockError
from storage.codec.to_documents import documents_of
from storage.places.documents import Piece, columns_key, piece_columns, piece_of, series_name, series_of
from storage.places.names import BEGINNING, BLOCKS, COLUMNS, END, PIECES, SEALED_PREFIX, seal_number, sealed_name
from storage.places.pieces import of_pieces
from storage.places.raw_find import find_raw
from storage.places.sessions import CausalReads
from storage.places.state import STATE
from storage.places.window import position_at, position_index

READINGS_PER_WRITE = 5000
REPORT_EVERY_S = 2.0
# Longer than a question of a reader usually may take (QUERY_TIMEOUT_SECONDS).
READERS_S = 15.0


class UnsealRefusedError(Exception):
    """Nothing was done, because another process seals or compacts."""


class Unsealed(msgspec.Struct, frozen=True, rename="camel"):
    """How many documents were written, repeats included, and how many collections were removed."""

    readings: int
    collections: int


async def unseal_all(database: Any, report: Report, *, clustered: bool, is_forced: bool) -> Unsealed:
    """Put everything back; WriteFailed if MongoDB is away or refuses, or a block is damaged.

    UnsealRefusedError while a compactor runs, or while a persister seals unless `is_forced`. `report` gets lines on
    progress.
    """
    with translating_errors():
        lease = Lease(database)
        if not is_forced and await _is_sealing(database):
            raise UnsealRefusedError("a persister seals; set SEALING=off, or use --force.")
        try:
            reads = CausalReads(database.client)
            if not await lease.acquire(to_unseal=True, session=await reads.begin()):
                return Unsealed(0, 0)
        except LeaseLostError as error:
            raise UnsealRefusedError("a compactor runs; stop it. After a kill, of `unseal` too, wait 10 s.") from error
        try:
            return await _Unseal(database, lease, reads, report).run(clustered=clustered)
        except (LeaseLostError, ChangedError, BlockError) as error:
            raise WriteFailed(error_text(error)) from error
        finally:
            await lease.release()


async def _is_sealing(database: Any) -> bool:
    long_ago = DatetimeMS(0)
    query = {"_id": STATE, "$expr": {"$gt": [{"$ifNull": ["$sealing.until", long_ago]}, "$$NOW"]}}
    return await database[BLOCKS].find_one(query, {"_id": 1}) is not None


class _Unseal:
    """One run of the command, under the lease."""

    def __init__(self, database: Any, lease: Lease, reads: CausalReads, report: Report) -> None:
        options = {"codec_options": AS_MILLISECONDS, "write_concern": SAFE, "read_concern": ReadConcern("majority")}
        self._options = options
        self._database = database
        self._lease = lease
        self._report = report
        self._reported_at = time.monotonic()
        self._readings = database.get_collection(READINGS, **options)
        self._session = reads.session
        self._blocks, self._columns, self._pieces = (
            reads.of(database.get_collection(name, **options)) for name in (BLOCKS, COLUMNS, PIECES)
        )
        self._heads = Heads(self._blocks)
        self._written = 0
        self._sealed: list[int] = []

    async def run(self, *, clustered: bool) -> Unsealed:
        """Do it all."""
        state = await self._blocks.find_one({"_id": STATE})
        if "remove" not in state["unsealing"]:
            await ReadingsCollection(self._database, clustered=clustered).ensure()
            uuids = await self._uuids()
            await self._put_back_sealed(uuids)
            await self._put_back_blocks()
            owners, _ = await MaintenanceStore(self._database).all_deleted()
            for owner in owners:  # whose readings were erased, but perhaps not yet everywhere
                await self._readings.delete_many(of_owner(owner))
                await self._renew()
            if self._written:
                await self._let_readers_end()
            await self._commit(uuids)
        removed = await self._remove()
        return Unsealed(self._written, removed)

    async def _uuids(self) -> dict[str, Any]:
        # In the session: what is read in it after this includes the renames that it has listed.
        names = {"name": {"$regex": "^readings\\."}}
        cursor = await self._database.list_collections(filter=names, session=self._session)
        found = {one["name"]: one["info"]["uuid"] async for one in cursor}
        return {
            name: uuid
            for name, uuid in found.items()
            if name in (PIECES, COLUMNS) or (name.startswith(SEALED_PREFIX) and seal_number(name) is not None)
        }

    async def _put_back_sealed(self, uuids: dict[str, Any]) -> None:
        self._sealed = sorted(number for name in uuids if (number := seal_number(name)) is not None)
        for number in reversed(self._sealed):
            self._report(f"sealed collection {number} …")
            query: dict[str, Any] = {}
            collection = self._database.get_collection(sealed_name(number), **self._options)
            while body := await find_raw(collection, query, limit=READINGS_PER_WRITE, session=self._session):
                starts = split(body).tolist()
                documents = [body[start:end] for start, end in pairwise(starts)]
                await self._write(documents)
                query = {"_id": {"$gt": bson.decode(documents[-1], AS_MILLISECONDS)["_id"]}}
            # A read that is not of a majority finds what comes after the end; within it, the session has to do.
            if await self._database[sealed_name(number)].find_one(query, {"_id": 1}) is not None:
                raise WriteFailed("there are readings that were not found before; run it again")

    async def _put_back_blocks(self) -> None:
        self._report("blocks …")
        async for series in self._series():
            found = await self._pieces.find(of_pieces(series), {"columns": 0}).to_list(None)
            pieces = [piece_of(document) for document in found]
            alive = live(await self._heads.all(series))
            start = BEGINNING
            for head in alive:
                if start < head.start:
                    await self._put_back_window(series, start, head.start, None, pieces)
                await self._put_back_window(series, head.start, head.until, head, pieces)
                start = head.until
            if not alive:
                await self._put_back_window(series, BEGINNING, END, None, pieces)

    async def _series(self) -> AsyncIterator[Key]:
        """Yield the series that have blocks or pieces, in order."""
        after: Any = MinKey()
        while True:
            query = {"_id": {"$gt": after, "$ne": STATE, "$type": "object"}}
            firsts = [
                await each.find_one(query, {"_id": 1}, sort=[("_id", 1)]) for each in (self._blocks, self._pieces)
            ]
            found = [series_of(one["_id"]) for one in firsts if one is not None]
            if not found:
                return
            series = min(found, key=lambda key: [str(name).encode() for name in key.values()])
            yield series
            after = {**series, "ts": MaxKey()}

    async def _put_back_window(
        self, series: Key, start: Position, until: Position, head: HeadInfo | None, pieces: Sequence[Piece]
    ) -> None:
        """Put back what a series has between two positions: in a block, if there is one, and in pieces."""
        name = series_name(series)
        parts: list[Columns] = []
        if head is not None:
            found = await self._columns.find_one({"_id": columns_key(series, head.start, head.columns)})
            if found is None:
                raise WriteFailed("a block was changed meanwhile")
            parts.append(decode(bytes(found["data"]), name))
        touched = [piece.key for piece in pieces if piece.first < until and piece.last >= start]
        for key in touched:
            found = await self._pieces.find_one({"_id": key})
            if found is None:
                raise WriteFailed("a piece was merged meanwhile")
            columns = piece_columns(found, name)
            parts.append(columns.take(slice(position_index(columns, start), position_index(columns, until))))
        if not any(len(part) for part in parts):
            return
        merged = first_wins(concatenate(parts)).columns
        for part in cut(merged, READINGS_PER_WRITE):
            await self._write(documents_of(await self._with_sealed(series, part)))

    async def _with_sealed(self, series: Key, columns: Columns) -> Columns:
        """Return readings with the copies of those sealed collections whose number is lower than one of theirs."""
        first, last = position_at(columns, 0), position_at(columns, -1)
        parts = [columns]
        for number in self._sealed:
            if number < int(columns.seals.max()):
                low: dict[str, Any] = {"$gte": _key(series, first)}
                collection = self._database.get_collection(sealed_name(number), **self._options)
                high = {"$lte": _key(series, last)}
                while body := await find_raw(
                    collection, {"_id": {**low, **high}}, limit=READINGS_PER_WRITE, session=self._session
                ):
                    parts.append(columns_of(body, number))
                    low = {"$gt": _key(series, position_at(parts[-1], -1))}
        return first_wins(concatenate(parts)).columns

    async def _write(self, documents: Sequence[bytes]) -> None:
        """Insert documents into `readings`, and replace those that are there."""
        raw = [RawBSONDocument(document) for document in documents]
        try:
            await self._readings.insert_many(raw, ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            errors = details.get("writeErrors", ())
            if details.get("writeConcernErrors") or any(one.get("code") != DUPLICATE_KEY for one in errors):
                raise
            replaced = [raw[one["index"]] for one in errors]
            await self._readings.bulk_write([ReplaceOne({"_id": one["_id"]}, one) for one in replaced], ordered=False)
        self._written += len(documents)
        if time.monotonic() - self._reported_at > REPORT_EVERY_S:
            self._reported_at = time.monotonic()
            self._report(f"{self._written:,} readings written …")
        await self._renew()

    async def _renew(self) -> None:
        if self._lease.left_s < LEASE_S / 2:
            await self._lease.renew()

    async def _let_readers_end(self) -> None:
        """Wait until nobody goes on reading who read `readings` before all was there."""
        self._report("waiting for readers …")
        until = time.monotonic() + READERS_S
        while (left := until - time.monotonic()) > 0:
            await self._lease.renew()
            await asyncio.sleep(min(left, LEASE_S / 2))

    async def _commit(self, uuids: dict[str, Any]) -> None:
        """Let the state say that everything is in `readings`, and which collections must be removed."""
        if (await self._uuids()).keys() - uuids.keys():
            # It holds copies that were put back until then, and its number would let them win against later ones.
            raise WriteFailed("readings were sealed meanwhile; set SEALING=off, and run it again")
        remove = [{"name": name, "uuid": uuid} for name, uuid in uuids.items()]
        change = {
            "$set": {"blocks": False, "unsealing.remove": remove},
            "$pull": {"waiting": {"number": {"$in": [Int64(number) for number in self._sealed]}}},
        }
        await self._lease.renew()
        await self._blocks.update_one({"_id": STATE}, change, session=self._session)

    async def _remove(self) -> int:
        """Remove the other places, which have no meaning any more; return how many collections were dropped."""
        state = await self._blocks.find_one({"_id": STATE})
        self._report("removing blocks, pieces and sealed collections …")
        removed = 0
        for one in state["unsealing"]["remove"]:
            removed += await drop_if_same(self._database, one["name"], one["uuid"])
            await self._lease.renew()
        await self._blocks.delete_many({"_id": {"$type": "object"}})
        await self._blocks.update_one({"_id": STATE}, {"$unset": {"unsealing": "", "compaction": ""}})
        return removed


def _key(series: Key, position: Position) -> Key:
    return reading_key(series["owner"], series["device"], series["sensorType"], *position)
