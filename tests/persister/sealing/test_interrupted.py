"""Sealing that is interrupted: a worker killed between two steps, a lost answer, a primary that steps down."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pymongo.errors import OperationFailure

from broker.connect import open_broker
from broker.embedded.broker import EmbeddedBroker
from broker.failpoints import VARIABLE, Point
from broker.message import Message
from broker.topology import DEAD_LETTERS, READINGS, READINGS_EXCHANGE
from persister.app import persister_service
from persister.mongodb_errors import WriteFailed
from persister.sealing import sealer as sealer_module
from persister.settings import PersisterSettings
from persister.to_mongodb import ToMongoDB
from testing.servers.mongodb import MongoDBServer
from testing.waiting import eventually
from tests.faults.link import Link
from tests.integration.services import started
from tests.persister.sealing.harness import Mongo, Stored, document, sealer, writing

WAIT_S = 60


@pytest.mark.parametrize("workers", [1, 2])
async def test_everything_acknowledged_is_in_exactly_one_of_the_collections(
    tmp_path: Path, mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(sealer_module, "CHECK_EVERY_S", 0.05)
    url, name = mongodb_database
    settings = PersisterSettings(
        broker_url="embedded://unused", readings_url=url, readings_database=name, seal_readings=500, linger_ms=5
    )
    stored, registries = Stored(mongodb_database), [CollectorRegistry() for _ in range(workers)]
    messages = [
        [document(number, device) for number in range(start, start + 50)]
        for device in "ab"
        for start in range(0, 2000, 50)
    ]
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:

        def counted() -> float:
            return sum(one.get_sample_value("tidegate_persister_seals_total") or 0 for one in registries)

        async def settled() -> bool:
            return broker.unsettled(READINGS) == 0

        async def nothing_is_due() -> bool:
            """So that no worker is stopped in mid-seal."""
            return stored.count("readings") < settings.seal_readings and counted() == len(stored.sealed())

        services = [persister_service(settings, broker=broker, registry=one) for one in registries]
        for service in services:
            await service.__aenter__()
        try:
            for documents in messages:
                await publisher.publish(Message.of(documents), READINGS_EXCHANGE)
                await asyncio.sleep(0.02)
            await eventually(settled, "all is settled", WAIT_S)
            await eventually(nothing_is_due, "all that is due is sealed, and counted", WAIT_S)
        finally:
            for service in services:
                await service.__aexit__(None, None, None)
        assert await broker.depth(DEAD_LETTERS) == 0
    copies = stored.copies()
    assert len(copies) == 4000
    assert set(copies.values()) == {1}
    sealed = stored.sealed()
    assert sealed == stored.waiting() == list(range(1, len(sealed) + 1))
    assert 3 <= len(sealed) <= 8
    assert all(stored.count(f"readings.sealed.{number}") >= 500 for number in sealed)
    assert counted() == len(sealed)


@pytest.mark.parametrize("point", ["persister.before_rename", "persister.renamed"])
async def test_a_worker_killed_while_it_seals_loses_nothing_and_the_next_one_goes_on(
    rabbitmq_url: str, mongodb_database: Mongo, point: Point
) -> None:
    url, name = mongodb_database
    stored = Stored(mongodb_database)
    settings = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": name, "SEAL_READINGS": "100"}
    async with open_broker(rabbitmq_url) as broker, broker.publisher() as publisher:

        async def publish(start: int) -> None:
            for first in range(start, start + 100, 20):
                await publisher.publish(
                    Message.of([document(number) for number in range(first, first + 20)]), READINGS_EXCHANGE
                )

        async with started("persister", **settings, **{VARIABLE: f"{point}:1"}) as killed:
            await publish(0)
            await asyncio.wait_for(killed.process.wait(), WAIT_S)
            assert killed.process.returncode == -9
        assert stored.waiting() == [1]
        assert stored.sealed() == ([] if point == "persister.before_rename" else [1])
        stored.end_lease()  # which lasts a minute
        async with started("persister", **settings) as worker:
            await publish(100)

            async def all_is_sealed() -> bool:
                try:
                    return len(stored.copies()) == 200 and len(stored.sealed()) > (point == "persister.renamed")
                except OperationFailure:  # mongod ends a query whose collection is renamed
                    return False

            await eventually(all_is_sealed, "the next one is sealed", WAIT_S)
            assert await worker.stop() == 0
    assert set(stored.copies().values()) == {1}
    assert all(options for options in stored.collections().values())
    assert min(stored.sealed()) == (2 if point == "persister.before_rename" else 1), "a number is used once"


@pytest.fixture
async def linked(
    mongodb_server: MongoDBServer, mongodb_database: Mongo
) -> AsyncIterator[tuple[Link, ToMongoDB, ToMongoDB]]:
    """A link, and two stores: over the link, and past it."""
    _, name = mongodb_database
    async with (
        Link.to(mongodb_server.port) as link,
        ToMongoDB.connected(
            f"mongodb://127.0.0.1:{link.port}/", name, clustered=False, timeout_s=10, sealing=True
        ) as over,
        ToMongoDB.connected(mongodb_server.url, name, clustered=False, timeout_s=10, sealing=True) as direct,
    ):
        await direct.prepare()
        await over.prepare()
        yield link, over, direct


def losing(link: Link, *, answers_only: bool) -> Callable[[Point], None]:
    """Return what lets the next rename's answer, or the rename itself, get lost half a second later."""

    def failpoint(point: Point) -> None:
        if point == "persister.before_rename":
            link.hold(answers_only=answers_only)
            loop = asyncio.get_running_loop()
            loop.call_later(0.5, link.cut)
            loop.call_later(0.6, link.release)

    return failpoint


async def test_a_rename_whose_answer_is_lost_is_found_done(
    linked: tuple[Link, ToMongoDB, ToMongoDB], mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, over, direct = linked
    stored = Stored(mongodb_database)
    await direct.write([document(1)])
    monkeypatch.setattr(sealer_module, "failpoint", losing(link, answers_only=True))
    assert await sealer(over.database).seal(force=True) == 1
    await direct.write([document(2)])
    assert (stored.sealed(), stored.waiting()) == ([1], [1])
    assert (stored.count("readings.sealed.1"), stored.count("readings")) == (1, 1)


async def test_a_rename_that_never_arrived_is_tried_with_a_new_number(
    linked: tuple[Link, ToMongoDB, ToMongoDB], mongodb_database: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, over, direct = linked
    stored, sealing = Stored(mongodb_database), sealer(over.database)
    await direct.write([document(1)])
    with monkeypatch.context() as patched:
        patched.setattr(sealer_module, "failpoint", losing(link, answers_only=False))
        with pytest.raises(WriteFailed):
            await sealing.seal(force=True)
    assert (stored.sealed(), stored.waiting()) == ([], [1])
    assert await sealing.seal(force=True) == 2
    assert (stored.sealed(), stored.waiting()) == ([2], [1, 2]), "only the compactor takes a number off"


async def test_a_primary_that_steps_down_while_readings_are_sealed_costs_no_reading(tmp_path: Path) -> None:
    with MongoDBServer(tmp_path / "mongod", replica_set=True) as server:
        stored, done = Stored((server.url, "tidegate")), 0
        async with (
            ToMongoDB.connected(server.url, "tidegate", clustered=False, timeout_s=5, sealing=True) as store,
            ToMongoDB.connected(server.url, "tidegate", clustered=False, timeout_s=5, sealing=True) as other,
        ):
            await store.prepare()
            await other.prepare()
            sealing = sealer(other.database)
            async with writing(store, "a", batch=50) as acknowledged:
                for _ in range(4):
                    stepping = asyncio.ensure_future(asyncio.to_thread(server.step_down, 1))
                    try:
                        done += await sealing.seal(force=True) is not None
                    except WriteFailed:
                        await asyncio.sleep(0.1)
                    await stepping
                    size = len(acknowledged)

                    async def more(size: int = size) -> bool:
                        return len(acknowledged) > size

                    await eventually(more, "writes go on", WAIT_S)
                    try:
                        done += await sealing.seal(force=True) is not None
                    except WriteFailed:
                        await asyncio.sleep(0.1)
        copies = stored.copies()
        assert acknowledged <= set(copies)
        assert done >= 2
        assert set(stored.sealed()) <= set(stored.waiting())
