"""The role that the shipped configuration gives to persisters is enough to seal; a lesser one loses nothing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from persister.mongodb_errors import WriteFailed
from persister.to_mongodb import ToMongoDB
from testing.servers.mongodb import MongoDBServer
from tests.integration.services import ROOT
from tests.persister.sealing.harness import Stored, document, sealer

INSERT_ONLY = ["find", "insert", "update", "createCollection", "createIndex", "listCollections", "collStats"]


class MongoDBWithUsers(MongoDBServer):
    """A mongod that requires a log-in; its first user may be created without one."""

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        command, environment = super()._command()
        return [*command, "--auth"], environment

    def create_users(self, role: str) -> None:
        """Create `root`, `persister` with a role of the database `tidegate`, and `lesser`, who may not rename."""
        with MongoClient[dict[str, Any]](self.url) as client:
            client.admin.command({"createUser": "root", "pwd": "x", "roles": ["root"]})
        with MongoClient[dict[str, Any]](self.url_of("root")) as client:
            privilege = {"resource": {"db": "tidegate", "collection": ""}, "actions": INSERT_ONLY}
            client.admin.command({"createRole": "lesser", "privileges": [privilege], "roles": []})
            client.admin.command({"createUser": "persister", "pwd": "x", "roles": [{"role": role, "db": "tidegate"}]})
            client.admin.command({"createUser": "lesser", "pwd": "x", "roles": ["lesser"]})

    def url_of(self, user: str) -> str:
        return f"mongodb://{user}:x@127.0.0.1:{self.port}/?authSource=admin"


def shipped_role() -> str:
    """Return the role of `persister` in the script that prepares the database of compose.yaml."""
    found = re.search(r'persister: \{.*roles: \[\{ role: "(\w+)"', (ROOT / "deploy/mongodb/init.js").read_text())
    assert found
    return found[1]


async def test_the_shipped_role_may_seal_and_a_lesser_one_takes_no_place_on_the_list(tmp_path: Path) -> None:
    with MongoDBWithUsers(tmp_path / "mongod") as server:
        server.create_users(shipped_role())
        stored = Stored((server.url_of("root"), "tidegate"))
        async with ToMongoDB.connected(
            server.url_of("lesser"), "tidegate", clustered=False, timeout_s=10, sealing=True
        ) as lesser:
            await lesser.prepare()
            await lesser.write([document(1)])
            for _ in range(3):
                with pytest.raises(WriteFailed, match="not authorized"):
                    await sealer(lesser.database).seal(force=True)
            assert (stored.waiting(), stored.sealed()) == ([], [])
        async with ToMongoDB.connected(
            server.url_of("persister"), "tidegate", clustered=False, timeout_s=10, sealing=True
        ) as store:
            await store.prepare()
            assert await sealer(store.database).seal(force=True) == 4
            assert await store.find_stored([document(1)]) == [0]
            assert stored.count("readings.sealed.4") == 1
            # What the compactor needs.
            await store.database["readings.sealed.4"].drop()
            assert stored.sealed() == []
