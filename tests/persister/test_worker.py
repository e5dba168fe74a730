"""A worker on a real queue: what it requeues is redelivered, and a worker without deliveries ends."""

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
from persister import retry, watchdog
from persister.app import persister_service
from persister.batch import Outcome
from persister.dead_letters import ToDeadLetters
from persister.known_series import KnownSeries
from persister.lanes import lanes_of
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteFailed
from persister.persister import Persister
from persister.requeues import Requeues
from persister.retry import Retrier
from persister.settings import PersisterSettings
from persister.to_live import ToLive
from persister.to_mongodb import Written
from persister.to_receipts import ToReceipts
from persister.watchdog import StuckError
from persister.worker import Worker
from testing.waiting import eventually
from tests.gateway.fakes import RecordingBroadcaster
from tests.persister.harness import NoPublisher, document


class Store:
    """Away until `away` is False."""

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

    async def find_stored(self, _: Sequence[bytes]) -> list[int]:
        return []

    async def write_series(self, _: object) -> None:
        return


class RequeueLog:
    """The collection of requeues: it takes writes unless `refuses`, whatever happens to readings."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.probes = 0
        self.recorded: list[Delivery] = []

    async def probe(self) -> None:
        self.probes += 1
        if self.refuses:
            raise WriteFailed("no primary")

    async def write(self) -> None:
        return

    def record(self, deliveries: Iterable[Delivery]) -> None:
        self.recorded += deliveries


def worker(
    broker: EmbeddedBroker,
    store: Store,
    stop: asyncio.Event,
    registry: CollectorRegistry,
    log: RequeueLog | None = None,
) -> Worker:
    metrics = PersisterMetrics(registry)
    lane, _ = lanes_of(metrics)
    retrier = Retrier(stop, metrics, hold_s=0.2)
    requeues: Requeues = log or RequeueLog()  # type: ignore[assignment]  # stands in for MongoDB

    def make(consumer: Consumer) -> Persister:
        return Persister(
            consumer,
            lane,
            store,  # type: ignore[arg-type]  # stands in for MongoDB
            ToDeadLetters(NoPublisher()),
            ToLive(RecordingBroadcaster()),
            ToReceipts(RecordingBroadcaster()),
            retrier=retrier,
            known=(known := KnownSeries(10)),
            deleted=DeletedOwners(known),
            requeues=requeues,
            metrics=metrics,
            batch_readings=100,
            linger_ms=0,
            prefetch=10,
            writes_in_flight=2,
        )

    return Worker(
        broker, make, lane, inspector=broker, requeues=requeues, retrier=retrier, prefetch=10, stuck_after_s=0.3
    )


async def deliveries_of(broker: EmbeddedBroker) -> list[int]:
    """How often each message in the queue was delivered so far."""
    async with broker.browser(READINGS) as browser:
        return [delivery.delivery_count async for delivery in browser]


async def test_an_outage_of_mongodb_costs_a_message_one_requeue_however_long_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.005, 0.01))
    store, stop = Store(), asyncio.Event()
    requeues = RequeueLog()
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        await publisher.publish(Message.of([document(1)]), READINGS_EXCHANGE)
        found = worker(broker, store, stop, CollectorRegistry(), requeues)
        running = asyncio.ensure_future(found.run(stop))

        async def held() -> bool:
            return store.tries > 0

        await eventually(held, "it is tried")
        requeues.refuses = True
        probes = requeues.probes

        async def asked_for_long() -> bool:
            return requeues.probes > probes + 100

        await eventually(asked_for_long, "it asks for many times as long as it holds anything")
        assert await deliveries_of(broker) == [1]
        assert [delivery.message.body for delivery in requeues.recorded] == [document(1)]
        with pytest.raises(BrokerUnavailable, match="before MongoDB takes a write"):
            await found.check()
        store.away = requeues.refuses = False

        async def stored() -> bool:
            return store.written == [document(1)] and not await deliveries_of(broker)

        await eventually(stored, "it is stored")
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_nothing_is_consumed_before_mongodb_has_taken_a_write_and_a_stop_ends_the_wait(tmp_path: Path) -> None:
    store, stop, registry = Store(), asyncio.Event(), CollectorRegistry()
    requeues = RequeueLog(refuses=True)
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        await publisher.publish(Message.of([document(1)]), READINGS_EXCHANGE)
        running = asyncio.ensure_future(worker(broker, store, stop, registry, requeues).run(stop))

        async def asked() -> bool:
            return requeues.probes > 2

        await eventually(asked, "it asks again and again")

        async def reported() -> bool:
            return registry.get_sample_value("tidegate_persister_queue_depth") == 1

        await eventually(reported, "the depth is reported meanwhile")
        assert await deliveries_of(broker) == [0]
        assert not store.tries
        stop.set()
        await asyncio.wait_for(running, 5)


async def test_what_was_held_for_too_long_is_delivered_again_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", (0.01, 0.02))
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


async def test_a_worker_without_deliveries_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:

        async def depth(_: object) -> int:
            return 3

        monkeypatch.setattr(broker, "depth", depth)
        monkeypatch.setattr(watchdog, "CHECK_EVERY_S", 0.05)
        stop, registry = asyncio.Event(), CollectorRegistry()
        with pytest.raises(StuckError):
            await asyncio.wait_for(worker(broker, Store(), stop, registry).run(stop), 5)
        assert registry.get_sample_value("tidegate_persister_queue_depth") == 3


async def test_the_depth_is_reported_while_mongodb_is_away_at_the_start(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    settings = PersisterSettings(
        broker_url="embedded://unused", readings_url="mongodb://127.0.0.1:9", write_timeout_seconds=0.2
    )
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker, broker.publisher() as publisher:
        for number in range(3):
            await publisher.publish(Message.of([document(number)]), READINGS_EXCHANGE)
        async with persister_service(settings, broker=broker, registry=registry):

            async def reported() -> bool:
                return registry.get_sample_value("tidegate_persister_queue_depth") == 3

            await eventually(reported, "the depth is reported")
        assert await broker.depth(READINGS) == 3
