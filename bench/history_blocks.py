"""Fills a database with history: straight into blocks with the compactor's own writer, or by sealing and compacting."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from pymongo import WriteConcern
from pymongo.read_concern import ReadConcern

from broker.failpoints import Point
from persister.collections import ZSTD, create_if_missing
from persister.compaction.batch import BatchWriter
from persister.compaction.blocks import Blocks
from persister.compaction.compact_all import compact_all
from persister.compaction.compactor import Compactor
from persister.compaction.garbage import Garbage
from persister.compaction.heads import Heads
from persister.compaction.metrics import CompactorMetrics
from persister.compaction.pieces import Pieces
from persister.compaction.scan import Chunk
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from readings.collections import SERIES
from readings.document import AS_MILLISECONDS
from readings.keys import Key
from runtime.mongodb import mongodb_client
from storage.codec.columns import Columns
from storage.codec.to_documents import documents_of
from storage.places.names import BLOCKS, COLUMNS, PIECES
from storage.places.state import STATE

TIMEOUT_S = 120.0
UNLIMITED_CORES = 64.0
# Columns are compressed already.
PLAIN: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=none"}}}


async def _no_failpoint(_: Point) -> None:
    """Do nothing: this writer is never killed."""


class BlockWriter:
    """Writes readings to blocks and pieces, unjournaled, without going through `readings`."""

    def __init__(self, database: Any) -> None:
        self._database = database
        options = {
            "codec_options": AS_MILLISECONDS,
            "write_concern": WriteConcern(1),
            "read_concern": ReadConcern("majority"),
        }
        heads, columns, pieces = (database.get_collection(name, **options) for name in (BLOCKS, COLUMNS, PIECES))
        known, blocks = Heads(heads), Blocks(heads, columns, _no_failpoint)
        garbage = Garbage(heads, columns, blocks, known)
        self._writer = BatchWriter(blocks, known, Pieces(pieces), garbage, _no_failpoint)

    async def prepare(self) -> None:
        """Create the collections, and let readers know that there may be blocks."""
        for name, options in ((BLOCKS, ZSTD), (PIECES, ZSTD), (COLUMNS, PLAIN)):
            await create_if_missing(self._database, name, **options)
        change = {"$set": {"blocks": True}, "$setOnInsert": {"next": 1, "waiting": []}}
        await self._database[BLOCKS].update_one({"_id": STATE}, change, upsert=True)

    async def write(self, parts: Iterable[tuple[Key, Columns]]) -> int:
        """Write readings of different series, in the order of their keys; return how many there were."""
        chunks = [_chunk(key, columns) for key, columns in parts]
        return (await self._writer.write(chunks)).readings


def _chunk(key: Key, columns: Columns) -> Chunk:
    newest = documents_of(columns.take(slice(-1, None)))[0]
    return Chunk(columns.series, key, columns, newest, key, int(columns.seals[-1]))


class Compaction:
    """Seals and compacts in this process, as fast as it can."""

    def __init__(self, database: Any, *, clustered: bool = False) -> None:
        self._compactor = Compactor(database, CompactorMetrics(CollectorRegistry()), cores=UNLIMITED_CORES)
        metrics = SealingMetrics(CollectorRegistry())
        self._sealer = Sealer(database, clustered=clustered, seal_readings=0, seal_seconds=0, metrics=metrics)

    async def seal(self) -> int | None:
        """Seal `readings`, or create it if it is missing; return the seal number."""
        return await self._sealer.seal(force=True)

    async def compact(self) -> None:
        """Compact until nothing waits."""
        await compact_all(self._compactor, _seal_nothing, lambda _: None)


async def _seal_nothing() -> bool:
    """Leave `readings` as it is."""
    return True


@asynccontextmanager
async def opened(url: str, name: str) -> AsyncIterator[Any]:
    """Open one database as Tidegate's processes do."""
    async with mongodb_client(url, name="tidegate bench", timeout_s=TIMEOUT_S) as client:
        yield client[name]


async def name_series(database: Any, keys: Iterable[Key]) -> None:
    """Store the documents of series, which a persister stores with their first readings."""
    await database[SERIES].insert_many([{"_id": key} for key in keys], ordered=False)
