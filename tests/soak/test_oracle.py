"""The oracle of long runs finds what is lost, stored twice or foreign."""

import asyncio
import time
from typing import Any

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from readings.document import encode_document
from readings.reading import Reading
from testing.servers.mongodb import MongoDBServer
from tests.soak.oracle import AGED, Account, Outcome, check_of, compared, compared_once_stored, value_of

TS = 1_800_000_000_000


def reading(account: Account, number: int, *, sensor: str = "t", ts: int = TS, value: int | None = None) -> bytes:
    made = value_of(number, check_of(account.owner, account.device, "t", TS)) if value is None else value
    return encode_document(account.owner, account.device, Reading(sensor, made, ts, number, ts))


def store(server: MongoDBServer, database: str, *documents: bytes) -> None:
    with MongoClient[dict[str, Any]](server.url) as client:
        client[database]["readings"].insert_many([RawBSONDocument(document) for document in documents])
        ids = [RawBSONDocument(document)["_id"] for document in documents]
        for series in ({key: one[key] for key in ("owner", "device", "sensorType")} for one in ids):
            client[database]["series"].replace_one({"_id": series}, {"_id": series}, upsert=True)


async def outcome(server: MongoDBServer, account: Account, *documents: bytes) -> Outcome:
    name = server.create_database()
    store(server, name, *documents)
    try:
        return await compared(server.url, [account], name)
    finally:
        server.drop_database(name)


@pytest.fixture
def account() -> Account:
    made = Account("o", "d")
    made.begin(5)
    made.acknowledge([0, 1, 2])
    return made


async def test_what_is_stored_once_is_in_order_whether_acknowledged_or_not(
    mongodb_server: MongoDBServer, account: Account
) -> None:
    found = await outcome(mongodb_server, account, *(reading(account, number) for number in range(4)))
    assert found.counts == {
        "sent": 5,
        "acknowledged": 3,
        "stored": 4,
        "lost": 0,
        "duplicated": 0,
        "foreign": 0,
    }


async def test_an_acknowledged_reading_that_is_not_stored_is_lost(
    mongodb_server: MongoDBServer, account: Account
) -> None:
    found = await outcome(mongodb_server, account, reading(account, 0), reading(account, 2))
    assert found.counts["lost"] == 1


async def test_what_is_stored_while_it_compares_is_not_lost(mongodb_server: MongoDBServer, account: Account) -> None:
    """A queue is empty as soon as a persister has taken everything: what it writes then is still to come."""
    name = mongodb_server.create_database()
    store(mongodb_server, name, reading(account, 0))
    comparing = asyncio.create_task(compared_once_stored(mongodb_server.url, [account], name))
    await asyncio.sleep(0.5)
    store(mongodb_server, name, reading(account, 1), reading(account, 2))
    assert (await comparing).counts["lost"] == 0
    account.acknowledge([3])
    assert (await compared_once_stored(mongodb_server.url, [account], name, within_s=0.1)).counts["lost"] == 1
    mongodb_server.drop_database(name)


async def test_a_reading_under_another_time_or_sensor_is_foreign_and_does_not_count_as_stored(
    mongodb_server: MongoDBServer, account: Account
) -> None:
    other = Account("o", "another")
    documents = [
        reading(account, 0, ts=TS + 1),
        reading(account, 1, sensor="u"),
        reading(account, 2, value=7),
        reading(account, 9),
        reading(other, 0),
    ]
    found = await outcome(mongodb_server, account, *documents)
    assert found.counts["foreign"] == 5
    assert found.counts["lost"] == 3


async def test_the_same_number_under_two_times_is_duplicated(mongodb_server: MongoDBServer, account: Account) -> None:
    later = value_of(0, check_of("o", "d", "t", TS + 1))
    documents = (reading(account, 0), reading(account, 0, ts=TS + 1, value=later))
    found = await outcome(mongodb_server, account, *documents)
    assert found.counts["duplicated"] == 1


async def test_aged_readings_are_counted_apart(mongodb_server: MongoDBServer, account: Account) -> None:
    now = time.time_ns() // 1_000_000
    aged = encode_document("o", "d", Reading(AGED, 1, now, 0, now))
    found = await outcome(mongodb_server, account, aged)
    assert (found.aged, found.oldest_aged_ms) == (1, now)
    assert found.counts["foreign"] == 0


def test_an_account_survives_its_file(account: Account) -> None:
    assert Account.loaded(account.saved()) == account
