"""A mongod that checks users, with those of deploy/mongodb/init.js."""

import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from testing.servers.mongodb import MongoDBServer
from tests.integration.services import ROOT

INIT = ROOT / "deploy" / "mongodb" / "init.js"
PASSWORD = "a-password-of-the-tests-only"


def roles() -> dict[str, list[dict[str, str]]]:
    """Return the roles of each user in init.js."""
    found = re.findall(
        r"^  (\w+): \{ pwd: .*?roles: \[\{ role: \"(\w+)\", db: \"(\w+)\" \}\] \},$", INIT.read_text(), re.M
    )
    return {user: [{"role": role, "db": database}] for user, role, database in found}


class GuardedMongoDBServer(MongoDBServer):
    """A replica set of one that checks users; init.js' users exist."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, replica_set=True)
        self._has_users = False

    def url_of(self, user: str) -> str:
        return f"mongodb://{user}:{PASSWORD}@127.0.0.1:{self.port}/?replicaSet=rs0&authSource=admin"

    def _command(self) -> Any:
        key = self.folder / "key"
        key.write_text("a2V5IG9mIHRoZSB0ZXN0cw==")
        key.chmod(stat.S_IRUSR)
        command, environment = super()._command()
        return [*command, "--keyFile", str(key)], environment

    def _answers(self) -> bool:
        with suppress(PyMongoError), self.client() as client:
            if not self._has_users:
                with suppress(OperationFailure):  # once it is done, this needs a user
                    self._initiate(client)
            if not client.admin.command("hello")["isWritablePrimary"]:
                return False
            if not self._has_users:
                self._create_users(client)
            return True
        return False

    def _initiate(self, client: Any) -> None:
        member = {"_id": 0, "host": f"127.0.0.1:{self.port}"}
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})

    def _create_users(self, client: Any) -> None:
        client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])  # the first one: from localhost
        with pymongo.MongoClient[dict[str, Any]](self.url_of("root")) as root:
            for user, granted in roles().items():
                root.admin.command("createUser", user, pwd=PASSWORD, roles=granted)
        self._has_users = True
