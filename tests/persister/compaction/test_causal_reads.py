"""What is read behind a failover is of no older time than what was read before it, and than what was acknowledged.

That is asked of MongoDB with each read of a majority, as `afterClusterTime`; a replica set of one tells times, too.
"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from persister.compaction.unseal import unseal_all
from readings.keys import series_key
from storage.places.newest import Newest
from storage.places.reading import Places
from storage.places.window import Window
from testing.servers.mongodb import MongoDBServer
from tests.persister.compaction.world import World, make_small, reading

READS = ("find", "aggregate")
# Where a read that is too early loses nothing.
OTHERS = ("deleted_owners", "deletions", "series")


class Commands(CommandListener):
    """The reads of a client, each with the time from which on it was asked for, and when the lease was taken."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, Timestamp | None]] = []
        self.taken_at: Timestamp | None = None

    def started(self, event: CommandStartedEvent) -> None:
        name = event.command_name
        concern = event.command.get("readConcern", {})
        if name in READS and event.command[name] not in OTHERS and concern.get("level") == "majority":
            self.reads.append((f"{name} {event.command[name]}", concern.get("afterClusterTime")))

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "findAndModify" and self.taken_at is None:
            self.taken_at = event.reply["operationTime"]

    def failed(self, event: CommandFailedEvent) -> None:
        pass

    def begin(self) -> None:
        """Forget what was asked."""
        self.reads.clear()
        self.taken_at = None

    def require_order(self, start: Timestamp | None) -> None:
        """Each read must be of no older time than `start`, and than the one before it."""
        assert len(self.reads) > 3
        for read, after in self.reads:
            assert after is not None, f"{read} may be of an older time"
            assert start is None or after >= start, read
            start = after


@pytest.fixture
async def commands() -> Commands:
    return Commands()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Commands) -> AsyncIterator[World]:
    """A replica set of one with blocks, pieces, a sealed collection, and readings that are not sealed."""
    make_small(monkeypatch)
    with MongoDBServer(tmp_path / "mongod", replica_set=True) as server:
        client: Any = AsyncIOMotorClient(server.url, tz_aware=True, event_listeners=[commands])
        try:
            world = World(client["causal"])
            await world.store([reading("a", ts, ts) for ts in range(200)])
            await world.seal()
            await world.compact()
            await world.store([reading(device, ts, ts) for device in "ab" for ts in range(150, 215)])
            await world.seal()
            await world.store([reading("b", 300, 1)])
            commands.begin()
            yield world
        finally:
            client.close()


async def test_a_compactor_reads_nothing_older_than_when_it_took_the_lease(world: World, commands: Commands) -> None:
    await world.compact()
    assert commands.taken_at is not None
    names = {read.split()[1] for read, _ in commands.reads}
    assert names >= {"readings.sealed.2", "readings.pieces", "readings.blocks"}
    commands.require_order(commands.taken_at)
    assert await world.read() == world.model


async def test_unsealing_reads_nothing_older_than_when_it_took_the_lease(world: World, commands: Commands) -> None:
    await unseal_all(world.database, lambda _: None, clustered=False, is_forced=True)
    assert commands.taken_at is not None
    commands.require_order(commands.taken_at)
    assert await world.read() == world.model


async def test_a_reader_reads_nothing_older_than_what_it_has_read_for_the_same_answer(
    world: World, commands: Commands
) -> None:
    """Nor older than what it has read before: what it remembers may be of then."""
    places = Places(world.database.client, world.database.name)
    windows = [Window(series_key("owner-1", device, "temperature")) for device in "ab"]
    await places.page(windows[0], 500)
    _, *commands.reads = commands.reads
    commands.require_order(None)
    async with places.session() as session:
        seen = session.operation_time
        for ask in (partial(places.page, windows[0], 500), partial(places.page, windows[1], 500)):
            commands.begin()
            await ask()
            commands.require_order(seen)
    commands.begin()
    await Newest(places).of("owner-1", [("a", "temperature"), ("b", "temperature")])
    commands.require_order(seen)
