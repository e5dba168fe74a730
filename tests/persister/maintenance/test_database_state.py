"""MongoDB restored from an older copy, dropped or replaced while workers run."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from bson.raw_bson import RawBSONDocument
from prometheus_client import CollectorRegistry
from pymongo import MongoClient
from structlog.testing import capture_logs

from broker.deleted_owner import DeletedOwner
from broker.embedded.broker import EmbeddedBroker
from broker.message import Message
from broker.topology import DEAD_LETTERS, OWNERS_EXCHANGE, READINGS, READINGS_EXCHANGE
from persister.app import persister_service
from persister.known_series import KnownSeries
from persister.maintenance import erasure
from persister.maintenance.database_identity import DatabaseIdentity
from persister.maintenance.database_state import DatabaseState
from persister.maintenance.deleted_owners import DeletedOwners
from persister.maintenance.readings_collection import REPLACED
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import WriteFailed
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document, series_bytes
from readings.reading import Reading
from testing.servers.mongodb import MongoDBServer
from testing.waiting import eventually

TS = 1_700_000_000_000
NAME = "tidegate"


def document(device: str, number: int, owner: str = "owner") -> bytes:
    return encode_document(owner, device, Reading("temperature", number, TS + number, 0, TS))


class System:
    """Two workers on a mongod that can be restored."""

    def __init__(
        self, server: MongoDBServer, broker: EmbeddedBroker, copy: Path, looks: Counter[DatabaseState]
    ) -> None:
        self.server, self._broker, self._copy, self._looks = server, broker, copy, looks

    async def publish(self, *documents: bytes) -> None:
        async with self._broker.publisher() as publisher:
            for one in documents:
                await publisher.publish(Message.of([one]), READINGS_EXCHANGE)

    async def announce_deleted(self, owner: str) -> None:
        async with self._broker.publisher() as publisher:
            await publisher.publish(DeletedOwner(owner, TS).message(), OWNERS_EXCHANGE)

    async def copy(self) -> None:
        """Take a backup as an operator does: of the files, with mongod stopped."""
        await asyncio.to_thread(self.server.stop)
        await asyncio.to_thread(shutil.copytree, self.server.folder / "data", self._copy)
        await asyncio.to_thread(self.server.restart)

    async def restore(self, *meanwhile: bytes) -> None:
        """Put the copy in the place of what is there; publish something while mongod is away."""
        await asyncio.to_thread(self.server.stop)
        await self.publish(*meanwhile)
        shutil.rmtree(self.server.folder / "data")
        shutil.copytree(self._copy, self.server.folder / "data")
        await asyncio.to_thread(self.server.restart)

    def database(self, client: MongoClient[dict[str, Any]]) -> Any:
        return client[NAME]

    def found(self, collection: str) -> list[tuple[str, str]]:
        """Return owner and device of each document of a collection."""
        with MongoClient[dict[str, Any]](self.server.url) as client:
            return [
                (one["_id"]["owner"], one["_id"]["device"])
                for one in client[NAME][collection].find({"_id.owner": {"$exists": True}}).sort("_id", 1)
            ]

    async def has(self, readings: list[tuple[str, str]], series: list[tuple[str, str]]) -> None:
        """Return once exactly these are stored and the queue is empty."""

        async def so() -> bool:
            settled = self._broker.unsettled(READINGS) == 0  # delivered or not
            return settled and self.found("readings") == readings and self.found("series") == series

        try:
            await eventually(so, "what is stored is what is expected")
        except AssertionError:
            print(self.found("readings"), self.found("series"))
            raise
        assert await self._broker.depth(DEAD_LETTERS) == 0

    async def looked(self) -> None:
        """Return once each worker has begun and finished a check of the database, and found it the same."""
        least = {worker: looks + 2 for worker, looks in self._looks.items()}

        async def so() -> bool:
            return all(self._looks[worker] >= looks for worker, looks in least.items())

        await eventually(so, "each worker has checked")

    def options(self) -> dict[str, Any]:
        with MongoClient[dict[str, Any]](self.server.url) as client:
            (found,) = client[NAME].list_collections(filter={"name": "readings"})
            return dict(found["options"])


@pytest.fixture
async def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[System]:
    monkeypatch.setattr(erasure, "POLL_EVERY_S", 0.2)
    looks: Counter[DatabaseState] = Counter()
    refresh = DatabaseState.refresh

    async def counted(state: DatabaseState) -> None:
        await refresh(state)
        looks[state] += 1

    monkeypatch.setattr(DatabaseState, "refresh", counted)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(MongoDBServer(tmp_path / "mongod"))
        broker = await stack.enter_async_context(EmbeddedBroker.open_at(tmp_path / "queue.sqlite3"))
        settings = PersisterSettings(
            broker_url="embedded://unused", readings_url=server.url, readings_database=NAME, readings_clustered=True
        )
        for _ in range(2):
            await stack.enter_async_context(persister_service(settings, broker=broker, registry=CollectorRegistry()))
        yield System(server, broker, tmp_path / "copy", looks)


A, B, C = ("owner", "a"), ("owner", "b"), ("owner", "c")


async def test_a_series_first_met_after_the_copy_gets_its_document_again(system: System) -> None:
    await system.publish(document("a", 1))
    await system.has([A], [A])
    await system.copy()
    # Both workers know it.
    for number in range(20):
        await system.publish(document("b", number))
    await system.has([A] + [B] * 20, [A, B])
    # What was stored since a worker's last check may be in the database that answers now, or may not: the series is
    # written again in any case.
    await system.looked()
    await system.restore()
    await system.has([A], [A])
    await system.publish(*[document("b", number) for number in range(100, 120)])
    await system.has([A] + [B] * 20, [A, B])


async def test_one_reading_that_arrives_while_mongodb_is_being_restored_makes_its_series_seen(system: System) -> None:
    await system.publish(document("a", 1))
    await system.has([A], [A])
    await system.copy()
    for number in range(20):
        await system.publish(document("b", number), document("c", number))
    await system.has([A] + [B] * 20 + [C] * 20, [A, B, C])
    await system.restore(document("b", 100), document("c", 100))
    await system.has([A, B, C], [A, B, C])


async def test_one_reading_that_is_stored_before_anyone_has_seen_the_restore_makes_its_series_seen(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    await system.publish(document("a", 1))
    await system.has([A], [A])
    await system.copy()
    for number in range(20):
        await system.publish(document("b", number))
    await system.has([A] + [B] * 20, [A, B])
    monkeypatch.setattr(erasure, "POLL_EVERY_S", 4)
    await asyncio.sleep(0.5)  # the last check before the restore is over
    await system.restore()
    await system.publish(document("b", 100))
    await system.has([A, B], [A, B])


async def test_a_database_that_is_dropped_comes_back_with_its_options(system: System) -> None:
    await system.publish(document("a", 1))
    await system.has([A], [A])
    before = system.options()
    with MongoClient[dict[str, Any]](system.server.url) as client:
        client.drop_database(NAME)
    await system.publish(document("a", 2), document("b", 1))
    await system.has([A, B], [A, B])
    assert system.options() == before
    assert before["clusteredIndex"]
    assert "zstd" in str(before["storageEngine"])


@pytest.mark.parametrize("dropped", ["readings", "series", "database"])
async def test_a_collection_that_is_dropped_by_itself_comes_back(system: System, dropped: str) -> None:
    for number in range(20):  # so that both workers know the series
        await system.publish(document("a", number))
    await system.has([A] * 20, [A])
    before = system.options()
    with MongoClient[dict[str, Any]](system.server.url) as client:
        client[NAME][dropped].drop()
    await system.publish(document("a", 100), document("a", 101))
    await system.has([A] * (2 if dropped == "readings" else 22), [A])
    assert system.options() == before


async def test_a_deleted_owner_who_returns_with_a_copy_is_erased_when_announced_again(system: System) -> None:
    await system.publish(document("a", 1), document("g", 1, "gone"))
    await system.has([("gone", "g"), A], [("gone", "g"), A])
    await system.announce_deleted("gone")
    await system.has([A], [A])
    await system.copy()  # with the tombstone, whose sweeps are treated as finished
    with MongoClient[dict[str, Any]](system.server.url) as client:
        client[NAME]["deleted_owners"].update_one({}, {"$set": {"sweeps": 4}, "$unset": {"nextSweepAt": ""}})
        client[NAME]["readings"].insert_one({"_id": {"owner": "gone", "device": "g"}})
    await system.announce_deleted("gone")
    await system.has([A], [A])


async def test_a_copy_of_before_a_deletion_makes_its_owner_a_living_one_until_it_is_announced_again(
    system: System,
) -> None:
    """The accounts may have been restored too: what is accepted of theirs has to be stored."""
    await system.publish(document("g", 1, "gone"))
    await system.has([("gone", "g")], [("gone", "g")])
    await system.copy()
    await system.announce_deleted("gone")
    await system.has([], [])
    await system.publish(document("g", 2, "gone"))
    await system.has([], [])
    await system.restore()
    await system.has([("gone", "g")], [("gone", "g")])
    await system.publish(document("g", 3, "gone"))
    await system.has([("gone", "g")] * 2, [("gone", "g")])
    await system.announce_deleted("gone")
    await system.has([], [])


@pytest.fixture
async def store(mongodb_database: tuple[str, str]) -> AsyncIterator[ToMongoDB]:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=True, timeout_s=10) as connected:
        yield connected


async def test_an_empty_collection_that_an_insert_has_made_is_made_anew(store: ToMongoDB) -> None:
    readings = store.database["readings"]
    await readings.insert_one({"_id": 1})
    await readings.delete_one({"_id": 1})
    await store.prepare()
    (found,) = await (await store.database.list_collections(filter={"name": {"$regex": "^readings"}})).to_list(None)
    assert found["name"] == "readings"
    assert found["options"]["clusteredIndex"]
    assert "zstd" in str(found["options"]["storageEngine"])


async def test_a_collection_without_options_that_holds_readings_is_left_alone_and_told_of(store: ToMongoDB) -> None:
    await store.database["readings"].insert_one({"_id": 1})
    with capture_logs() as logs:
        await store.prepare()
        await store.prepare()
    (warning,) = [one for one in logs if "has other options" in one["event"]]
    assert (warning["zstd"], warning["clustered"], warning["clustered_wanted"]) == (False, False, True)
    assert await store.database["readings"].find_one() == {"_id": 1}
    assert (await store.write([document("a", 1)])).errors == {}
    assert await store.find_stored([document("a", 1)]) == [0], "queried like an ordinary collection, which it is"


async def test_what_was_written_while_the_collection_was_replaced_is_taken_over(store: ToMongoDB) -> None:
    """Also after a worker that died between the two steps."""
    await store.database[f"{REPLACED}0123456789abcdef"].insert_many([{"_id": number} for number in range(3)])
    await store.prepare()
    assert [one["_id"] async for one in store.database["readings"].find().sort("_id", 1)] == [0, 1, 2]
    assert not await store.database.list_collection_names(filter={"name": {"$regex": f"^{REPLACED}"}})


async def test_workers_that_prepare_an_empty_collection_at_once_lose_nothing(store: ToMongoDB) -> None:
    await store.database.create_collection("readings")
    stop = asyncio.Event()
    written: list[bytes] = []

    async def write() -> None:
        """Write as an older version does, without naming the collection's UUID."""
        while not stop.is_set():
            one = document("a", len(written))
            await store.database.command({"insert": "readings", "documents": [RawBSONDocument(one)]})
            written.append(one)

    writing = asyncio.ensure_future(write())
    await asyncio.gather(*(store.prepare() for _ in range(8)))
    stop.set()
    await writing
    await store.prepare()
    assert await store.database["readings"].count_documents({}) == len(written) > 0


async def test_a_write_into_a_collection_that_was_dropped_fails_and_the_next_one_finds_its_options(
    store: ToMongoDB,
) -> None:
    await store.prepare()
    await store.database["readings"].drop()
    with pytest.raises(WriteFailed):
        await store.write([document("a", 1), document("a", 2)])
    assert await store.database.list_collection_names(filter={"name": "readings"}) == []
    await store.write([document("a", 1)])
    (found,) = await (await store.database.list_collections(filter={"name": "readings"})).to_list(None)
    assert found["options"]["clusteredIndex"]


async def test_the_identity_is_the_same_until_something_else_answers(store: ToMongoDB) -> None:
    database = store.database
    await MaintenanceStore(database).prepare()
    one, other = DatabaseIdentity(database), DatabaseIdentity(database)
    await asyncio.gather(one.adopt(), other.adopt())
    assert await one.mismatch() == await other.mismatch() == ""
    copy = await database["database"].find().to_list(None)
    await asyncio.gather(*(one.mark() for _ in range(10)))
    assert await one.mismatch() == ""
    for document_of_copy in copy:
        await database["database"].replace_one({"_id": document_of_copy["_id"]}, document_of_copy)
    # The other has learned nothing since the copy: to it the database is the same.
    assert "older copy" in await one.mismatch()
    assert await other.mismatch() == ""
    with pytest.raises(WriteFailed):
        await one.mark()
    await one.adopt()
    await one.mark()
    assert await one.mismatch() == ""
    await one.next_generation()
    assert "operator" in await one.mismatch()
    assert "operator" in await other.mismatch()
    await database["database"].delete_many({})
    assert "dropped" in await one.mismatch()


class Changed(DatabaseIdentity):
    """Finds another database, and something is stored while it looks."""

    def __init__(self, database: Any, known: KnownSeries, name: bytes) -> None:
        super().__init__(database)
        self._known_series, self._name = known, name

    async def mismatch(self) -> str:
        self._known_series.record_stored([self._name])
        return "it is another one"


async def test_a_reading_stored_while_a_worker_asks_whose_database_it_is_makes_its_series_seen(
    store: ToMongoDB,
) -> None:
    name, known = series_bytes(document("a", 1)), KnownSeries(10)
    known.add(name)
    state = DatabaseState(
        store, MaintenanceStore(store.database), Changed(store.database, known, name), known, DeletedOwners(known)
    )
    await state.load()
    await state.verify()
    assert not known.touch(name)
    assert [one["_id"]["device"] async for one in store.database["series"].find()] == ["a"]


async def test_numbers_of_deletions_that_begin_anew_are_learned_all_the_same(store: ToMongoDB) -> None:
    """The collection of numbers was dropped, or restored from an older copy, by itself."""

    def worker() -> tuple[DatabaseState, DeletedOwners]:
        known = KnownSeries(10)
        deleted = DeletedOwners(known)
        return DatabaseState(
            store, MaintenanceStore(store.database), DatabaseIdentity(store.database), known, deleted
        ), deleted

    (one, _), (other, known_to_other) = worker(), worker()
    await one.load()
    await other.load()
    await one.record_deletion(DeletedOwner("first", TS))
    await one.record_deletion(DeletedOwner("second", TS))
    await other.refresh()
    assert "second" in known_to_other
    await store.database["deletions"].drop()
    await one.record_deletion(DeletedOwner("third", TS))
    await other.refresh()
    assert "third" in known_to_other
