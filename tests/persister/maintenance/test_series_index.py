"""The index of the series: created soon after a worker starts, and again after it was lost; nothing waits for it."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.embedded.broker import EmbeddedBroker
from persister.app import persister_service
from persister.maintenance import series_index
from persister.maintenance.series_index import maintain_series_index
from persister.maintenance.store import MaintenanceStore
from persister.mongodb_errors import WriteFailed
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from testing.waiting import eventually

Mongo = tuple[str, str]
NAME = "_id.owner_1__id.sensorType_1__id.device_1"


def indexed(mongo: Mongo) -> bool:
    with MongoClient[dict[str, Any]](mongo[0]) as client:
        return NAME in client[mongo[1]]["series"].index_information()


async def until_indexed(mongo: Mongo) -> None:
    async def made() -> bool:
        return await asyncio.to_thread(indexed, mongo)

    await eventually(made, "the index is made")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECK_EVERY_S", "RETRY_AFTER_S"):
        monkeypatch.setattr(series_index, name, 0.05)


async def test_a_worker_makes_it_on_a_database_that_has_series_without_it(
    tmp_path: Any, mongodb_database: Mongo
) -> None:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as store:
        await store.write_series([{"owner": "o", "device": "d", "sensorType": "t"}])
    settings = PersisterSettings(broker_url="embedded://unused", readings_url=url, readings_database=name, ops_port=0)
    async with (
        EmbeddedBroker.open_at(tmp_path / "queue.db") as broker,
        persister_service(settings, broker=broker, registry=CollectorRegistry()),
    ):
        await until_indexed(mongodb_database)


@pytest.mark.usefixtures("often")
async def test_it_comes_back_on_a_database_that_was_dropped(mongodb_database: Mongo) -> None:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as store:
        keeping = asyncio.ensure_future(maintain_series_index(MaintenanceStore(store.database)))
        await until_indexed(mongodb_database)
        await store.database["series"].drop()
        await until_indexed(mongodb_database)
        keeping.cancel()


@pytest.mark.usefixtures("often")
async def test_a_refusal_is_tried_again(mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
    url, name = mongodb_database
    make, refusals = MaintenanceStore.index_series, iter((WriteFailed("away"), WriteFailed("not allowed")))

    async def refuse_at_first(self: MaintenanceStore) -> None:
        if (refusal := next(refusals, None)) is not None:
            raise refusal
        await make(self)

    monkeypatch.setattr(MaintenanceStore, "index_series", refuse_at_first)
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=10) as store:
        keeping = asyncio.ensure_future(maintain_series_index(MaintenanceStore(store.database)))
        await until_indexed(mongodb_database)
        keeping.cancel()
