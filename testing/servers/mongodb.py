"""A mongod over TCP, as in a deployment, so that tests can cut, delay and kill connections to it."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from onebox.mongod import MongodError, find_mongod
from testing.servers.host import LOOPBACK, Host
from testing.servers.ports import free_port
from testing.servers.process import Server, ServerError

NOT_YET_INITIALIZED = 94


class MongoDBServer(Server):
    """One mongod, standalone or a replica set of one."""

    name = "mongod"
    program = "mongod"

    def __init__(
        self, folder: Path, *, replica_set: bool = False, cache_gb: float | None = 0.25, host: Host = LOOPBACK
    ) -> None:
        """Set the cache size; None is mongod's default, about half of the machine's memory."""
        super().__init__(folder, host=host)
        self._replica_set = replica_set
        self._cache_gb = cache_gb

    @property
    def url(self) -> str:
        """The URL for clients, without a database."""
        return f"mongodb://{self.address}/" + ("?replicaSet=rs0" if self._replica_set else "")

    @property
    def address(self) -> str:
        """Host and port, as a replica set names its member."""
        return f"{self.host.address}:{self.port}"

    def create_database(self) -> str:
        """Return a random name; MongoDB creates the database on the first write."""
        return f"test_{secrets.token_hex(6)}"

    def drop_database(self, name: str) -> None:
        """Drop a database."""
        with self.client() as client:
            client.drop_database(name)

    def step_down(self, seconds: int) -> None:
        """Step down as primary for some seconds; replica set only."""
        with self.client() as client, suppress(PyMongoError):  # it closes the connection when it responds
            client.admin.command({"replSetStepDown": seconds, "force": True})

    def fsync(self) -> bool:
        """Flush everything to disk (fsync) and return whether the server confirms it."""
        try:
            with self.client() as client:
                client.admin.command("fsync")
        except PyMongoError:
            return False
        return True

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        """Return a client of this very server, whatever it is in its replica set."""
        # A replica set that is not initiated has no primary to select.
        address = f"mongodb://{self.address}/?directConnection=true"
        return pymongo.MongoClient(address, serverSelectionTimeoutMS=5000)

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _prepare(self) -> None:
        (self.folder / "data").mkdir(exist_ok=True)

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        try:
            program = find_mongod()
        except MongodError as error:
            raise ServerError(str(error)) from error
        options = [
            *("--dbpath", str(self.folder / "data"), "--port", str(self.port)),
            *("--bind_ip", self.host.address, "--nounixsocket"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *(
                "--setParameter",
                "shutdownTimeoutMillisForSignaledShutdown=100",
            ),  # a primary would wait 15 s for other members
        ]
        if self._cache_gb is not None:
            options += ["--wiredTigerCacheSizeGB", str(self._cache_gb)]
        if self._replica_set:
            options += ["--replSet", "rs0", "--oplogSize", "64"]
        return [str(program), *options], {"GLIBC_TUNABLES": "glibc.pthread.rseq=0"}

    def _answers(self) -> bool:
        with suppress(PyMongoError), self.client() as client:
            if self._replica_set:
                self._initiate(client)
            return bool(client.admin.command("hello")["isWritablePrimary"])
        return False

    def _initiate(self, client: pymongo.MongoClient[dict[str, Any]]) -> None:
        try:
            client.admin.command("replSetGetStatus")
        except OperationFailure as error:
            if error.code != NOT_YET_INITIALIZED:
                raise
            member = {"_id": 0, "host": self.address}
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
