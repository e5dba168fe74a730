"""A worker on a real queue: what it lets go of is delivered again, and what stands still ends it."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from broker.embedded import EmbeddedBroker
from broker.interface import BrokerUnavailable, Consumer
from broker.message import Message
from broker.topology import READINGS, READINGS_EXCHANGE
from persister import holding, watchdog
from persister.app import persister_service
from persister.batch import Outcome
from persister.deleted_owners import DeletedOwners
from persister.holding import Holding
from persister.metrics import PersisterMetrics
from persister.persist import Persister
from persister.series import KnownSeries
from persister.settings import PersisterSettings
from persister.to_dead_letters import ToDeadLetters
from persister.to_live import ToLive
from persister.to_mongodb import WriteFailed, Written
from persister.watchdog import StuckError
from persister.worker import Worker
from tests.broker.waiting import eventually
from tests.gateway.held import HeardAnnouncer, HeldPublisher
from tests.persister.test_persist import document


class Store:
    """Away until it is told otherwise."""

    def __init__(self) -> None:
        self.away = True
        self.written: list[bytes] = []
        self.tries = 0

    async def prepare(self) -> None:
        return

    async def write(self, documents: Sequence[bytes]) -> Written:
        self.tries += 1
        if self.away:
            raise WriteFailed("away")
        self.written += documents
        return Written([Outcome.STORED] * len(documents), {})

    async def present(self, _: Sequence[bytes]) -> list[int]:
        return []

    async def write_series(self, _: object) -> None:
        return


def worker(broker: EmbeddedBroker, store: Store, stop: asyncio.Event, registry: CollectorRegistry) -> Worker:
    metrics = PersisterMetrics(registry)

    def make(consumer: Consumer) -> Persister:
        return Persister(
            consumer,
            store,  # type: ignore[arg-type]  # stands in for MongoDB
            ToDeadLetters(HeldPublisher()),
            ToLive(HeardAnnouncer()),
            holding=Holding(stop, metrics, hold_s=0.2),
            known=(known := KnownSeries(10)),
            deleted=DeletedOwners(known),
            metrics=metrics,
            batch_readings=100,
            linger_ms=0,
            prefetch=10,
            writes_in_flight=2,
        )

    return Worker(broker, make, metrics, prefetch=10, stuck_after_s=0.3)


async def test_what_was_held_for_too_long_is_delivered_again_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.01, 0.02))
    store, stop, registry = Store(), asyncio.Event(), CollectorRegistry()
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:
        async with broker.publisher() as publisher:
            await publisher.publish(Message.of([document(1)]), READINGS_EXCHANGE)
        found = worker(broker, store, stop, registry)
        with pytest.raises(BrokerUnavailable):
            await found.check()
        running = asyncio.ensure_future(found.run(stop))

        async def held() -> bool:
            return store.tries > 5

        await eventually(held, "it is tried")
        await found.check()
        assert found.lag_s() == pytest.approx(time.time(), rel=0.01), "received at the beginning of time"
        await asyncio.sleep(0.5)
        assert not running.done()
        store.away = False

        async def settled() -> bool:
            return await broker.depth(READINGS) == 0 and store.written == [document(1)] and found.lag_s() == 0

        await eventually(settled, "it is stored")
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_a_worker_that_stands_still_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:

        async def depth(_: object) -> int:
            return 3

        monkeypatch.setattr(broker, "depth", depth)
        monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.05)
        stop, registry = asyncio.Event(), CollectorRegistry()
        with pytest.raises(StuckError):
            await asyncio.wait_for(worker(broker, Store(), stop, registry).run(stop), 5)
        assert registry.get_sample_value("tidegate_persister_queue_depth") == 3


async def test_the_depth_is_told_while_mongodb_is_away_at_the_start(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    settings = PersisterSettings(
        broker_url="embedded://unused", readings_url="mongodb://127.0.0.1:9", write_timeout_seconds=0.2
    )
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        for number in range(3):
            await publisher.publish(Message.of([document(number)]), READINGS_EXCHANGE)
        async with persister_service(settings, broker=broker, registry=registry):

            async def told() -> bool:
                return registry.get_sample_value("tidegate_persister_queue_depth") == 3

            await eventually(told, "the depth is told")
        assert await broker.depth(READINGS) == 3
