"""The persister's loop: what is acknowledged, when, and what becomes of each reading."""

import asyncio
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import bson
import pytest
from prometheus_client import CollectorRegistry

from broker.interface import BrokerUnavailable, Delivery
from broker.message import Message
from persister.batch import TOO_OFTEN, Outcome
from persister.known_series import KnownSeries
from persister.maintenance.deleted_owners import DeletedOwners
from persister.metrics import PersisterMetrics
from persister.persister import Persister
from persister.retry import Holding
from persister.to_dead_letters import ToDeadLetters
from persister.to_live import ToLive
from persister.to_mongodb import WriteFailed, WriteRefused, Written
from readings.document import decode_document, encode_document, series_bytes
from readings.reading import Reading
from tests.gateway.fakes import RecordingBroadcaster
from tests.readings.cases import closed


def document(number: int, sensor_type: str = "temperature") -> bytes:
    return encode_document("owner", "device", Reading(sensor_type, number, 1_700_000_000_000 + number, 0, 1))


class Queue:
    """A consumer over a list of messages; remembers what was settled."""

    generation = 0

    def __init__(self, messages: Sequence[Message]) -> None:
        self.arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self.acknowledged: list[tuple[int, bool]] = []
        self.given_back: list[int] = []
        self.aside: set[int] = set()
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
        self.given_back.append(delivery.tag)
        self.arrived.put_nowait(Delivery(delivery.message, delivery.tag, delivery.delivery_count + 1))

    async def park(self, delivery: Delivery) -> None:
        self.aside.add(delivery.tag)

    async def stop(self) -> None:
        self.stopped = True

    async def check(self) -> None:
        pass


class Store:
    """Stands in for MongoDB; fails as often as it is told to, and knows what was acknowledged when it wrote."""

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

    async def present(self, documents: Sequence[bytes]) -> list[int]:
        return [place for place, one in enumerate(documents) if one in self.written]

    async def write_series(self, keys: Sequence[dict[str, Any]]) -> None:
        self.series += keys


class Requeued:
    """Stands in for the collection of returns."""

    def __init__(self) -> None:
        self.noted: list[Delivery] = []
        self.writes = 0
        # How often messages were put back, by their bytes.
        self.times: dict[bytes, int] = {}

    def note(self, deliveries: Iterable[Delivery]) -> None:
        self.noted += deliveries

    async def write(self) -> None:
        self.writes += 1

    async def returns(self, message: Message) -> int:
        return self.times.get(message.body, 0)


class DeadLetterPublisher:
    def __init__(self, queue: Queue, failures: int = 0) -> None:
        self.queue = queue
        self.failures = failures
        self.letters: list[Message] = []

    async def publish(self, message: Message, _: object) -> None:
        origins = [one for one in self.queue.open.values() if message.body in one.body]
        assert origins, "a letter is confirmed before its original is settled"
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("away")
        self.letters.append(message)

    async def check(self) -> None:
        pass


class Bench:
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
        self.dead = DeadLetterPublisher(self.queue, dead_failures)
        self.registry = CollectorRegistry()
        self.watched: list[Outcome] = []
        self.requeues = Requeued()
        self.live = RecordingBroadcaster()
        self.stop = asyncio.Event()
        self._hold_s, self._writes_in_flight = hold_s, writes_in_flight
        self.metrics = PersisterMetrics(self.registry)
        self.replace_store(self.store)

    def replace_store(self, store: Any) -> None:
        """Store elsewhere, before it runs."""
        self.persister = Persister(
            self.queue,
            store,
            ToDeadLetters(self.dead),
            ToLive(self.live),
            holding=Holding(self.stop, self.metrics, hold_s=self._hold_s),
            known=(known := KnownSeries(100)),
            deleted=DeletedOwners(known),
            requeues=self.requeues,  # type: ignore[arg-type]  # stands in for MongoDB
            metrics=self.metrics,
            batch_readings=4000,
            linger_ms=0,
            prefetch=128,
            writes_in_flight=self._writes_in_flight,
            watch=lambda _, outcomes: self.watched.extend(outcomes),
        )

    async def run(self) -> None:
        """Run until every message is settled."""
        task = asyncio.ensure_future(self.persister.run(self.stop))
        async with asyncio.timeout(10):
            await self.queue.settled.wait()
            self.stop.set()
            await task


async def test_a_batch_is_acknowledged_once_after_it_was_written() -> None:
    bench = Bench([Message.of([document(1), document(2)]), Message.of([document(3)])])
    await bench.run()
    assert bench.store.written == [document(1), document(2), document(3)]
    assert bench.queue.acknowledged == [(2, True)]
    assert bench.watched == [Outcome.STORED] * 3


async def test_a_failing_write_is_tried_again_and_nothing_is_acknowledged_meanwhile() -> None:
    bench = Bench([Message.of([document(1)])], failures=3)
    await bench.run()
    assert bench.store.acknowledged_at_write == [0, 0, 0, 0]
    assert bench.queue.acknowledged == [(1, True)]


async def test_duplicates_count_as_stored_and_are_counted() -> None:
    bench = Bench([Message.of([document(1)]), Message.of([document(1), document(2)])])
    await bench.run()
    assert bench.watched == [Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED]
    assert bench.registry.get_sample_value("tidegate_persister_duplicates_total") == 1
    assert bench.registry.get_sample_value("tidegate_persister_readings_total", {"outcome": "stored"}) == 2


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(b"\x05\x00\x00"), "undecodable"),
        (Message(b""), "undecodable"),
        (Message(document(9), {"x-schema": 2}), "newer_schema"),
        (Message(document(9), {}), "undecodable"),
    ],
)
async def test_a_message_that_cannot_be_read_is_dead_as_a_whole_and_its_neighbours_are_stored(
    message: Message, reason: str
) -> None:
    bench = Bench([Message.of([document(1)]), message, Message.of([document(2)])], dead_failures=2)
    await bench.run()
    assert bench.store.written == [document(1), document(2)]
    (letter,) = bench.dead.letters
    assert letter.body == message.body
    assert letter.headers["x-reason"] == reason
    assert letter.headers["x-service"] == "persister"


async def test_what_mongodb_refuses_is_dead_alone_and_keeps_the_form_of_a_message() -> None:
    bench = Bench([Message.of([document(1), document(2), document(3)])])
    bench.store.refuse = {document(2)}
    await bench.run()
    assert bench.watched == [Outcome.STORED, Outcome.DEAD, Outcome.STORED]
    (letter,) = bench.dead.letters
    assert letter.documents() == [document(2)]
    assert (letter.headers["x-reason"], letter.headers["x-error"]) == ("refused", "too odd")


async def test_a_document_that_makes_a_whole_write_impossible_is_found_and_dead_alone() -> None:
    bench = Bench([Message.of([document(number) for number in range(9)])])
    bench.store.impossible = {document(2), document(7)}
    await bench.run()
    assert sorted(letter.body for letter in bench.dead.letters) == sorted([document(2), document(7)])
    assert bench.watched.count(Outcome.STORED) == 7
    assert bench.watched[2] is bench.watched[7] is Outcome.DEAD


async def test_a_stop_in_an_outage_gives_the_batch_back_unacknowledged() -> None:
    bench = Bench([Message.of([document(1)])], failures=10**9)
    stop = bench.stop
    task = asyncio.ensure_future(bench.persister.run(stop))
    async with asyncio.timeout(5):
        while not bench.store.acknowledged_at_write:
            await asyncio.sleep(0)
        stop.set()
        await task
    assert not bench.queue.acknowledged


async def test_a_series_is_noted_at_its_first_sight_only() -> None:
    bench = Bench([Message.of([document(1), document(2), document(3, "humidity")]), Message.of([document(4)])])
    await bench.run()
    assert [key["sensorType"] for key in bench.store.series] == ["temperature", "humidity"]


async def test_a_stop_ends_an_idle_persister_at_once() -> None:
    bench = Bench([])
    stop = bench.stop
    task = asyncio.ensure_future(bench.persister.run(stop))
    await asyncio.sleep(0)
    stop.set()
    await asyncio.wait_for(task, 1)


def test_the_memory_of_series_is_bounded_and_forgets_the_oldest() -> None:
    known = KnownSeries(2)
    a, b, c = (series_bytes(document(1, kind)) for kind in "abc")
    for name in (a, b):
        known.add(name)
    assert known.meet(a)
    known.add(c)
    assert known.meet(a)
    assert not known.meet(b)


async def test_a_document_whose_key_stands_elsewhere_is_dead_each_time_it_comes() -> None:
    good = document(1)
    value_at = good.index(b"\x10value\0")
    other = good[:4] + good[value_at:-1] + good[4:value_at] + good[-1:]
    assert list(decode_document(other)) == ["value", "receivedAt", "_id"]
    bench = Bench([Message.of([document(2), other]), Message.of([other, document(3)])])
    await bench.run()
    assert bench.watched.count(Outcome.STORED) == 2
    assert bench.watched.count(Outcome.DEAD) == 2
    assert [(letter.body, letter.headers["x-reason"]) for letter in bench.dead.letters] == [(other, "undecodable")] * 2


@pytest.mark.parametrize("left", [0, 7, 8, 22])
async def test_a_document_that_ends_inside_its_key_is_dead_alone_and_ends_no_worker(left: int) -> None:
    good = document(2)
    short = closed(good[: good.index(b"\x09ts\0") + 4] + bytes(left))
    bench = Bench([Message.of([document(1), short, good]), Message.of([document(3), document(4)])])
    await bench.run()
    assert bench.store.written == [document(1), good, document(3), document(4)]
    assert sorted(outcome.name for outcome in bench.watched) == ["DEAD"] + ["STORED"] * 4
    assert [(letter.body, letter.headers["x-reason"]) for letter in bench.dead.letters] == [(short, "undecodable")]


@pytest.mark.parametrize(
    "message",
    [Message(b"\xff\xff"), Message(b"")],
    ids=["torn", "empty"],
)
async def test_a_message_that_came_too_often_is_dead_of_that_even_if_it_could_not_be_read(message: Message) -> None:
    bench = Bench([Message.of([document(1)])])
    bench.queue.deliver(message, 2, TOO_OFTEN)
    bench.queue.deliver(message, 3, TOO_OFTEN - 1)
    await bench.run()
    assert bench.store.written == [document(1)]
    often, less_often = bench.dead.letters
    assert often.body == less_often.body == message.body
    assert often.headers["x-reason"] == "too_often"
    assert less_often.headers["x-reason"] == "undecodable"


@pytest.mark.parametrize(
    ("headers", "reason"), [({"x-schema": 2}, "newer_schema"), ({}, "undecodable")], ids=["newer", "no schema"]
)
async def test_a_message_of_another_schema_stays_that_however_often_it_came(
    headers: dict[str, int | str], reason: str
) -> None:
    bench = Bench([Message.of([document(1)])])
    bench.queue.deliver(Message(document(9), headers), 2, TOO_OFTEN)
    await bench.run()
    assert [letter.headers["x-reason"] for letter in bench.dead.letters] == [reason]


def id_of(*fields: bytes) -> bytes:
    inside = b"".join(fields)
    return b"\x03_id\0" + struct.pack("<i", len(inside) + 5) + inside + b"\0"


def text(name: str, value: str, kind: int = 2) -> bytes:
    raw = value.encode() + b"\0"
    return bytes([kind]) + name.encode() + b"\0" + struct.pack("<i", len(raw)) + raw


TS_SEQ = b"\x09ts\0" + bytes(8) + b"\x12seq\0" + bytes(8)
NAMES = (text("owner", "owner"), text("device", "device"), text("sensorType", "humidity"))
REST = b"\x10value\0" + bytes(4) + b"\x09receivedAt\0" + bytes(8)


@pytest.mark.parametrize(
    "fields",
    [
        id_of(TS_SEQ) + id_of(*NAMES, TS_SEQ),
        id_of(text("owner", "other"), *NAMES[1:], TS_SEQ) + id_of(*NAMES, TS_SEQ),
        id_of(text("owner", "other"), *NAMES, TS_SEQ),
        id_of(text("owner", "owner", 14), *NAMES[1:], TS_SEQ),
    ],
    ids=["nameless and another", "two of them", "owner twice", "owner as a symbol"],
)
async def test_a_key_that_decodes_to_other_names_than_its_bytes_say_makes_no_series_known(fields: bytes) -> None:
    odd = closed(bytes(4) + fields + REST + b"\0")
    nameless = bson.encode({"value": 1})
    bench = Bench([Message.of([odd, document(1)]), Message.of([nameless, odd, document(2)])])
    await bench.run()
    assert bench.store.written == [document(1), document(2)]
    assert [key["sensorType"] for key in bench.store.series] == ["temperature"]
    assert {letter.headers["x-reason"] for letter in bench.dead.letters} == {"undecodable"}


def test_the_document_that_those_differ_from_is_a_reading() -> None:
    assert decode_document(closed(bytes(4) + id_of(*NAMES, TS_SEQ) + REST + b"\0"))["_id"]["owner"] == "owner"


async def test_documents_are_written_by_series_and_in_a_series_as_they_came() -> None:
    sent = [document(4, "b"), document(3, "a"), document(2, "b"), document(1, "a")]
    bench = Bench([Message.of(sent[:2]), Message.of(sent[2:])])
    await bench.run()
    assert bench.store.written == [sent[1], sent[3], sent[0], sent[2]]


async def test_an_owner_that_an_older_copy_made_a_living_one_again_is_stored_whenever_a_worker_learns_of_it() -> None:
    """Also when the batch was examined behind the moment in which all series were forgotten."""
    bench = Bench([Message.of([document(1)])])

    class Restored(Store):
        async def look(self) -> None:
            bench.persister._deleted.replace([])  # the last step of learning anew

    store = Restored(bench.queue)
    bench.replace_store(store)
    bench.persister._deleted.add(["owner"])
    await bench.run()
    assert store.written == [document(1)]
    assert bench.watched == [Outcome.STORED]
