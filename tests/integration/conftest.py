"""All services on real servers, and one registered device."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo import MongoClient

from tests.integration.device import Identity, registered_device
from tests.integration.services import SECRET, Running, migrated, started


@dataclass
class Pipeline:
    """Two gateways, two persisters, and a device that may use them."""

    auth: Running
    gateways: list[Running]
    persisters: list[Running]
    owner: str
    device: str
    token: str
    mongodb: tuple[str, str]

    def stored(self) -> list[dict[str, Any]]:
        """Return everything in the collection, in the order of its key."""
        url, database = self.mongodb
        client: MongoClient[dict[str, Any]]
        with MongoClient(url, tz_aware=True) as client:
            return list(client[database]["readings"].find().sort("_id", 1))

    def identities(self) -> set[Identity]:
        """Return the identities of all stored readings, after checking that all are this device's."""
        keys = [document["_id"] for document in self.stored()]
        assert {(key["owner"], key["device"]) for key in keys} <= {(self.owner, self.device)}
        return {
            (key["device"], key["sensorType"], round(key["ts"].timestamp() * 1000), int(key["seq"])) for key in keys
        }


@pytest.fixture
async def pipeline(rabbitmq_url: str, mariadb_url: str, mongodb_database: tuple[str, str]) -> AsyncIterator[Pipeline]:
    """The whole pipeline, each service a process of its own."""
    url, database = mongodb_database
    await migrated(mariadb_url)
    async with AsyncExitStack() as stack:
        auth = await stack.enter_async_context(
            started("auth", AUTH_DATABASE_URL=mariadb_url, SIGNING_KEY_SECRET=SECRET, BCRYPT_COST="4")
        )
        gateways = [
            await stack.enter_async_context(started("gateway", BROKER_URL=rabbitmq_url, AUTH_URL=auth.url))
            for _ in range(2)
        ]
        persisters = [
            await stack.enter_async_context(
                started("persister", BROKER_URL=rabbitmq_url, READINGS_URL=url, READINGS_DATABASE=database)
            )
            for _ in range(2)
        ]
        owner, device, token = await registered_device(auth.url)
        yield Pipeline(auth, gateways, persisters, owner, device, token, (url, database))
