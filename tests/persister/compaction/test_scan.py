"""Chunks of a sealed collection: everything once, in order, and the same ones wherever reading begins."""

import random

import pytest

from persister.compaction import scan
from persister.compaction.scan import Chunk, SealedScan
from readings.document import AS_MILLISECONDS, DocumentError, decode_document
from readings.keys import Key
from storage.codec.to_documents import documents_of
from storage.places.names import sealed_name
from tests.persister.compaction.world import World, reading


async def chunks_of(world: World, after: Key | None = None) -> list[list[Chunk]]:
    collection = world.database.get_collection(sealed_name(1), codec_options=AS_MILLISECONDS)
    reading_scan, found = SealedScan(collection, 1, after), []
    while batch := await reading_scan.next_batch():
        found.append(batch)
    return found


async def test_every_reading_is_in_one_chunk_and_series_are_not_mixed(world: World, rng: random.Random) -> None:
    documents = []
    for device in range(40):
        documents += [
            reading(f"device-{device:02}", ts, rng.choice([ts, ts / 4, True, "on", "längst"]))
            for ts in range(rng.choice([1, 2, 5, 69, 70, 71, 100, 101, 210]))
        ]
    await world.store(rng.sample(documents, len(documents)))
    await world.seal()
    batches = await chunks_of(world)
    chunks = [chunk for batch in batches for chunk in batch]
    assert [one for chunk in chunks for one in documents_of(chunk.columns)] == documents
    assert all(set(chunk.columns.seals.tolist()) == {1} for chunk in chunks)
    for batch in batches:
        assert len({chunk.series for chunk in batch}) == len(batch)
    for at, chunk in enumerate(chunks):
        assert decode_document(chunk.newest)["_id"] == chunk.last
        rest = [one for batch in await chunks_of(world, chunk.last) for one in batch]
        assert [one.last for one in rest] == [one.last for one in chunks[at + 1 :]], "other chunks after a kill"


async def test_large_readings_make_smaller_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "CHUNK_BYTES", 20_000)
    documents = [reading("device-1", ts, "x" * 9000) for ts in range(11)] + [reading("device-2", 1, "y" * 50_000)]
    await world.store(documents)
    await world.seal()
    chunks = [chunk for batch in await chunks_of(world) for chunk in batch]
    assert [len(chunk.columns) for chunk in chunks] == [2, 2, 2, 2, 2, 1, 1]
    assert [one for chunk in chunks for one in documents_of(chunk.columns)] == documents


async def test_a_document_that_is_no_reading_is_an_error(world: World) -> None:
    await world.store([reading("device-1", 1, 1)])
    await world.database["readings"].insert_one({"_id": "zzz"})
    await world.seal()
    with pytest.raises(DocumentError):
        await chunks_of(world)


async def test_an_empty_collection_has_no_chunks(world: World) -> None:
    assert await chunks_of(world) == []
