"""Writes to a real mongod."""

from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import MagicMock

import pytest
from bson.binary import UUID_SUBTYPE, Binary
from pymongo import MongoClient

from persister.batch import Outcome
from persister.from_broker import MAX_BATCH_BYTES
from persister.maintenance.readings_collection import CollectionInfo
from persister.mongodb_errors import COLLECTION_UUID_MISMATCH, DUPLICATE_KEY, WriteFailed, WriteRefused
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document
from readings.reading import Reading
from tests.persister.harness import stored


def document(number: int, value: float = 1.5) -> bytes:
    return encode_document("owner", "device", Reading("temperature", value, 1_700_000_000_000 + number, 0, 1))


@pytest.fixture(params=[False, True], ids=["ordinary", "clustered"])
async def store(request: pytest.FixtureRequest, mongodb_database: tuple[str, str]) -> AsyncIterator[ToMongoDB]:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=request.param, timeout_s=10) as connected:
        await connected.prepare()
        await connected.prepare()  # a second worker
        yield connected


async def test_a_repetition_is_a_duplicate_and_the_first_one_wins(
    store: ToMongoDB, mongodb_database: tuple[str, str]
) -> None:
    first = await store.write([document(1, 1.0), document(2, 2.0)])
    again = await store.write([document(2, 99.0), document(3, 3.0)])
    assert first.outcomes == [Outcome.STORED, Outcome.STORED]
    assert again.outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    assert [item["value"] for item in stored(mongodb_database)] == [1.0, 2.0, 3.0]


async def test_the_largest_batch_is_written_in_one_go_and_more_than_a_command_takes_is_refused(
    store: ToMongoDB, mongodb_database: tuple[str, str]
) -> None:
    megabytes = [
        encode_document("owner", "device", Reading("temperature", "x" * 1_048_400, 1_700_000_000_000 + number, 0, 1))
        for number in range(17)
    ]
    largest = MAX_BATCH_BYTES // 1024 // 1024 + 1
    assert (await store.write(megabytes[:largest])).outcomes == [Outcome.STORED] * largest
    with pytest.raises(WriteRefused):
        await store.write(megabytes)
    assert len(stored(mongodb_database)) == largest


def test_an_answer_about_other_documents_than_were_sent_proves_nothing() -> None:
    duplicate = {"index": 0, "code": 11000, "errmsg": "E11000"}
    assert ToMongoDB._result_of({"n": 1, "writeErrors": [duplicate]}, 2).outcomes == [Outcome.DUPLICATE, Outcome.STORED]
    for reply in ({"n": 1}, {"n": 3}, {}, {"n": 0, "writeErrors": [duplicate]}):
        with pytest.raises(WriteFailed):
            ToMongoDB._result_of(reply, 2)


@pytest.mark.parametrize("code", [DUPLICATE_KEY, COLLECTION_UUID_MISMATCH], ids=["duplicate", "renamed"])
async def test_what_is_stored_before_a_refusal_and_not_yet_safe_is_not_stored(code: int) -> None:
    """mongod answers like this when its primary steps down while it waits for the majority."""
    commands: list[dict[str, Any]] = []

    async def answer(command: dict[str, Any]) -> dict[str, Any]:
        commands.append(command)
        error = {"code": 189, "errmsg": "Primary stepped down while waiting for replication"}
        return {"n": 2, "writeErrors": [{"index": 2, "code": code}], "writeConcernError": error, "ok": 1.0}

    database = MagicMock(command=answer)
    store = ToMongoDB({"x": database}, "x", clustered=False, sealing=True)
    store._is_mongos, store._info = False, CollectionInfo(Binary(bytes(16), UUID_SUBTYPE), clustered=False)
    with pytest.raises(WriteFailed, match="not yet safe: Primary stepped down"):
        await store.write([document(number) for number in range(4)])
    assert [command["ordered"] for command in commands] == [True]


async def test_the_collection_has_the_form_that_was_asked_for(
    store: ToMongoDB, mongodb_database: tuple[str, str], request: pytest.FixtureRequest
) -> None:
    url, name = mongodb_database
    with MongoClient[dict[str, Any]](url) as client:
        (found,) = client[name].list_collections(filter={"name": "readings"})
        config = client[name].command("collStats", "readings")["wiredTiger"]["creationString"]
    assert "block_compressor=zstd" in config
    clustered = "clustered]" in request.node.name
    assert ("clusteredIndex" in found["options"]) is clustered


async def test_series_are_noted_once(store: ToMongoDB, mongodb_database: tuple[str, str]) -> None:
    key = {"owner": "o", "device": "d", "sensorType": "s"}
    await store.write_series([key, {**key, "device": "e"}])
    await store.write_series([key])
    assert [item["_id"]["device"] for item in stored(mongodb_database, "series")] == ["d", "e"]


async def test_a_server_that_is_away_is_told_as_a_failed_write() -> None:
    async with ToMongoDB.connected("mongodb://127.0.0.1:9", "x", clustered=False, timeout_s=0.3) as away:
        with pytest.raises(WriteFailed):
            await away.write([document(1)])
        with pytest.raises(WriteFailed):
            await away.write_series([{"owner": "o", "device": "d", "sensorType": "s"}])
        with pytest.raises(WriteFailed):
            await away.prepare()


async def test_a_corrupt_document_refuses_the_whole_write_and_is_no_outage(store: ToMongoDB) -> None:
    good = document(1)
    at = good.index(b"value\x00") - 1
    corrupt = good[:at] + b"\x7e" + good[at + 1 :]
    with pytest.raises(WriteRefused):
        await store.write([document(2), corrupt, document(3)])
