"""A database with readings on their way, a model of what readers have to see, and a plain reader of all places.

Sizes are made small, so that a few hundred readings take every path.
"""

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from prometheus_client import CollectorRegistry
from pymongo.errors import BulkWriteError

from broker.failpoints import Point
from persister.compaction import batch, blocks, pieces, planner, scan, unseal
from persister.compaction.blocks import Step
from persister.compaction.compactor import Compactor, pass_failpoint
from persister.compaction.heads import HeadInfo, head_info
from persister.compaction.metrics import CompactorMetrics
from readings.document import AS_MILLISECONDS, encode_document, id_bytes, series_bytes
from readings.keys import Key
from readings.reading import Reading
from storage.codec.decode import decode
from storage.codec.head import head_from
from storage.codec.to_documents import documents_of
from storage.places.documents import columns_key, piece_columns, series_of
from storage.places.names import BLOCKS, COLUMNS, END, PIECES, UNSEALED, sealed_name
from storage.places.state import STATE

START_MS = 1_767_225_600_000
# Of a compactor, in the order in which it passes them.
POINTS: list[Point] = [point for point in get_args(Point) if point.startswith("compactor.")]
SMALL = {
    "BLOCK_MIN": 16,
    "BLOCK_USUAL": 32,
    "BLOCK_MAX": 64,
    "PIECE_MAX": 24,
    "MAX_RUNS": 3,
    "SAMPLE_EVERY": 2,
    "CHUNK_READINGS": 100,
    "READINGS_PER_READ": 70,
    "READINGS_AT_ONCE": 150,
    "CHUNKS_PER_BATCH": 4,
}


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks, pieces, chunks and reads small, and the pause short in which `unseal` lets readers end."""
    monkeypatch.setattr(unseal, "READERS_S", 0.0)
    for module in (batch, blocks, pieces, planner, scan):
        for name, size in SMALL.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, size)


def reading(device: str, ts: int, value: Any, *, owner: str = "owner-1", seq: int = 0) -> bytes:
    """Return a document; `ts` is seconds since the start."""
    return encode_document(
        owner, device, Reading("temperature", value, START_MS + ts * 1000, seq, START_MS + ts * 1000)
    )


class World:
    """One database. `model` has what was stored first, by `_id`."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.model: dict[bytes, bytes] = {}
        self.number = 0
        self.repeats = 0

    async def store(self, documents: Iterable[bytes]) -> None:
        """Insert into `readings` as a persister does."""
        made = list(documents)
        for document in made:
            self.model.setdefault(id_bytes(document), document)
        with suppress(BulkWriteError):  # repetitions
            await self.database["readings"].insert_many([RawBSONDocument(one) for one in made], ordered=False)

    async def seal(self) -> int:
        """Rename `readings`, as a sealing persister does."""
        self.number += 1
        state = self.database[BLOCKS]
        waiting = {"number": Int64(self.number), "sealedAt": datetime.now(UTC), "failures": 0, "aside": False}
        change = {"$set": {"highest": Int64(self.number)}, "$push": {"waiting": waiting}}
        await state.update_one({"_id": STATE}, change, upsert=True)
        await self.database["readings"].rename(sealed_name(self.number))
        return self.number

    async def expire_lease(self) -> None:
        """Let the lease run out, as after its time."""
        past = {"compaction.until": datetime(2000, 1, 1, tzinfo=UTC)}
        await self.database[BLOCKS].update_one({"_id": STATE, "compaction.holder": {"$exists": True}}, {"$set": past})

    def compactor(self, step: Step = pass_failpoint) -> Compactor:
        """Return a compactor of its own."""
        return Compactor(self.database, CompactorMetrics(CollectorRegistry()), cores=1000, step=step)

    async def compact(self, step: Step = pass_failpoint) -> Compactor:
        """Compact what waits."""
        compactor = self.compactor(step)
        await compact_with(compactor)
        return compactor

    async def read(self) -> dict[bytes, bytes]:
        """Read all places, and drop repetitions."""
        return {key: by_seal[min(by_seal)] for key, by_seal in (await self.copies()).items()}

    async def copies(self) -> dict[bytes, dict[int, bytes]]:
        """Read all places in the order in which readers do: the copies of each reading by their seal number."""
        copies: dict[bytes, dict[int, bytes]] = {}

        def add(document: bytes, seal: int) -> None:
            same = copies.setdefault(id_bytes(document), {}).setdefault(seal, document)
            assert same == document, "two copies with one seal number differ"

        raw = CodecOptions(document_class=RawBSONDocument)
        for document in await self.database.get_collection("readings", codec_options=raw).find().to_list(None):
            add(document.raw, UNSEALED)
        state = await self.database[BLOCKS].find_one({"_id": STATE}) or {}
        for number in sorted(int(one["number"]) for one in state.get("waiting", ())):
            sealed = self.database.get_collection(sealed_name(number), codec_options=raw)
            for document in await sealed.find().to_list(None):
                add(document.raw, number)
        if state.get("blocks"):
            for document, seal in [*await self._in_pieces(), *await self._in_blocks()]:
                add(document, seal)
        return copies

    async def _in_pieces(self) -> list[tuple[bytes, int]]:
        found = []
        for document in await self._collection(PIECES).find().sort("_id", 1).to_list(None):
            columns = piece_columns(document, _series(series_of(document["_id"])))
            assert len(columns) == document["count"]
            found += list(zip(documents_of(columns), columns.seals.tolist(), strict=True))
        return found

    async def _in_blocks(self) -> list[tuple[bytes, int]]:
        found = []
        for head, document in await self.live():
            columns = await self._collection(COLUMNS).find_one({"_id": columns_key(head.key, head.start, head.columns)})
            assert columns is not None, "a live head names columns that do not exist"
            block = decode(bytes(columns["data"]), _series(series_of(head.key)))
            assert len(block) == head.count
            assert head.start <= (int(block.ts[0]), int(block.seq[0]))
            assert (int(block.ts[-1]), int(block.seq[-1])) == head.last < head.until
            head_from(document)
            found += list(zip(documents_of(block), block.seals.tolist(), strict=True))
        return found

    async def live(self) -> list[tuple[HeadInfo, dict[str, Any]]]:
        """Return the live heads, and check that those of a series cover all time."""
        found: list[tuple[HeadInfo, dict[str, Any]]] = []
        ends: dict[Any, Any] = {}
        for document in await self._collection(BLOCKS).find({"_id": {"$ne": STATE}}).sort("_id", 1).to_list(None):
            head = head_info(document)
            series = tuple(series_of(head.key).values())
            if series in ends and ends[series] != head.start:
                assert head.pending, "a block that is not pending does not follow the one before it"
                continue
            if series not in ends and head.pending:
                continue
            ends[series] = head.until
            found.append((head, document))
        assert set(ends.values()) <= {END}
        return found

    async def garbage(self) -> tuple[int, int]:
        """Return how many heads are not live, and how many columns no live head names."""
        live = [head for head, _ in await self.live()]
        heads = await self._collection(BLOCKS).count_documents({"_id": {"$ne": STATE}})
        return heads - len(live), len(await self.columns() - {head.columns for head in live})

    async def count(self, name: str) -> int:
        """Return the number of documents in a collection, without the state."""
        return int(await self.database[name].count_documents({"_id": {"$ne": STATE}}))

    async def columns(self) -> set[Any]:
        """Return the last parts of the keys of all columns of blocks."""
        return {one["_id"]["id"] for one in await self._collection(COLUMNS).find({}, {"_id": 1}).to_list(None)}

    def _collection(self, name: str) -> Any:
        return self.database.get_collection(name, codec_options=AS_MILLISECONDS)


async def compact_with(compactor: Compactor) -> None:
    """Compact what waits and give the lease up."""
    while await compactor.compact_next(asyncio.Event()) is not None:
        pass
    await compactor.lease.release()


def _series(names: Key) -> bytes:
    document = encode_document(names["owner"], names["device"], Reading(names["sensorType"], 1, 0, 0, 0))
    return series_bytes(document)


class Source:
    """Makes readings of a few series: mostly in order, some late, some repeated with other values."""

    def __init__(self, seed: int, *, owners: int = 2, devices: int = 3) -> None:
        self.random = random.Random(seed)
        self._names = [(f"owner-{owner}", f"device-{at}") for owner in range(owners) for at in range(devices)]
        self._next = dict.fromkeys(self._names, 10_000)
        self._sent: list[tuple[tuple[str, str], int]] = []

    def batch(self, most: int = 60) -> list[bytes]:
        """Return the next readings."""
        made = []
        for name in self._names:
            for _ in range(self.random.choice([0, 1, 5, 20, most])):
                sent_as, ts = name, self._next[name]
                self._next[name] += self.random.choice([1, 1, 1, 300])
                match self.random.randrange(20):
                    case 0:
                        ts = self.random.randrange(ts)
                    case 1 if self._sent:
                        sent_as, ts = self.random.choice(self._sent)
                    case 2 if self.random.random() < 0.05:
                        self._next[name] = self.random.randrange(10_000)
                self._sent.append((sent_as, ts))
                value: Any = self.random.choice([ts / 4, self.random.randrange(9), True, "on"])
                made.append(reading(sent_as[1], ts, value, owner=sent_as[0]))
        return made
