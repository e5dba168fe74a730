"""The users of deploy/mongodb/init.js, on a mongod that checks rights, can do what their processes do and no more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import bson
import pymongo
import pytest
import yaml
from pymongo.errors import OperationFailure

from persister.maintenance.erase import erase
from persister.maintenance.store import MaintenanceStore
from persister.to_mongodb import ToMongoDB
from runtime.mongodb import mongodb_client
from storage.codec.to_documents import documents_of
from storage.places.reading import Places
from storage.places.window import Window
from testing.waiting import eventually
from tests.integration.guarded_mongodb import GuardedMongoDBServer, roles
from tests.integration.services import ROOT, started
from tests.persister.sealing.harness import document, sealer

OPERATOR = ROOT / "deploy" / "kubernetes" / "operators" / "mongodb.yaml"
DATABASE = "tidegate"
SERIES = {"owner": "owner", "device": "device", "sensorType": "temperature"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedMongoDBServer]:
    with GuardedMongoDBServer(tmp_path_factory.mktemp("mongodb")) as running:
        yield running


def test_the_cluster_gives_its_users_the_same_roles() -> None:
    users = yaml.safe_load(OPERATOR.read_text())["spec"]["users"]
    given = {user["name"]: [{"role": one["name"], "db": one["db"]} for one in user["roles"]] for user in users}
    assert (
        roles()
        == given
        == {
            "persister": [{"role": "readWrite", "db": DATABASE}],
            "reader": [{"role": "read", "db": DATABASE}],
        }
    )


async def read(url: str) -> list[int]:
    """Return the values that a reader sees."""
    async with mongodb_client(url, name="test", timeout_s=10) as client:
        found = [one async for one in Places(client, DATABASE).stream(Window(SERIES))]
        return [bson.decode(one)["value"] for columns in found for one in documents_of(columns)]


def command(url: str, *arguments: str) -> str:
    environment = os.environ | {"READINGS_URL": url, "READINGS_DATABASE": DATABASE, "LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-m", "persister", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_persisters_user_may_seal_compact_and_unseal_and_the_readers_may_read_it_all(
    server: GuardedMongoDBServer,
) -> None:
    persister, reader = server.url_of("persister"), server.url_of("reader")
    async with ToMongoDB.connected(persister, DATABASE, clustered=False, timeout_s=10, sealing=True) as store:
        await store.prepare()
        for first in (0, 100):
            await store.write([document(number) for number in range(first, first + 100)])
            assert await sealer(store.database).seal(force=True) is not None
        await store.verify()
        await store.write([document(number) for number in range(200, 300)])
        assert await read(reader) == list(range(300))  # of readings and two sealed collections

        async with started("persister compact", READINGS_URL=persister, READINGS_DATABASE=DATABASE) as compactor:

            async def dropped() -> bool:
                names = await store.database.list_collection_names(filter={"name": {"$regex": "sealed"}})
                return not names

            await eventually(dropped, "both sealed collections are compacted")
            assert await compactor.stop() == 0  # which gives its lease up
        assert await read(reader) == list(range(300))

        assert command(persister, "compact", "--all", "--json")
        assert await store.database["readings"].find_one() is None
        assert await read(reader) == list(range(300))

        assert "300 readings are back" in command(persister, "unseal", "--yes", "--force")
        assert await store.database["readings"].count_documents({}) == 300
        assert (await MaintenanceStore(store.database).all_deleted())[0] == []
        assert (await erase(store.database, "owner", lambda _: None)).readings_after == 0


@pytest.mark.parametrize("name", ["readings", "readings.blocks", "readings.columns", "readings.pieces"])
def test_the_readers_user_may_write_nothing(server: GuardedMongoDBServer, name: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](server.url_of("reader")) as client:
        with pytest.raises(OperationFailure, match="not authorized"):
            client[DATABASE][name].insert_one({"_id": 1})
        with pytest.raises(OperationFailure, match="not authorized"):
            client[DATABASE][name].drop()


def test_nobody_may_do_anything_without_a_password(server: GuardedMongoDBServer) -> None:
    with pymongo.MongoClient[dict[str, Any]](server.url) as client, pytest.raises(OperationFailure):
        client[DATABASE]["readings"].find_one()
