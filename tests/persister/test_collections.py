"""Collections are created once, whoever is first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from bson.datetime_ms import DatetimeMS
from pymongo.errors import OperationFailure, WriteConcernError

from persister.collections import DELETIONS, TOMBSTONES, create_if_missing, drop_if_same
from persister.maintenance.database_identity import DatabaseIdentity
from persister.maintenance.readings_collection import ReadingsCollection
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import NAMESPACE_EXISTS
from persister.requeues import Requeues
from readings.collections import READINGS, SERIES
from readings.keys import reading_key
from runtime.mongodb import mongodb_client

WORKERS = 8


@pytest.fixture
async def databases(mongodb_database: tuple[str, str]) -> AsyncIterator[list[Any]]:
    """One empty database, as several workers reach it."""
    url, name = mongodb_database
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(mongodb_client(url, name="test", timeout_s=10)) for _ in range(WORKERS)
        ]
        yield [client[name] for client in clients]


class Unseen:
    """A database in which another worker creates each collection after the driver has looked for it."""

    def __init__(self, database: Any) -> None:
        self._database = database

    async def create_collection(self, name: str, **options: Any) -> None:
        await self._database.create_collection(name, **options)
        await self._database.create_collection(name, check_exists=False, **options)


async def test_a_collection_that_another_worker_creates_meanwhile_is_a_success(databases: list[Any]) -> None:
    with pytest.raises(OperationFailure) as raised:
        await Unseen(databases[0]).create_collection("other")
    assert raised.value.code == NAMESPACE_EXISTS
    await create_if_missing(Unseen(databases[0]), "new")
    await create_if_missing(databases[0], "new")
    assert sorted(await databases[0].list_collection_names()) == ["new", "other"]


async def test_a_collection_that_cannot_be_created_is_no_success(databases: list[Any]) -> None:
    with pytest.raises(OperationFailure):
        await create_if_missing(databases[0], "new", capped=True)  # without a size


async def test_workers_that_start_at_once_prepare_one_database_without_a_failure(databases: list[Any]) -> None:
    for _ in range(10):
        await databases[0].client.drop_database(databases[0].name)
        await asyncio.gather(*(MaintenanceStore(database).prepare() for database in databases))
        await asyncio.gather(*(DatabaseIdentity(database).adopt() for database in databases))
        names = set(await databases[0].list_collection_names())
        assert names >= {SERIES, DELETIONS, TOMBSTONES}


async def test_workers_that_start_at_once_probe_one_database_without_a_failure(databases: list[Any]) -> None:
    for _ in range(10):
        await databases[0].client.drop_database(databases[0].name)
        await asyncio.gather(*(Requeues(database).probe() for database in databases))


async def test_a_drop_that_no_majority_has_is_not_done() -> None:
    """The driver raises nothing for a command: its primary may have stepped down, and the next one have had no drop."""
    error = {"code": 189, "errmsg": "Primary stepped down while waiting for replication"}
    database = MagicMock(command=AsyncMock(return_value={"ok": 1.0, "writeConcernError": error}))
    with pytest.raises(WriteConcernError, match="stepped down"):
        await drop_if_same(database, "readings.pieces", "a UUID")


async def test_a_reading_beyond_the_years_of_the_driver_is_a_reading(databases: list[Any]) -> None:
    collection = ReadingsCollection(databases[0], clustered=False)
    assert await collection.is_empty()
    key = reading_key("owner", "device", "temperature", 0, 0) | {"ts": DatetimeMS(2**62)}
    await databases[0][READINGS].insert_one({"_id": key, "value": 1})
    assert not await collection.is_empty()
