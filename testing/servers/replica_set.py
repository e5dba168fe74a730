"""Three members of one replica set, for what a single member never does: fail over, and lag."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymongo
from pymongo.errors import PyMongoError

from testing.servers.host import LOOPBACK, Host
from testing.servers.mongodb import MongoDBServer
from testing.servers.process import wait_until

MEMBERS = 3
ELECTION_TIMEOUT_MS = 2000
MONGODS_ELECTION_TIMEOUT_MS = 10_000  # its default


class Member(MongoDBServer):
    """One of the members; it answers before the set is initiated."""

    def __init__(self, folder: Path, host: Host = LOOPBACK) -> None:
        super().__init__(folder, replica_set=True, host=host)

    def _answers(self) -> bool:
        with suppress(PyMongoError), self.client() as client:
            return bool(client.admin.command("ping")["ok"])
        return False

    def status(self) -> Mapping[str, Any]:
        """Return what it knows of the set (replSetGetStatus); empty if it does not answer."""
        with suppress(PyMongoError), self.client() as client, pymongo.timeout(5):
            return client.admin.command("replSetGetStatus")
        return {}


class ReplicaSet:
    """A replica set of three, running while the context lasts."""

    def __init__(
        self,
        folders: Path | Sequence[Path],
        hosts: Sequence[Host] = (LOOPBACK,) * MEMBERS,
        *,
        election_timeout_ms: int = ELECTION_TIMEOUT_MS,
    ) -> None:
        """Use a folder for each member, or one for all."""
        if isinstance(folders, Path):
            folders = [folders / f"member-{number}" for number in range(MEMBERS)]
        self.members = [Member(folder, host) for folder, host in zip(folders, hosts, strict=True)]
        self._election_timeout_ms = election_timeout_ms
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            for member in self.members:
                self._stack.enter_context(member)
            config = {
                "_id": "rs0",
                "members": [{"_id": number, "host": member.address} for number, member in enumerate(self.members)],
                "settings": {"electionTimeoutMillis": self._election_timeout_ms},
            }
            with self.members[0].client() as client:
                client.admin.command({"replSetInitiate": config})
            wait_until(lambda: self.primary is not None, "the replica set has a primary")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The URL for clients, without a database."""
        return f"mongodb://{','.join(member.address for member in self.members)}/?replicaSet=rs0"

    @property
    def primary(self) -> Member | None:
        """The member that is primary; None during an election."""
        return self.primary_among(self.members)

    def primary_among(self, members: Sequence[Member]) -> Member | None:
        """The one of these members that is primary, if any; in a partition each side may have one for a while."""
        for member in members:
            with (
                suppress(PyMongoError),
                pymongo.MongoClient[Mapping[str, Any]](
                    f"mongodb://{member.address}/?directConnection=true", timeoutMS=1000
                ) as client,
            ):
                if client.admin.command("hello")["isWritablePrimary"]:
                    return member
        return None

    def whole(self) -> bool:
        """Return whether one member is primary and the others follow it, as the primary sees them."""
        primary = self.primary
        if primary is None:
            return False
        states = sorted(one["stateStr"] for one in primary.status().get("members", ()))
        return states == ["PRIMARY", *["SECONDARY"] * (len(self.members) - 1)]

    def delay(self, member: Member, seconds: int) -> None:
        """Let a secondary apply everything so many seconds late; 0: at once, as before."""
        primary = self.primary
        assert primary is not None
        with primary.client() as client:
            config = client.admin.command("replSetGetConfig")["config"]
            config["version"] += 1
            for one in config["members"]:
                if one["host"] == member.address:
                    # A member that is late may not be elected, and clients need not see it.
                    one |= {"secondaryDelaySecs": seconds, "priority": 0 if seconds else 1, "hidden": bool(seconds)}
            client.admin.command({"replSetReconfig": config})

    def step_down(self, seconds: int) -> int:
        """Make the primary step down for some seconds, so that another member becomes primary.

        Return its port, 0 if there is no primary.
        """
        if (primary := self.primary) is None:
            return 0
        primary.step_down(seconds)
        return primary.port
