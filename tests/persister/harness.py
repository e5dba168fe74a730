"""A persister between stand-ins for its broker and its database."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from pymongo import MongoClient

from broker.interface import BrokerUnavailable, Delivery
from broker.message import Message
from persister.batch import Outcome
from persister.dead_letters import ToDeadLetters
from persister.known_series import KnownSeries
from persister.lanes import lanes_of
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteFailed, WriteRefused
from persister.persister import Persister
from persister.retry import Retrier
from persister.to_live import ToLive
from persister.to_mongodb import Written
from persister.to_receipts import ToReceipts
from readings.document import encode_document
from readings.reading import Reading
from tests.gateway.fakes import RecordingBroadcaster


def document(number: int, sensor_type: str = "temperature") -> bytes:
    return encode_document("owner", "device", Reading(sensor_type, number, 1_700_000_000_000 + number, 0, 1))


def delivery(tag: int, generation: int = 0) -> Delivery:
    return Delivery(Message.of([document(tag)]), tag, 0, generation)


class Queue:
    """A consumer of a list of messages; records what is settled."""

    generation = 0

    def __init__(self, messages: Sequence[Message]) -> None:
        self.arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self.acknowledged: list[tuple[int, bool]] = []
        self.requeued: list[int] = []
        self.parked: set[int] = set()
        self.stopped = False
        # Whether acknowledgements have an effect.
        self.stale = False
        self.settled = asyncio.Event()
        self.open: dict[int, Message] = {}
        for tag, message in enumerate(messages, 1):
            self.deliver(message, tag)

    def deliver(self, message: Message, tag: int, count: int = 0) -> None:
        self.open[tag] = message
        self.arrived.put_nowait(Delivery(message, tag, count))

    async def get(self) -> Delivery:
        return await self.arrived.get()

    def get_nowait(self) -> Delivery | None:
        return None if self.arrived.empty() else self.arrived.get_nowait()

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        if self.stale:
            return False
        self.acknowledged.append((delivery.tag, multiple))
        for tag in [tag for tag in self.open if tag == delivery.tag or (multiple and tag < delivery.tag)]:
            del self.open[tag]
        if not self.open:
            self.settled.set()
        return True

    async def reject(self, delivery: Delivery) -> None:
        raise AssertionError("the persister publishes dead letters itself")

    async def requeue(self, delivery: Delivery) -> None:
        self.requeued.append(delivery.tag)
        self.arrived.put_nowait(Delivery(delivery.message, delivery.tag, delivery.delivery_count + 1))

    async def park(self, delivery: Delivery) -> None:
        self.parked.add(delivery.tag)

    async def stop(self) -> None:
        self.stopped = True

    async def check(self) -> None:
        pass


class Store:
    """A stand-in for MongoDB. Fails `failures` times, and records how much was acknowledged at each write."""

    def __init__(self, queue: Queue, failures: int = 0) -> None:
        self.queue = queue
        self.failures = failures
        self.written: list[bytes] = []
        self.series: list[Any] = []
        self.acknowledged_at_write: list[int] = []
        self.refuse: set[bytes] = set()
        self.impossible: set[bytes] = set()

    async def prepare(self) -> None:
        pass

    async def write(self, documents: Sequence[bytes]) -> Written:
        self.acknowledged_at_write.append(len(self.queue.acknowledged))
        if self.failures:
            self.failures -= 1
            raise WriteFailed("away")
        if self.impossible & set(documents):
            raise WriteRefused("all of it", 22, certain=True)
        outcomes = []
        for one in documents:
            seen = one in self.written
            outcomes.append(Outcome.DEAD if one in self.refuse else Outcome.DUPLICATE if seen else Outcome.STORED)
            self.written.append(one)
        errors = {index: "too odd" for index, outcome in enumerate(outcomes) if outcome is Outcome.DEAD}
        return Written(outcomes, errors)

    async def find_stored(self, documents: Sequence[bytes]) -> list[int]:
        return [place for place, one in enumerate(documents) if one in self.written]

    async def write_series(self, keys: Sequence[dict[str, Any]]) -> None:
        self.series += keys


class RequeueLog:
    """A stand-in for the collection of requeues."""

    def __init__(self) -> None:
        self.recorded: list[Delivery] = []
        self.writes = 0
        # How often messages were requeued, by their bytes.
        self.counts: dict[bytes, int] = {}

    def record(self, deliveries: Iterable[Delivery]) -> None:
        self.recorded += deliveries

    async def write(self) -> None:
        self.writes += 1

    async def count(self, message: Message) -> int:
        return self.counts.get(message.body, 0)


class NoPublisher:
    """A publisher that nothing may use."""

    async def publish(self, message: Message, _: object) -> None:
        raise AssertionError(f"nothing is dead here, and {message} was published")

    async def check(self) -> None:
        pass


class DeadLetterQueue:
    """A publisher to the dead letters, which refuses `failures` times."""

    def __init__(self, queue: Queue, failures: int = 0) -> None:
        self.queue = queue
        self.failures = failures
        self.messages: list[Message] = []

    async def publish(self, message: Message, _: object) -> None:
        origins = [one for one in self.queue.open.values() if message.body in one.body]
        assert origins, "a dead letter is confirmed before its original is settled"
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away")
        self.messages.append(message)

    async def check(self) -> None:
        pass


class Harness:
    """A persister between stand-ins."""

    def __init__(
        self,
        messages: Sequence[Message],
        *,
        failures: int = 0,
        dead_failures: int = 0,
        hold_s: float = 60,
        writes_in_flight: int = 2,
    ) -> None:
        self.queue = Queue(messages)
        self.store = Store(self.queue, failures)
        self.dead = DeadLetterQueue(self.queue, dead_failures)
        self.registry = CollectorRegistry()
        self.outcomes: list[Outcome] = []
        self.requeues = RequeueLog()
        self.live = RecordingBroadcaster()
        self.receipts = RecordingBroadcaster()
        self.to_receipts = ToReceipts(self.receipts)
        self.stop = asyncio.Event()
        self._writes_in_flight = writes_in_flight
        self.metrics = PersisterMetrics(self.registry)
        self.retrier = Retrier(self.stop, self.metrics, hold_s=hold_s)
        self.replace_store(self.store)

    def replace_store(self, store: Any) -> None:
        """Store elsewhere, before it runs."""
        self.persister = Persister(
            self.queue,
            lanes_of(self.metrics)[0],
            store,
            ToDeadLetters(self.dead),
            ToLive(self.live),
            self.to_receipts,
            retrier=self.retrier,
            known=(known := KnownSeries(100)),
            deleted=DeletedOwners(known),
            requeues=self.requeues,  # type: ignore[arg-type]  # stands in for MongoDB
            metrics=self.metrics,
            batch_readings=4000,
            linger_ms=0,
            prefetch=128,
            writes_in_flight=self._writes_in_flight,
            on_settled=lambda _, outcomes: self.outcomes.extend(outcomes),
        )

    async def run(self) -> None:
        """Run until every message is settled."""
        task = asyncio.ensure_future(self.persister.run(self.stop))
        async with asyncio.timeout(60):
            await self.queue.settled.wait()
            self.stop.set()
            await task


def stored(mongodb_database: tuple[str, str], collection: str = "readings") -> list[dict[str, Any]]:
    """Return the documents of a collection, by key."""
    url, name = mongodb_database
    with MongoClient[dict[str, Any]](url) as client:
        return list(client[name][collection].find().sort("_id", 1))
