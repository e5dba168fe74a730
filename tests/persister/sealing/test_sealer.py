"""Sealing on a real mongod."""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from persister.batch import Outcome
from persister.mongodb_errors import WriteFailed
from persister.sealing import sealer as sealer_module
from persister.sealing import state_document
from persister.to_mongodb import ToMongoDB
from testing.waiting import eventually
from tests.persister.sealing.harness import Mongo, Stored, document, sealer, writing, written


@pytest.fixture
def stored(mongodb_database: Mongo) -> Stored:
    return Stored(mongodb_database)


@pytest.mark.parametrize("batch", [20, 1200])
async def test_thirty_renames_under_three_writers_lose_nothing_and_double_nothing(
    store: ToMongoDB,
    stored: Stored,
    mongodb_database: Mongo,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
    clustered: bool,
) -> None:
    monkeypatch.setattr(state_document, "MAX_WAITING", 100)
    monkeypatch.setattr(sealer_module, "MAX_WAITING", 100)
    url, name = mongodb_database
    sealing = sealer(store.database, clustered=clustered)
    async with AsyncExitStack() as stack:
        acknowledged = []
        for device in ("a", "b", "c"):
            client = ToMongoDB.connected(url, name, clustered=clustered, timeout_s=10, sealing=True)
            writer = await stack.enter_async_context(client)
            await writer.prepare()
            acknowledged.append(await stack.enter_async_context(writing(writer, device, batch=batch)))
        for number in range(1, 31):
            assert await sealing.seal(force=True) == number
            size = sum(map(len, acknowledged))

            async def more(size: int = size) -> bool:
                return sum(map(len, acknowledged)) > size + 3 * batch

            await eventually(more, "the writers go on")
    assert stored.sealed() == stored.waiting() == list(range(1, 31))
    copies = stored.copies()
    assert set(copies) == set().union(*acknowledged)
    assert set(copies.values()) == {1}
    # The next collection was created with its options each time, though inserts came meanwhile.
    for name, options in stored.collections().items():
        assert "zstd" in str(options["storageEngine"]), name
        assert ("clusteredIndex" in options) is clustered


async def test_a_collection_is_sealed_when_it_is_large_enough_and_not_before(store: ToMongoDB, stored: Stored) -> None:
    sealing = sealer(store.database, readings=10)
    await store.write([document(number) for number in range(9)])
    assert await sealing.seal_if_due() is None
    assert await sealing.seal() is None
    await store.write([document(9)])
    assert await sealing.seal_if_due() == 1
    assert await sealing.seal_if_due() is None
    assert (stored.count("readings.sealed.1"), stored.count("readings")) == (10, 0)


async def test_a_collection_is_sealed_when_it_is_old_enough_and_an_empty_one_never(
    store: ToMongoDB, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "LOOK_EVERY_S", 0.05)
    sealing = sealer(store.database, seconds=0.5)
    await store.write([document(1)])
    assert await sealing.seal_if_due() is None, "its birth is not known: it is now"
    await asyncio.sleep(0.7)
    assert await sealing.seal_if_due() == 1
    await asyncio.sleep(0.7)
    assert await sealing.seal_if_due() is None
    assert await sealing.seal(force=True) is None
    assert stored.sealed() == [1]
    await store.write([document(2)])
    await asyncio.sleep(0.1)
    assert await sealing.seal_if_due() == 2


async def test_while_nothing_is_due_a_check_is_one_count(store: ToMongoDB, monkeypatch: pytest.MonkeyPatch) -> None:
    sealing = sealer(store.database)
    await sealing.seal_if_due()

    async def unexpected(_: Any) -> Any:
        raise AssertionError("neither the list nor the state is read")

    monkeypatch.setattr(sealer_module.Sealer, "_look", unexpected)
    for _ in range(5):
        assert await sealing.seal_if_due() is None


async def test_while_eight_wait_nothing_is_sealed_and_the_collection_grows(store: ToMongoDB, stored: Stored) -> None:
    registry = CollectorRegistry()
    sealing = sealer(store.database, readings=1, registry=registry)
    for number in range(8):
        await store.write([document(number)])
        assert await sealing.seal_if_due() == number + 1
    await store.write([document(8)])
    with capture_logs() as logs:
        assert await sealing.seal_if_due() is None
        assert await sealing.seal_if_due() is None
        assert await sealing.seal(force=True) is None
    assert [one["event"] for one in logs] == ["Nothing more is sealed while so many wait to be compacted."]
    assert registry.get_sample_value("tidegate_persister_seals_total") == 8
    assert registry.get_sample_value("tidegate_persister_seals_refused_total") == 2
    assert registry.get_sample_value("tidegate_persister_sealed_waiting") == 8
    await store.write([document(9)])
    assert stored.count("readings") == 2
    stored.update_state({"$pull": {"waiting": {"number": 3}}})
    await store.database["readings.sealed.3"].drop()
    assert await sealing.seal() == 9


async def test_after_a_restore_the_next_number_is_above_all_that_exist_and_all_that_exist_wait(
    store: ToMongoDB, stored: Stored
) -> None:
    sealing = sealer(store.database)
    for number in range(3):
        await store.write([document(number)])
        await sealing.seal(force=True)
    # The state is an older copy than the collections.
    stored.update_state(
        {"$set": {"highest": 1, "waiting": [one for one in stored.state()["waiting"] if one["number"] == 1]}}
    )
    await store.write([document(3)])
    with capture_logs() as logs:
        assert await sealing.seal(force=True) == 4
    assert [one["numbers"] for one in logs if "not on the list" in one["event"]] == [[2, 3]]
    assert sorted(stored.waiting()) == [1, 2, 3, 4]
    assert stored.state()["highest"] == 4
    assert sorted(stored.copies().values()) == [1] * 4


async def test_a_number_that_waits_is_not_taken_again_even_if_next_was_restored_backwards(
    store: ToMongoDB, stored: Stored
) -> None:
    sealing = sealer(store.database)
    await store.write([document(0)])
    await sealing.seal(force=True)
    await store.database["readings.sealed.1"].drop()
    stored.update_state({"$set": {"highest": 0}})
    await store.write([document(1)])
    assert await sealing.seal(force=True) == 2


async def test_of_several_that_seal_at_once_one_does_it(store: ToMongoDB, stored: Stored) -> None:
    sealers = [sealer(store.database, readings=10) for _ in range(6)]
    await store.write([document(number) for number in range(10)])
    done = await asyncio.gather(*(one.seal_if_due() for one in sealers), return_exceptions=True)
    # Two that create the state document at once: one of them may be refused, and tries again.
    assert [one for one in done if isinstance(one, int)] in ([1], []), done
    assert await sealers[0].seal_if_due() in (1, None)
    assert stored.sealed() == [1]


async def test_a_sealer_that_was_stopped_past_its_lease_seals_nothing_it_has_not_looked_at(
    store: ToMongoDB, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, other = sealer(store.database), sealer(store.database)
    await store.write([document(1)])
    rename = stopped._rename

    async def late(uuid: Any, number: int) -> bool:
        """The lease ends, and another process seals and writes, before it goes on."""
        stored.end_lease()
        assert await other.seal(force=True) == number + 1
        await store.write([document(2)])
        return await rename(uuid, number)

    monkeypatch.setattr(stopped, "_rename", late)
    assert await stopped.seal(force=True) is None
    assert stored.sealed() == [2]
    assert stored.count("readings") == 1


async def test_a_collection_that_an_insert_has_created_after_a_seal_is_sealed_again_at_once(
    store: ToMongoDB, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing = sealer(store.database)
    await store.write([document(1)])
    create = sealing._collection.create
    inserted = 0

    async def late() -> None:
        """An insert that names no UUID is first, once."""
        nonlocal inserted
        if not inserted:
            await store.database["readings"].insert_one({"_id": {"device": "by name"}, "value": 0})
        inserted += 1
        await create()

    monkeypatch.setattr(sealing._collection, "create", late)
    assert await sealing.seal(force=True) == 2
    assert stored.count("readings.sealed.2") == 1
    assert stored.collections()["readings.sealed.2"] == {}
    assert "zstd" in str(stored.collections()["readings"])


async def test_a_collection_made_by_hand_before_anything_was_sealed_is_not_sealed_at_once(
    mongodb_database: Mongo, stored: Stored
) -> None:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10, sealing=True) as store:
        await store.database["readings"].insert_one({"_id": 1, "value": 1})
        sealing = sealer(store.database, readings=2)
        assert await sealing.seal_if_due() is None
        await store.database["readings"].insert_one({"_id": 2, "value": 1})
        assert await sealing.seal_if_due() == 1


async def test_a_missing_collection_is_created_with_its_options(
    store: ToMongoDB, stored: Stored, clustered: bool
) -> None:
    await store.database["readings"].drop()
    assert await sealer(store.database, clustered=clustered).seal_if_due() is None
    assert stored.collections()["readings"]


async def test_through_mongos_nothing_is_sealed_and_that_is_logged_once(
    store: ToMongoDB, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mongos(_: Any) -> bool:
        return True

    monkeypatch.setattr(sealer_module, "is_mongos", mongos)
    sealing = sealer(store.database, readings=1)
    await store.write([document(1)])
    with capture_logs() as logs:
        for _ in range(3):
            assert await sealing.seal_if_due() is None
        assert await sealing.seal(force=True) is None
    assert len(logs) == 1
    assert "mongos" in logs[0]["event"]
    assert (stored.sealed(), stored.state()) == ([], {})


async def test_a_mongodb_that_is_away_is_a_failure_and_sealing_goes_on_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sealer_module, "CHECK_EVERY_S", 0.01)
    async with ToMongoDB.connected("mongodb://127.0.0.1:9", "x", clustered=False, timeout_s=0.1) as away:
        with pytest.raises(WriteFailed):
            await sealer(away.database).seal(force=True)
        with capture_logs() as logs:
            running = asyncio.ensure_future(sealer(away.database).run())
            async with asyncio.timeout(30):
                while not logs:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            assert not running.done()
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    assert [one["log_level"] for one in logs] == ["warning"], "logged once"


async def test_a_batch_that_meets_a_rename_goes_on_in_the_next_collection(store: ToMongoDB, stored: Stored) -> None:
    await store.write([document(0)])
    await store.database["readings"].rename("readings.sealed.1")
    assert (await store.write([document(number) for number in range(1, 1001)])).outcomes == [Outcome.STORED] * 1000
    assert (stored.count("readings.sealed.1"), stored.count("readings")) == (1, 1000)
    assert stored.collections()["readings"], "created by the worker, with its options"


async def test_an_old_version_keeps_storing_while_a_new_one_seals(
    store: ToMongoDB, stored: Stored, mongodb_database: Mongo
) -> None:
    """It names the UUID, unordered: what it has to write again may be in two collections, and nothing is lost."""
    url, name = mongodb_database
    sealing = sealer(store.database)
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as old:
        await old.prepare()
        async with writing(old, "old", batch=600) as of_old, writing(store, "new", batch=600) as of_new:
            for number in range(1, 7):
                assert await sealing.seal(force=True) == number
                sizes = len(of_old), len(of_new)

                async def more(sizes: tuple[int, int] = sizes) -> bool:
                    return len(of_old) > sizes[0] and len(of_new) > sizes[1]

                await eventually(more, "both go on")
    copies = stored.copies()
    assert set(copies) == of_old | of_new
    assert {copies[one] for one in of_new} == {1}


async def test_a_write_of_stored_and_new_readings_has_the_outcome_of_each(store: ToMongoDB) -> None:
    await written(store, [document(3), document(700)])
    outcomes = await written(store, [document(number) for number in range(1000)])
    assert [index for index, one in enumerate(outcomes) if one is Outcome.DUPLICATE] == [3, 700]
    assert outcomes.count(Outcome.STORED) == 998
