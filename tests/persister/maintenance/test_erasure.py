"""The readings of deleted owners are erased, including those still on their way, and no others."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.deleted_owner import DeletedOwner
from broker.embedded.broker import EmbeddedBroker
from broker.message import Message
from broker.operator.dead_letters import OperationCounts, Selector, replay
from broker.topology import DEAD_LETTERS, DELETED_OWNERS, OWNERS_EXCHANGE, READINGS_EXCHANGE
from persister.app import persister_service
from persister.maintenance import erasure, removal, store
from persister.maintenance.removal import Removal
from persister.maintenance.store import MaintenanceStore, Sweep
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document
from readings.reading import Reading
from testing.waiting import eventually

TS = 1_700_000_000_000
Mongo = tuple[str, str]


def document(owner: str, number: int, device: str = "d") -> bytes:
    return encode_document(owner, device, Reading("temperature", number, TS + number, 0, TS))


def found(mongo: Mongo, collection: str = "readings") -> list[dict[str, Any]]:
    with MongoClient[dict[str, Any]](mongo[0], tz_aware=True) as client:
        return list(client[mongo[1]][collection].find().sort("_id", 1))


def owners(mongo: Mongo, collection: str = "readings") -> dict[str, int]:
    counted: dict[str, int] = {}
    for item in found(mongo, collection):
        counted[item["_id"]["owner"]] = counted.get(item["_id"]["owner"], 0) + 1
    return counted


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker.open_at(tmp_path / "queue.sqlite3") as opened:
        yield opened


@pytest.fixture
async def registries(mongodb_database: Mongo, broker: EmbeddedBroker) -> AsyncIterator[list[CollectorRegistry]]:
    """Two workers on one queue."""
    url, name = mongodb_database
    settings = PersisterSettings(broker_url="embedded://unused", readings_url=url, readings_database=name)
    made = [CollectorRegistry(), CollectorRegistry()]
    async with AsyncExitStack() as stack:
        for registry in made:
            await stack.enter_async_context(persister_service(settings, broker=broker, registry=registry))
        yield made


async def delete(broker: EmbeddedBroker, owner: str) -> None:
    async with broker.publisher() as publisher:
        await publisher.publish(DeletedOwner(owner, TS).message(), OWNERS_EXCHANGE)


def total(registries: list[CollectorRegistry], name: str, **labels: str) -> float:
    return sum(registry.get_sample_value(name, labels) or 0 for registry in registries)


async def test_the_readings_and_series_of_a_deleted_owner_vanish_and_nobody_elses(
    registries: list[CollectorRegistry], broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    # Names next to it in the order of keys.
    names = ["owne", "owner", "owner2", "ownes", "Owner"]
    async with broker.publisher() as publisher:
        for name, device in itertools.product(names, ("a", "z")):
            body = [document(name, number, device) for number in range(1200)]
            for start in (0, 600):
                await publisher.publish(Message.of(body[start : start + 600]), READINGS_EXCHANGE)

    async def all_stored() -> bool:
        return owners(mongodb_database) == dict.fromkeys(names, 2400)

    await eventually(all_stored, "everything is stored")
    await delete(broker, "owner")
    rest = [name for name in names if name != "owner"]

    async def gone() -> bool:
        return owners(mongodb_database, "series") == dict.fromkeys(rest, 2)

    await eventually(gone, "the owner is gone")
    assert owners(mongodb_database) == dict.fromkeys(rest, 2400)

    async def counted() -> bool:
        return total(registries, "tidegate_persister_removed_total", why="erasure") == 2400

    await eventually(counted, "what was erased is counted")
    (tombstone,) = found(mongodb_database, "deleted_owners")
    assert (tombstone["_id"], tombstone["deletedAt"]) == ("owner", datetime.fromtimestamp(TS / 1000, UTC))
    assert await broker.depth(DELETED_OWNERS) == 0


async def test_under_load_what_is_still_on_its_way_vanishes_too(
    registries: list[CollectorRegistry],
    broker: EmbeddedBroker,
    mongodb_database: Mongo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "POLL_EVERY_S", 0.3)
    numbers = itertools.count()
    sent = 0

    async def load(publisher: Any) -> None:
        nonlocal sent
        while True:
            body = [document(owner, number) for number in itertools.islice(numbers, 50) for owner in ("gone", "stays")]
            await publisher.publish(Message.of(body), READINGS_EXCHANGE)
            sent += 50

    async with broker.publisher() as publisher:
        loading = asyncio.ensure_future(load(publisher))
        await asyncio.sleep(1)
        await delete(broker, "gone")
        await asyncio.sleep(3)
        loading.cancel()
        await asyncio.wait([loading])

    async def settled() -> bool:
        stored = owners(mongodb_database)
        return stored.get("stays", 0) >= sent and "gone" not in stored

    # The sweep after 10 s removes what a worker wrote before it knew.
    await eventually(settled, "only the owner who stays is stored")
    assert "gone" not in owners(mongodb_database, "series")
    assert total(registries, "tidegate_persister_readings_total", outcome="erased") > 0
    assert await broker.depth(DEAD_LETTERS) == 0


async def test_a_worker_that_starts_later_stores_nothing_of_an_owner_deleted_before(
    broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=5) as connected:
        await MaintenanceStore(connected.database).write_tombstone(DeletedOwner("gone", TS))
    async with broker.publisher() as publisher:
        await publisher.publish(Message.of([document("gone", 1), document("stays", 1)]), READINGS_EXCHANGE)
    settings = PersisterSettings(broker_url="embedded://unused", readings_url=url, readings_database=name)
    registry = CollectorRegistry()
    async with persister_service(settings, broker=broker, registry=registry):

        async def settled() -> bool:
            return total([registry], "tidegate_persister_readings_total", outcome="stored") == 1

        await eventually(settled, "the other owner's reading is stored")
    assert owners(mongodb_database) == {"stays": 1}
    assert total([registry], "tidegate_persister_readings_total", outcome="erased") == 1


async def test_a_message_that_is_not_understood_is_a_dead_letter_and_replays_to_where_it_came_from(
    registries: list[CollectorRegistry], broker: EmbeddedBroker, mongodb_database: Mongo
) -> None:
    newer = DeletedOwner("gone", TS).message()
    async with broker.publisher() as publisher:
        await publisher.publish(Message(newer.body, {"x-schema": 2}), OWNERS_EXCHANGE)
        await publisher.publish(Message(b"\x05\x00\x00\x00\x00"), OWNERS_EXCHANGE)

    async def dead_lettered() -> bool:
        return await broker.depth(DEAD_LETTERS) == 2

    await eventually(dead_lettered, "both are dead letters")
    async with broker.browser(DEAD_LETTERS) as browser:
        headers = [delivery.message.headers async for delivery in browser]
    assert [(one["x-reason"], one["x-exchange"]) for one in headers] == [
        ("newer_schema", "tidegate.owners"),
        ("undecodable", "tidegate.owners"),
    ]
    counts = OperationCounts()
    await replay(broker, Selector(), rate=100, force=True, progress=lambda *_: None, counts=counts)
    assert counts.done == 2
    await eventually(dead_lettered, "both are dead letters again")
    assert not found(mongodb_database, "deleted_owners")


@pytest.fixture
async def maintenance(mongodb_database: Mongo) -> AsyncIterator[MaintenanceStore]:
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=False, timeout_s=5) as connected:
        await connected.prepare()
        made = MaintenanceStore(connected.database)
        await made.prepare()
        yield made


async def claimed(maintenance: MaintenanceStore) -> Sweep:
    sweep = await maintenance.claim_sweep()
    assert sweep
    return sweep


async def test_a_sweep_whose_worker_died_comes_due_again(
    maintenance: MaintenanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await maintenance.write_tombstone(DeletedOwner("gone", TS))
    monkeypatch.setattr(store, "LEASE", timedelta(seconds=0.3))
    dead = await claimed(maintenance)
    assert (dead.owner, dead.sweeps) == ("gone", 0)
    assert await maintenance.claim_sweep() is None
    await asyncio.sleep(0.4)
    sweep = await claimed(maintenance)
    assert (sweep.owner, sweep.sweeps) == ("gone", 0)
    await maintenance.finish_sweep(sweep, next_in_s=0.2)
    await maintenance.finish_sweep(dead, next_in_s=None)  # it was not dead, only slow
    assert await maintenance.claim_sweep() is None
    await asyncio.sleep(0.3)
    sweep = await claimed(maintenance)
    assert (sweep.owner, sweep.sweeps) == ("gone", 1)
    await maintenance.finish_sweep(sweep, next_in_s=None)
    await asyncio.sleep(0.4)
    assert await maintenance.claim_sweep() is None
    assert await maintenance.all_deleted() == (["gone"], 1)


async def test_an_owner_who_is_announced_again_is_swept_again(maintenance: MaintenanceStore) -> None:
    await maintenance.write_tombstone(DeletedOwner("gone", TS))
    await maintenance.finish_sweep(await claimed(maintenance), next_in_s=None)
    assert await maintenance.claim_sweep() is None
    await maintenance.write_tombstone(DeletedOwner("gone", TS))
    sweep = await claimed(maintenance)
    assert (sweep.owner, sweep.sweeps) == ("gone", 0)
    # During a sweep that has already passed what the copy holds: its end does not postpone the next one.
    await maintenance.write_tombstone(DeletedOwner("gone", TS))
    await maintenance.finish_sweep(sweep, next_in_s=3600)
    assert (await claimed(maintenance)).sweeps == 0


async def test_of_many_deletions_at_once_nobody_who_reads_on_misses_one(maintenance: MaintenanceStore) -> None:
    names = [f"owner-{number}" for number in range(60)]
    writing = asyncio.ensure_future(
        asyncio.gather(*(maintenance.write_tombstone(DeletedOwner(name, TS)) for name in names))
    )
    learned: list[str] = []
    number = 0
    while not writing.done():
        found, number = await maintenance.deleted_after(number)
        learned += found
    await writing
    learned += (await maintenance.deleted_after(number))[0]
    assert sorted(learned) == sorted(names)


async def test_a_deletion_noted_by_an_older_version_is_learned_as_well(
    maintenance: MaintenanceStore, mongodb_database: Mongo
) -> None:
    now = datetime.now(UTC)
    with MongoClient[dict[str, Any]](mongodb_database[0]) as client:
        old = {"_id": "gone", "deletedAt": now, "notedAt": now, "sweeps": 0, "nextSweepAt": now}
        client[mongodb_database[1]]["deleted_owners"].insert_one(old)
    assert await maintenance.deleted_after(0) == (["gone"], 0)


async def test_a_long_sweep_renews_its_claim(
    maintenance: MaintenanceStore, mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "DOCUMENTS_PER_DELETE", 10)
    with MongoClient[dict[str, Any]](mongodb_database[0]) as client:
        bodies = [bson.decode(document("gone", number)) for number in range(95)]
        client[mongodb_database[1]]["readings"].insert_many(bodies)
    renewed = 0

    async def renew() -> None:
        nonlocal renewed
        renewed += 1

    erasing = Removal(maintenance.database, renew, renew_every_s=0)
    await erasing.of_owner("gone")
    assert erasing.deleted == 95
    assert renewed == 9
    assert not found(mongodb_database)
