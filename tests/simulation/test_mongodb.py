"""The model of MongoDB answers as mongod does, where the product looks at the answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import bson
import pytest
from bson import ObjectId
from bson.binary import UUID_SUBTYPE, Binary
from pymongo import WriteConcern
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from persister.batch import Outcome
from persister.compaction.heads import Heads
from persister.compaction.pieces import Pieces, new_run
from persister.mongodb_errors import WriteFailed
from persister.raw_bson import RawBson
from persister.to_mongodb import ToMongoDB
from readings.collections import READINGS
from readings.document import AS_MILLISECONDS, encode_document, id_bytes
from readings.filters import in_time_range
from readings.keys import series_key
from readings.reading import Reading
from storage.codec.from_documents import columns_of
from storage.places.names import BLOCKS, PIECES
from storage.places.raw_find import find_raw
from tests.simulation.history import History
from tests.simulation.mongodb import Server
from tests.simulation.to_mongodb import Client

SERIES = series_key("owner", "device", "a")
TS = 1_790_000_000_000


def document(seq: int, value: int = 0) -> bytes:
    return encode_document("owner", "device", Reading("a", value, TS, seq, TS))


@asynccontextmanager
async def model(sealing: bool) -> AsyncIterator[ToMongoDB]:
    yield ToMongoDB(Client(Server(History(lambda: 0.0), Random(1))), "model", clustered=False, sealing=sealing)


@pytest.fixture(params=["model", "mongod"])
async def store(request: pytest.FixtureRequest, sealing: bool) -> AsyncIterator[ToMongoDB]:
    if request.param == "model":
        opened = model(sealing)
    else:
        url, name = request.getfixturevalue("mongodb_database")
        opened = ToMongoDB.connected(url, name, clustered=False, timeout_s=10, sealing=sealing)
    async with opened as store:
        await store.prepare()
        yield store


@pytest.fixture(params=[False, True], ids=["unordered", "ordered"])
def sealing(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def test_repetitions_are_duplicates_and_the_first_value_stays(store: ToMongoDB) -> None:
    await store.write([document(2, 1)])
    written = await store.write([document(1), document(2, 2), document(3), document(3, 3)])
    assert written.outcomes == [Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED, Outcome.DUPLICATE]
    found = await store.database[READINGS].find({"_id": {"$gte": {}}}).sort("_id", 1).to_list(None)
    assert [one["value"] for one in found] == [0, 1, 0]
    assert await store.find_stored([document(4), document(1)]) == [1]


async def test_an_insert_into_another_collection_is_refused(store: ToMongoDB) -> None:
    for ordered, refused in (True, [0]), (False, [0, 1]):
        command = {
            "insert": READINGS,
            "ordered": ordered,
            "documents": [RawBson(document(1) + document(2))],
            "collectionUUID": Binary(bytes(16), UUID_SUBTYPE),
        }
        reply = await store.database.command(command)
        assert reply["n"] == 0
        assert [(one["index"], one["code"]) for one in reply["writeErrors"]] == [(index, 361) for index in refused]


async def test_documents_are_found_in_the_order_of_their_keys(store: ToMongoDB) -> None:
    await store.write([document(seq) for seq in (3, 10, 1, 2)])
    collection = store.database.get_collection(READINGS, codec_options=AS_MILLISECONDS)
    raw = await find_raw(collection, in_time_range(SERIES), limit=3)
    assert raw == document(1) + document(2) + document(3)
    last = bson.decode(document(2), AS_MILLISECONDS)["_id"]
    assert await find_raw(collection, {"_id": {"$gt": last}}, limit=9) == document(3) + document(10)


async def test_pieces_and_heads_are_read_and_deleted_alike(store: ToMongoDB) -> None:
    database = store.database
    collection = database.get_collection(PIECES, codec_options=AS_MILLISECONDS)
    pieces = Pieces(collection)
    columns = columns_of(document(1) + document(2), 7)
    await pieces.insert([one for level in (1, 0) for one in new_run(SERIES, level, [columns])])
    (found,) = (await pieces.of([SERIES])).values()
    assert [(piece.level, piece.count, piece.last_seal) for piece in found] == [(0, 2, 7), (1, 2, 7)]
    await pieces.delete(found[:1])
    assert set(await pieces.load(found)) == {found[1].key["id"]}
    heads = database.get_collection(BLOCKS, codec_options=AS_MILLISECONDS)
    assert await Heads(heads).last(SERIES) is None


async def test_a_head_is_replaced_only_by_who_has_seen_it(store: ToMongoDB) -> None:
    heads = store.database.get_collection(BLOCKS, codec_options=AS_MILLISECONDS)
    key, first, second = {**SERIES, "ts": 1}, ObjectId(), ObjectId()
    await heads.insert_one({"_id": key, "edit": first, "pending": True})
    with pytest.raises(DuplicateKeyError):
        await heads.insert_one({"_id": key, "edit": second})
    change = {"$set": {"edit": second}, "$unset": {"pending": ""}}
    assert (await heads.update_one({"_id": key, "edit": second}, change)).matched_count == 0
    assert (await heads.update_one({"_id": key, "edit": first}, change)).matched_count == 1
    assert (await heads.replace_one({"_id": key, "edit": first}, {"_id": key})).matched_count == 0
    assert await heads.find_one({"_id": key}) == {"_id": key, "edit": second}


@pytest.mark.parametrize("rolls_back", [True, False])
async def test_what_is_rolled_back_never_counts_as_stored_also_behind_a_duplicate(
    sealing: bool, rolls_back: bool
) -> None:
    """The first insert of the batch ends at the duplicate, and its reply says that the others are not safe."""
    server = Server(History(lambda: 0.0), Random(1))
    store = ToMongoDB(Client(server), "model", clustered=False, sealing=sealing)
    await store.prepare()
    await store.write([document(3)])
    server.lose_majority()
    writing = asyncio.ensure_future(store.write([document(seq) for seq in (1, 2, 3, 4)]))
    await asyncio.sleep(0.5)
    assert not writing.done()
    server.regain_majority(rolls_back=rolls_back)
    if rolls_back:
        with pytest.raises(WriteFailed, match="not yet safe"):
            await writing
        assert sorted(server.collections[READINGS].documents) == [id_bytes(document(3))]
    else:
        assert (await writing).outcomes == [Outcome.STORED, Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED]


@pytest.mark.parametrize("w", [1, "majority"])
async def test_a_reply_waits_for_a_majority_only_if_the_write_concern_says_so(w: int | str) -> None:
    server = Server(History(lambda: 0.0), Random(1))
    database = Client(server)["model"]
    server.lose_majority()
    command = {"insert": READINGS, "ordered": True, "documents": [RawBson(document(1))], "writeConcern": {"w": w}}
    inserting = asyncio.ensure_future(database.command(command))
    series = database.get_collection("series", write_concern=WriteConcern(w))
    updating = asyncio.ensure_future(series.insert_one({"_id": 1}))
    await asyncio.sleep(0.5)
    assert inserting.done() is updating.done() is (w == 1)
    server.regain_majority(rolls_back=False)
    await asyncio.gather(inserting, updating)


async def test_only_a_read_of_what_a_majority_has_leaves_out_what_may_be_rolled_back() -> None:
    server = Server(History(lambda: 0.0), Random(1))
    database = Client(server)["model"]
    server.lose_majority()
    server.put(server.created(READINGS), document(1))
    for level, expected in ("local", [0]), ("majority", []):
        collection = database.get_collection(READINGS, codec_options=AS_MILLISECONDS, read_concern=ReadConcern(level))
        assert [one["value"] for one in await collection.find({"_id": {"$gte": {}}}).to_list(None)] == expected
        assert bool(await find_raw(collection, {}, limit=9)) is bool(expected)
