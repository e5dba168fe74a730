"""Readings are sealed, compacted and dropped all the time, and every answer has each of them once.

What was acknowledged before a request began is in its answer, whatever is moved meanwhile.
"""

import asyncio
import csv
import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from pymongo.errors import PyMongoError

from broker.embedded.broker import EmbeddedBroker
from persister.compaction.compactor import CompactionError, Compactor
from persister.compaction.lease import LeaseLostError
from persister.compaction.metrics import CompactorMetrics
from persister.mongodb_errors import WriteFailed
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from persister.to_mongodb import ToMongoDB
from readings.document import encode_document
from runtime.background import background
from runtime.mongodb import mongodb_client
from storage.places import first, loose
from storage.places.blocks import Blocks
from storage.places.each import find_each
from storage.places.first import FirstReadings
from storage.places.reading import Places
from testing.servers.replica_set import ReplicaSet
from tests.persister.compaction.world import make_small
from tests.reader.harness import (
    DEVICE,
    OWNER,
    SENSOR,
    TS,
    Mongo,
    ReaderClient,
    Store,
    make_reading,
    open_reader,
    series,
)
from tests.reader.parquet_tables import table_of

SECONDS = 10.0
STEP_DOWN_EVERY_S = 6.0
STEP_MS = 20_000
EACH_WRITE = 30
QUESTIONS = 25
Way = Callable[["Answers"], Awaitable[list[int] | None]]


@dataclass
class Written:
    """The values of what was sent, and of what was acknowledged, by the number of its reading."""

    store: Store
    dice: random.Random
    sent: list[int] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    late: list[int] = field(default_factory=list)

    async def write(self) -> None:
        """Store readings, some of them late, some sent a second time with another value."""
        while True:
            await self.write_some()
            await asyncio.sleep(0.01)

    async def write_some(self) -> None:
        """Store some readings."""
        fresh = range(len(self.sent) + len(self.late), len(self.sent) + len(self.late) + EACH_WRITE)
        numbers: list[int] = []
        for number in fresh:
            # These are kept back, and are late then.
            (self.late if self.dice.random() < 0.05 else numbers).append(number)
        self.dice.shuffle(self.late)
        back, self.late = self.late[10:], self.late[:10]
        numbers += back
        self.sent += numbers
        readings = [make_reading(float(number), TS + number * STEP_MS) for number in numbers]
        again = (
            [make_reading("again", TS + n * STEP_MS) for n in self.dice.sample(sorted(self.stored), 2)]
            if (len(self.stored) > 100)
            else []
        )
        documents = [encode_document(OWNER, DEVICE, one) for one in [*readings, *again]]
        while True:
            try:
                await self.store.write(documents)
            except WriteFailed:
                await asyncio.sleep(0.05)
            else:
                break
        self.stored.update(numbers)


class Answers:
    """Reads everything in every way, and compares it with what was written."""

    def __init__(self, reader_client: ReaderClient, written: Written) -> None:
        self._reader = reader_client
        self._written = written
        self.compared: dict[str, int] = {}
        self.largest = 0
        self.unavailable = 0

    async def read(self, ask: Way) -> None:
        """Read in one way until cancelled."""
        while True:
            if not await self.read_once(ask):
                self.unavailable += 1
                await asyncio.sleep(0.05)
            await asyncio.sleep(0)

    async def read_once(self, ask: Way) -> bool:
        """Read and compare; return whether MongoDB answered."""
        name = ask.__name__
        before = set(self._written.stored)
        found = await ask(self)
        if found is None:
            return False
        assert len(found) == len(set(found)), f"{name}: some came twice"
        assert before <= set(found), f"{name}: {len(before - set(found))} of {len(before)} are missing"
        assert set(found) <= set(self._written.sent), f"{name}: nobody sent these"
        self.compared[name] = self.compared.get(name, 0) + 1
        self.largest = max(self.largest, len(found))
        return True

    async def get(self, path: str, **query: Any) -> bytes | None:
        """Return a body; None if MongoDB is away."""
        try:
            answer = await self._reader.fetch(path, series(**query))
        except aiohttp.ClientPayloadError:  # an export was cut off, and cannot be taken for a whole one
            return None
        if answer.status == 503:
            return None
        assert answer.status == 200, answer.body
        return answer.body

    async def latest(self) -> list[int] | None:
        newest = max(self._written.stored, default=-1)
        body = await self.get("/readings/latest")
        if body is None:
            return None
        values = [item["value"] for item in json.loads(body)["items"]]
        assert len(values) == 1
        assert values[0] >= newest
        return [*self._written.stored]

    async def buckets(self) -> list[int] | None:
        before = set(self._written.stored)
        body = await self.get("/readings/buckets", every=self._written.dice.choice(["1m", "1h", "1d"]), from_=TS)
        if body is None:
            return None
        items = json.loads(body)["items"]
        assert len(before) <= sum(item["count"] for item in items) <= len(self._written.sent)
        assert all("texts" not in item for item in items)
        if len(before) == len(self._written.sent):  # nothing was on its way
            return [*before]
        return [*self._written.stored]


async def pages(answers: Answers, order: str) -> list[int] | None:
    found: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        body = await answers.get("/readings", order=order, limit=997, **cursor)
        if body is None:
            return None
        page = json.loads(body)
        found += [numbered(item) for item in page["items"]]
        if "nextCursor" not in page:
            return found
        cursor = {"cursor": page["nextCursor"]}


def numbered(item: dict[str, Any]) -> int:
    """Return the number of a reading; its first copy is the one that counts."""
    assert isinstance(item["value"], float), item
    return int(item["value"])


async def forward(answers: Answers) -> list[int] | None:
    return await pages(answers, "asc")


async def backward(answers: Answers) -> list[int] | None:
    return await pages(answers, "desc")


async def as_csv(answers: Answers) -> list[int] | None:
    body = await answers.get("/readings", format="csv")
    return None if body is None else [int(float(row["value"])) for row in csv.DictReader(io.StringIO(body.decode()))]


async def as_ndjson(answers: Answers) -> list[int] | None:
    body = await answers.get("/readings", format="ndjson")
    return None if body is None else [numbered(json.loads(line)) for line in body.splitlines()]


async def as_parquet(answers: Answers) -> list[int] | None:
    body = await answers.get("/readings", format="parquet")
    if body is None:
        return None
    return [int(value) for value in table_of(body)["valueNumber"].to_pylist()]


WAYS = (forward, backward, as_csv, as_ndjson, as_parquet, Answers.buckets, Answers.latest)


class Moving:
    """Seals and compacts one database."""

    def __init__(self, database: Any) -> None:
        registry = CollectorRegistry()
        self._sealer = Sealer(
            database, clustered=False, seal_readings=1, seal_seconds=1, metrics=SealingMetrics(registry)
        )
        self._compactor = Compactor(database, CompactorMetrics(registry), cores=8)
        self.sealed, self.compacted = 0, 0

    @classmethod
    @asynccontextmanager
    async def of(cls, mongo: Mongo) -> AsyncIterator["Moving"]:
        async with mongodb_client(mongo[0], name="test", timeout_s=10) as client:
            yield cls(client[mongo[1]])

    @property
    def has_moved_enough(self) -> bool:
        return self.sealed > 3 and self.compacted > 2

    async def seal(self) -> None:
        with suppress(WriteFailed):
            self.sealed += await self._sealer.seal(force=True) is not None

    async def compact(self) -> None:
        try:
            self.compacted += await self._compactor.compact_next(asyncio.Event()) is not None
        except (LeaseLostError, PyMongoError):
            await asyncio.sleep(0.1)
        except CompactionError as failed:
            raise AssertionError(f"{failed.number} cannot be compacted: {failed}") from failed

    @asynccontextmanager
    async def all_the_time(self) -> AsyncIterator[None]:
        """Seal every 50 ms, and compact."""

        async def seal() -> None:
            while True:
                await self.seal()
                await asyncio.sleep(0.05)

        async def compact() -> None:
            while True:
                await self.compact()
                await asyncio.sleep(0.02)

        async with background(seal(), name="sealing"), background(compact(), name="compaction"):
            yield


@pytest.fixture
async def writing(mongodb_database: Mongo, rng: random.Random) -> AsyncIterator[Written]:
    async with written_to(mongodb_database, rng) as written:
        yield written


@asynccontextmanager
async def some_written(mongo: Mongo, dice: random.Random) -> AsyncIterator[Written]:
    """Open a database with some readings."""
    async with ToMongoDB.connected(*mongo, clustered=False, timeout_s=10, sealing=True) as connected:
        await connected.prepare()
        store = Store(connected)
        await store.insert_series([(DEVICE, SENSOR)])
        written = Written(store, dice)
        for _ in range(5):
            await written.write_some()
        yield written


@asynccontextmanager
async def written_to(mongo: Mongo, dice: random.Random) -> AsyncIterator[Written]:
    """Open a database to which readings are written meanwhile."""
    async with some_written(mongo, dice) as written, background(written.write(), name="writing"):
        yield written


async def read_while_moving(
    broker: EmbeddedBroker, mongo: Mongo, written: Written, seconds: float
) -> tuple[Answers, Moving]:
    async with open_reader(broker, mongo) as reader_client, Moving.of(mongo) as moving, moving.all_the_time():
        answers = Answers(reader_client, written)
        tasks = [asyncio.ensure_future(answers.read(way)) for way in WAYS]
        finished, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        async with asyncio.timeout(60):  # a busy machine moves less in that time
            while not finished and not moving.has_moved_enough:
                finished, _ = await asyncio.wait(tasks, timeout=1, return_when=asyncio.FIRST_EXCEPTION)
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in finished:
            one.result()
        print(f"{moving.sealed} sealed, {moving.compacted} compacted, {len(written.stored)} readings")
        print(f"answers: {answers.compared}, {answers.unavailable} times away")
        return answers, moving


async def test_none_is_missing_and_none_comes_twice(
    broker: EmbeddedBroker, mongodb_database: Mongo, writing: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    answers, moving = await read_while_moving(broker, mongodb_database, writing, SECONDS)
    assert answers.compared.keys() == {way.__name__ for way in WAYS}
    assert answers.unavailable == 0
    assert moving.has_moved_enough
    assert answers.largest > 500


@pytest.mark.alone
async def test_nor_while_the_primary_steps_down(
    broker: EmbeddedBroker, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch)
    with ReplicaSet(tmp_path) as servers:
        mongo = servers.url, "moving"
        primaries: set[int] = set()

        async def step_down() -> None:
            while True:
                await asyncio.sleep(STEP_DOWN_EVERY_S)
                primaries.add(await asyncio.to_thread(servers.step_down, 5))

        async with written_to(mongo, rng) as written, background(step_down(), name="stepping down"):
            answers, moving = await read_while_moving(broker, mongo, written, 4 * STEP_DOWN_EVERY_S)
    assert answers.compared.keys() == {way.__name__ for way in WAYS}
    assert len(primaries - {0}) > 1
    assert moving.has_moved_enough
    assert answers.largest > 500


# What a reader asks MongoDB for one part of a question.
READS = ((Places, "state"), (Places, "has"))
READS_IN_THREAD = (
    *((loose, name) for name in ("read_raw", "state_in", "have_any")),
    *((first, name) for name in ("pieces_in", "pieces_and_head")),
    (FirstReadings, "_of_blocks"),
    (Blocks, "heads_in"),
)


@pytest.mark.parametrize("way", [forward, backward, as_csv, Answers.buckets, Answers.latest])
async def test_whatever_moves_between_two_reads_of_one_question(
    broker: EmbeddedBroker, mongodb_database: Mongo, rng: random.Random, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(f"{__name__}.EACH_WRITE", 12)
    monkeypatch.setattr(loose, "FEW_SEALED", 0)
    async with (
        some_written(mongodb_database, rng) as written,
        open_reader(broker, mongodb_database, query_timeout_seconds=60.0) as reader_client,
        Moving.of(mongodb_database) as moving,
    ):
        answers = Answers(reader_client, written)
        moves: list[tuple[Callable[[], Awaitable[None]], ...]] = []
        all_moves = [(moving.seal,), (moving.compact,), (moving.seal, moving.compact), (), (written.write_some,)]

        async def step() -> None:
            for move in moves.pop() if moves else ():
                await move()

        for owner, name in READS:
            monkeypatch.setattr(owner, name, after(step, getattr(owner, name)))
        monkeypatch.setattr("storage.places.newest.find_each", after(step, find_each))
        for place, name in READS_IN_THREAD:
            monkeypatch.setattr(place, name, after_in_thread(step, getattr(place, name)))
        for _ in range(QUESTIONS):
            if moving.sealed - moving.compacted > 4:
                await moving.compact()
            await written.write_some()
            # Before each read of the question one of these, and then nothing more.
            moves[:] = rng.choices(all_moves, k=rng.randint(1, 6))
            assert await answers.read_once(way)
        assert moving.compacted > 3


def after_in_thread(step: Callable[[], Coroutine[Any, Any, None]], read: Any) -> Any:
    """Return a function that runs in a thread, and waits there for a step in the event loop."""
    loop = asyncio.get_running_loop()

    def stepped(*arguments: Any) -> Any:
        asyncio.run_coroutine_threadsafe(step(), loop).result()
        return read(*arguments)

    return stepped


def after(step: Callable[[], Awaitable[None]], read: Any) -> Any:
    async def stepped(*arguments: Any) -> Any:
        await step()
        return await read(*arguments)

    return stepped
