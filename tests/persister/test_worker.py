"""A worker on a real queue: what it lets go of is delivered again, and what stands still ends it."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from broker.embedded.broker import EmbeddedBroker
from broker.interface import BrokerUnavailable, Consumer, Delivery
from broker.message import Message
from broker.topology import READINGS, READINGS_EXCHANGE
from persister import retry as holding
from persister import watchdog
from persister.app import persister_service
from persister.batch import Outcome
from persister.known_series import KnownSeries
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.persister import Persister
from persister.requeues import Requeues
from persister.retry import Holding
from persister.settings import PersisterSettings
from persister.to_dead_letters import ToDeadLetters
from persister.to_live import ToLive
from persister.to_mongodb import WriteFailed, Written
from persister.watchdog import StuckError
from persister.worker import Worker
from testing.waiting import eventually
from tests.gateway.fakes import FakePublisher, RecordingBroadcaster
from tests.persister.test_persister import document


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


class Requeued:
    """The collection of returns: it takes writes, whatever becomes of readings, unless it is told otherwise."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.probes = 0
        self.noted: list[Delivery] = []

    async def probe(self) -> None:
        self.probes += 1
        if self.refuses:
            raise WriteFailed("no primary")

    async def write(self) -> None:
        return

    def note(self, deliveries: Iterable[Delivery]) -> None:
        self.noted += deliveries


def worker(
    broker: EmbeddedBroker,
    store: Store,
    stop: asyncio.Event,
    registry: CollectorRegistry,
    requeued: Requeued | None = None,
) -> Worker:
    metrics = PersisterMetrics(registry)
    holding = Holding(stop, metrics, hold_s=0.2)
    requeues: Requeues = requeued or Requeued()  # type: ignore[assignment]  # stands in for MongoDB

    def make(consumer: Consumer) -> Persister:
        return Persister(
            consumer,
            store,  # type: ignore[arg-type]  # stands in for MongoDB
            ToDeadLetters(FakePublisher()),
            ToLive(RecordingBroadcaster()),
            holding=holding,
            known=(known := KnownSeries(10)),
            deleted=DeletedOwners(known),
            requeues=requeues,
            metrics=metrics,
            batch_readings=100,
            linger_ms=0,
            prefetch=10,
            writes_in_flight=2,
        )

    return Worker(broker, make, metrics, requeues=requeues, holding=holding, prefetch=10, stuck_after_s=0.3)


async def deliveries_of(broker: EmbeddedBroker) -> list[int]:
    """How often each message in the queue was delivered so far."""
    async with broker.browser(READINGS) as browser:
        return [delivery.delivery_count async for delivery in browser]


async def test_an_outage_of_mongodb_costs_a_message_one_return_however_long_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "PAUSE_S", (0.005, 0.01))
    store, stop = Store(), asyncio.Event()
    requeued = Requeued()
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        await publisher.publish(Message.of([document(1)]), READINGS_EXCHANGE)
        found = worker(broker, store, stop, CollectorRegistry(), requeued)
        running = asyncio.ensure_future(found.run(stop))

        async def held() -> bool:
            return store.tries > 0

        await eventually(held, "it is tried")
        requeued.refuses = True
        probes = requeued.probes

        async def asked_for_long() -> bool:
            return requeued.probes > probes + 100

        await eventually(asked_for_long, "it asks for many times as long as it holds anything", 20)
        assert await deliveries_of(broker) == [1]
        assert [delivery.message.body for delivery in requeued.noted] == [document(1)]
        with pytest.raises(BrokerUnavailable, match="before MongoDB takes a write"):
            await found.check()
        store.away = requeued.refuses = False

        async def stored() -> bool:
            return store.written == [document(1)] and not await deliveries_of(broker)

        await eventually(stored, "it is stored")
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_nothing_is_consumed_before_mongodb_has_taken_a_write_and_a_stop_ends_the_wait(tmp_path: Path) -> None:
    store, stop, registry = Store(), asyncio.Event(), CollectorRegistry()
    requeued = Requeued(refuses=True)
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        await publisher.publish(Message.of([document(1)]), READINGS_EXCHANGE)
        running = asyncio.ensure_future(worker(broker, store, stop, registry, requeued).run(stop))

        async def asked() -> bool:
            return requeued.probes > 2

        await eventually(asked, "it asks again and again")

        async def told() -> bool:
            return registry.get_sample_value("tidegate_persister_queue_depth") == 1

        await eventually(told, "the depth is told meanwhile")
        assert await deliveries_of(broker) == [0]
        assert not store.tries
        stop.set()
        await asyncio.wait_for(running, 5)


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
