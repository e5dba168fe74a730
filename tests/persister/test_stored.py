"""Redelivered readings are found wherever they are stored as documents."""

from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from persister.mongodb_errors import WriteFailed
from persister.stored import StoredReadings
from persister.to_mongodb import ToMongoDB
from tests.persister.sealing.harness import Mongo, Stored, document, sealer


async def test_they_are_found_in_the_collection_and_in_each_sealed_one_that_waits(
    store: ToMongoDB, clustered: bool, mongodb_database: Mongo
) -> None:
    sealing = sealer(store.database, clustered=clustered)
    documents = [document(number, device) for device in ("b", "a") for number in range(1500)]
    for part in range(2):
        await store.write(documents[part::4])
        assert await sealing.seal(force=True) == part + 1
    await store.write(documents[2::4])
    sealed = {index for part in range(2) for index in range(part, len(documents), 4)}
    hot = set() if clustered else set(range(2, len(documents), 4))  # there a repetition ends at its key
    assert set(await store.find_stored(documents)) == sealed | hot
    Stored(mongodb_database).update_state({"$pull": {"waiting": {"number": 1}}})
    assert set(await store.find_stored(documents)) == (sealed | hot) - set(range(0, len(documents), 4))


async def test_a_sealed_collection_that_is_gone_or_not_renamed_yet_holds_nothing(
    store: ToMongoDB, mongodb_database: Mongo, clustered: bool
) -> None:
    await store.write([document(1)])
    await sealer(store.database, clustered=clustered).seal(force=True)
    Stored(mongodb_database).update_state({"$push": {"waiting": {"number": 2}}})
    assert await store.find_stored([document(1), document(2)]) == [0]


async def test_a_clustered_collection_is_not_scanned_whole(mongodb_database: Mongo) -> None:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=True, timeout_s=10, sealing=True) as store:
        await store.prepare()
        await store.write([document(number, device) for device in ("a", "b", "c") for number in range(1000)])
        await sealer(store.database, clustered=True).seal(force=True)
    with MongoClient[dict[str, Any]](url) as client:
        client[name].command({"profile": 2})
    async with ToMongoDB.connected(url, name, clustered=True, timeout_s=10, sealing=True) as store:
        await store.prepare()
        found_again = await store.find_stored([document(number, "b") for number in (500, 502, 509)])
    with MongoClient[dict[str, Any]](url) as client:
        client[name].command({"profile": 0})
        (found,) = client[name]["system.profile"].find({"ns": f"{name}.readings.sealed.1", "op": "query"})
    assert sorted(found_again) == [0, 1, 2]
    assert found["docsExamined"] <= 11, found["planSummary"]


@pytest.mark.parametrize("code", [26, 175, 246])
async def test_a_query_that_a_rename_ends_begins_again_with_the_first_place(
    store: ToMongoDB, clustered: bool, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    await store.write([document(1)])
    find_in, ended = StoredReadings._find_in, 0

    async def moved(self: StoredReadings, name: str, *others: Any) -> set[bytes]:
        nonlocal ended
        if name == "readings" and not ended:
            ended += 1
            await sealer(store.database, clustered=clustered).seal(force=True)
            raise OperationFailure("the collection was renamed", code)
        return await find_in(self, name, *others)

    monkeypatch.setattr(StoredReadings, "_find_in", moved)
    found = await StoredReadings(store.database).find([document(1), document(2)], clustered=False)
    assert (found, ended) == ([0], 1)


async def test_another_error_is_a_failure(store: ToMongoDB, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def refused(*_: Any) -> set[bytes]:
        nonlocal tries
        tries += 1
        raise OperationFailure("no", tries)

    monkeypatch.setattr(StoredReadings, "_find_in", refused)
    with pytest.raises(WriteFailed):
        await StoredReadings(store.database).find([document(1)], clustered=False)
    assert tries == 1
