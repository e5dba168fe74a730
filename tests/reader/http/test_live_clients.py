"""The live feed, read by common SSE clients: they see no event that is not a reading."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.embedded.broker import EmbeddedBroker
from runtime.times import now_ms
from testing.environment import python_with
from testing.node import node_with
from testing.waiting import eventually
from tests.reader.backfill_hooks import ONE
from tests.reader.harness import Mongo, ReaderClient, Store, make_reading, open_reader, user_token
from tests.reader.live_client import LiveClient, Persister, live_client

CLIENTS = Path(__file__).with_name("clients")


@pytest.fixture(scope="session")
def httpx_sse() -> list[str]:
    return [str(python_with(CLIENTS / "requirements.txt", "httpx-sse")), str(CLIENTS / "follow.py")]


@pytest.fixture(scope="session")
def fetch_event_source() -> list[str]:
    return [node_with(CLIENTS, "@microsoft/fetch-event-source"), str(CLIENTS / "follow.js")]


class Client:
    """The output of a client."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self.errors = ""

    @property
    def values(self) -> list[Any]:
        assert all(line == "open" or line[0] == "reading" for line in self.lines), self.lines
        return [line[2]["value"] for line in self.lines if line != "open"]

    async def says(self, what: str, count: int) -> None:
        async def said() -> bool:
            return len(self.lines) >= count

        await eventually(said, what)


@asynccontextmanager
async def followed_by(command: list[str], reader_client: ReaderClient, query: str = "") -> AsyncIterator[Client]:
    environ = {**os.environ, "URL": f"{reader_client.url}/live{query}", "TOKEN": user_token()}
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=environ)
    assert process.stdout is not None
    assert process.stderr is not None
    client = Client()

    async def read(stream: asyncio.StreamReader) -> None:
        async for line in stream:
            client.lines.append(json.loads(line))

    reading = asyncio.ensure_future(read(process.stdout))
    try:
        await client.says("it follows", 1)
        yield client
    finally:
        if process.returncode is None:
            process.kill()
        client.errors = (await process.stderr.read()).decode()
        print(client.errors)
        await process.wait()
        await reading


def has_beaten(times: int, feed: LiveClient) -> bool:
    return feed.comments.count("heartbeat") >= times


@pytest.mark.parametrize("which", ["httpx_sse", "fetch_event_source"])
async def test_a_client_is_given_readings_and_nothing_else(
    request: pytest.FixtureRequest, broker: EmbeddedBroker, mongodb_database: Mongo, persister: Persister, which: str
) -> None:
    command = request.getfixturevalue(which)
    async with open_reader(broker, mongodb_database, heartbeat_seconds=0.05) as reader_client:
        async with followed_by(command, reader_client) as client, live_client(reader_client) as witness:
            for number in range(3):
                beats = witness.comments.count("heartbeat") + 3
                await witness.until(partial(has_beaten, beats), "it beats")
                await persister.broadcast(make_reading(number, now_ms()))
                await client.says(f"it has received {number}", number + 2)
        assert client.values == [0, 1, 2]
        assert client.errors == ""


@pytest.mark.parametrize("query", ["", "?device=device-1&sensorType=temperature"])
async def test_a_client_that_is_cut_before_its_first_reading_is_given_what_it_missed(
    reader_client: ReaderClient, store: Store, fetch_event_source: list[str], query: str
) -> None:
    async with followed_by(fetch_event_source, reader_client, query) as client:
        await store.insert(make_reading("missed", now_ms(), received_ms=now_ms()))  # told to nobody
        reader_client.end_feeds()
        await client.says("it has reconnected and received", 3)
    assert client.lines[:2] == ["open", "open"]
    assert client.values == ["missed"]


@pytest.mark.parametrize("chosen", [{}, ONE])
async def test_a_feed_begins_with_a_place_to_go_on_from(
    reader_client: ReaderClient, store: Store, persister: Persister, chosen: dict[str, str]
) -> None:
    long_ago = now_ms() - 60_000
    await store.insert(make_reading("past", long_ago, received_ms=long_ago))
    async with live_client(reader_client, chosen) as feed:
        assert feed.last_id
    await store.insert(make_reading("missed", now_ms(), received_ms=now_ms()))
    async with live_client(reader_client, chosen, after=feed.last_id) as again:
        await again.receives("missed")
        assert again.last_id not in ("", feed.last_id)
    async with live_client(reader_client, chosen, after=again.last_id) as third:
        if not chosen:  # the overlap
            await third.receives("missed")
        await persister.broadcast(make_reading("live", now_ms()))
        await third.until(lambda self: "live" in self.values, "what is live is received")
        assert third.values == (["live"] if chosen else ["missed", "live"])


async def test_a_feed_that_resumes_and_is_cut_again_at_once_has_the_same_place(reader_client: ReaderClient) -> None:
    for after in ("1-2-3", f"{now_ms()}-1-0"):
        async with live_client(reader_client, ONE, after=after) as feed:
            assert feed.last_id == after


@pytest.mark.parametrize("chosen", [{}, ONE])
async def test_what_a_gateway_received_before_the_feed_began_and_was_stored_later_is_not_missed(
    reader_client: ReaderClient, store: Store, persister: Persister, chosen: dict[str, str]
) -> None:
    # A queue that lags by a minute, as the times of receipt show.
    behind = now_ms() - 60_000
    async with live_client(reader_client) as witness:
        await persister.broadcast(make_reading(0, behind, received_ms=behind))
        await witness.receives(0)
    async with live_client(reader_client, chosen) as feed:
        assert feed.last_id
    await store.insert(make_reading("late", behind + 1000, received_ms=behind + 1000))
    async with live_client(reader_client, chosen, after=feed.last_id) as again:
        await again.receives("late")
