"""MongoDB down, frozen and back: errors that say so, and responses as soon as it is back."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from reader.history.from_mongodb import MAX_CONCURRENT_BATCHES, HistoryUnavailable
from storage.places.newest import Newest
from testing.servers.mongodb import MongoDBServer
from testing.waiting import eventually
from tests.reader.harness import (
    DEVICE,
    SENSOR,
    TS,
    ReaderClient,
    Store,
    make_reading,
    open_reader,
    open_store,
    series,
    user_token,
)

TIMEOUT_S = 0.5
Query = dict[str, Any]
CALLS: dict[str, tuple[str, Query]] = {
    "a page": ("/readings", series()),
    "a csv": ("/readings", series(format="csv")),
    "an ndjson": ("/readings", series(format="ndjson")),
    "buckets": ("/readings/buckets", series()),
    "buckets between": ("/readings/buckets", series(from_=TS, to=TS + 1)),
    "latest": ("/readings/latest", {}),
    "series": ("/series", {}),
    "search": ("/series/search", {}),
    "gaps": (f"/devices/{DEVICE}/gaps", {"sensorType": SENSOR}),
    "complete series": ("/series", {"completeness": "true"}),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MongoDBServer]:
    """A server that a test may kill."""
    with MongoDBServer(tmp_path / "mongod") as started:
        yield started


async def eventually_answers(reader_client: ReaderClient, path: str = "/series", query: Query | None = None) -> bytes:
    """Ask until a response comes within `TIMEOUT_S`, and return its body: a server that has just started, or has just
    come back, may be slower than that on a loaded machine."""
    bodies = []

    async def answers() -> bool:
        response = await reader_client.fetch(path, query)
        bodies.append(response.body)
        return response.status == 200

    await eventually(answers, f"the reader answers {path}")
    return bodies[-1]


@pytest.fixture
async def outage(
    server: MongoDBServer, broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ReaderClient]:
    """A reader over a database that can go down, with one reading."""
    monkeypatch.setattr("runtime.mongodb.CLOSE_TIMEOUT_S", 0.1)
    mongo = (server.url, "own")
    async with open_store(mongo) as store:
        await store.insert(make_reading(1))
    async with open_reader(broker, mongo, query_timeout_seconds=TIMEOUT_S) as reader_client:
        await eventually_answers(reader_client)
        yield reader_client


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_every_question_is_refused_for_now_and_answered_again_later(
    outage: ReaderClient, server: MongoDBServer, how: str
) -> None:
    before = {name: await eventually_answers(outage, *call) for name, call in CALLS.items()}
    failures_before = outage.count("failures_total")
    getattr(server, how)()
    started = time.monotonic()
    for answer in await asyncio.gather(*(outage.fetch(*call) for call in CALLS.values())):
        assert (answer.status, answer.kind) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) * 1000 == answer.json["retryAfterMs"] > 0
        assert answer.json["code"] == "unavailable"
        assert "127.0.0.1" not in answer.body.decode()  # where the database is, is nobody's business
    assert time.monotonic() - started < 5
    assert outage.count("failures_total") == failures_before + len(CALLS)
    assert (await outage.fetch("/pipeline")).status == 200
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        await outage.checks["mongodb"]()
    server.resume() if how == "pause" else server.restart()
    assert {name: await eventually_answers(outage, *call) for name, call in CALLS.items()} == before
    await outage.checks["mongodb"]()


async def test_a_reader_can_leave_while_mongodb_is_away(server: MongoDBServer, broker: EmbeddedBroker) -> None:
    async with open_reader(broker, (server.url, "own"), query_timeout_seconds=TIMEOUT_S) as reader_client:
        await eventually_answers(reader_client)
        server.kill()
        started = time.monotonic()
    assert time.monotonic() - started < 5


async def test_a_reader_starts_while_mongodb_is_away(server: MongoDBServer, broker: EmbeddedBroker) -> None:
    server.kill()
    async with open_reader(broker, (server.url, "own"), query_timeout_seconds=TIMEOUT_S) as reader_client:
        assert (await reader_client.fetch("/series")).status == 503
        server.restart()
        await eventually_answers(reader_client)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_however_many_ask_nobody_waits_longer_than_a_question_may_take(
    outage: ReaderClient, server: MongoDBServer, how: str
) -> None:
    getattr(server, how)()
    started = time.monotonic()
    tokens = [user_token(f"owner-{number}") for number in range(8)]
    answers = await asyncio.gather(
        *(outage.fetch("/readings", series(), token=token) for token in tokens for _ in range(8))
    )
    assert {answer.status for answer in answers} == {503}
    assert time.monotonic() - started < 3 * TIMEOUT_S


async def test_a_question_that_fails_leaves_nothing_running_behind(
    reader_client: ReaderClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert_series((f"d-{number}", "t") for number in range(200))
    begun, open_ = 0, 0

    async def fails(*_: Any) -> Any:
        nonlocal begun, open_
        begun, open_ = begun + 1, open_ + 1
        try:
            await asyncio.sleep(0.02)
            raise HistoryUnavailable("away")
        finally:
            open_ -= 1

    monkeypatch.setattr("reader.history.from_mongodb.SERIES_PER_QUERY", 5)
    monkeypatch.setattr(Newest, "of", fails)
    assert (await reader_client.fetch("/readings/latest")).status == 503

    async def quiet() -> bool:
        return open_ == 0

    await eventually(quiet, "no query is running any more")
    assert begun <= 2 * MAX_CONCURRENT_BATCHES
