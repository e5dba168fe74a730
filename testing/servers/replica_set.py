"""Three members of one replica set, for what a single member never does: fail over, and lag."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
from pymongo.errors import PyMongoError

from testing.servers.mongodb import MongoDBServer
from testing.servers.process import wait_until

MEMBERS = 3
ELECTION_TIMEOUT_MS = 2000


class _Member(MongoDBServer):
    """One of the members; it answers before the set is initiated."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, replica_set=True)

    def _answers(self) -> bool:
        with suppress(PyMongoError), self._client() as client:
            return bool(client.admin.command("ping")["ok"])
        return False


class ReplicaSet:
    """A replica set of three, running while the context lasts."""

    def __init__(self, folder: Path) -> None:
        self._members = [_Member(folder / f"member-{number}") for number in range(MEMBERS)]
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        for member in self._members:
            self._stack.enter_context(member)
        config = {
            "_id": "rs0",
            "members": [
                {"_id": number, "host": f"127.0.0.1:{member.port}"} for number, member in enumerate(self._members)
            ],
            "settings": {"electionTimeoutMillis": ELECTION_TIMEOUT_MS},
        }
        with pymongo.MongoClient[Mapping[str, Any]](
            f"mongodb://127.0.0.1:{self._members[0].port}/?directConnection=true"
        ) as client:
            client.admin.command({"replSetInitiate": config})
        wait_until(lambda: self.primary is not None, "the replica set has a primary")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL for clients, without a database."""
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self._members)
        return f"mongodb://{hosts}/?replicaSet=rs0"

    @property
    def primary(self) -> MongoDBServer | None:
        """The member that is primary; None during an election."""
        for member in self._members:
            address = f"mongodb://127.0.0.1:{member.port}/?directConnection=true"
            with (
                suppress(PyMongoError),
                pymongo.MongoClient[Mapping[str, Any]](address, serverSelectionTimeoutMS=1000) as client,
            ):
                if client.admin.command("hello")["isWritablePrimary"]:
                    return member
        return None

    def step_down(self, seconds: int) -> int:
        """Make the primary step down for some seconds, so that another member becomes primary.

        Return its port, 0 if there is no primary.
        """
        if (primary := self.primary) is None:
            return 0
        primary.step_down(seconds)
        return primary.port
