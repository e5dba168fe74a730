"""Clients of `GET /live`, and persisters that broadcast."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

import aiohttp

from broker.embedded.broker import EmbeddedBroker
from broker.topology import LIVE_EXCHANGE
from readings.document import encode_document
from readings.reading import Reading
from runtime.background import background
from testing.waiting import eventually
from tests.reader.harness import DEVICE, JSON, OWNER, TS, ReaderClient, bearer, make_reading, user_token


class Event(NamedTuple):
    """An event, and when it arrived."""

    name: str
    id: str
    data: JSON
    at: float


class LiveClient:
    """A client of the feed that reads continuously."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.retry = ""
        # The id to reconnect with; an id line counts as it arrives.
        self.last_id = ""
        # "end" after a proper end of the response, else how it was cut.
        self.ended = ""
        self.ended_at = 0.0

    @property
    def values(self) -> list[Any]:
        """The values of the readings received."""
        return [event.data["value"] for event in self.events if event.name == "reading"]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    async def read(self) -> None:
        fields: dict[str, str] = {}
        try:
            async for raw in self.response.content:
                line = raw.decode().removesuffix("\n")
                if not line and "event" in fields:
                    data = json.loads(fields["data"])
                    self.events.append(Event(fields["event"], fields.get("id", ""), data, time.monotonic()))
                if not line:
                    assert "data" in fields, "an event without data"
                    fields = {}
                    continue
                name, _, text = line.partition(": ")
                if name == "":
                    self.comments.append(text)
                elif name == "retry":
                    self.retry = text
                elif name == "id" and "event" not in fields:
                    self.last_id = text
                else:
                    assert name not in fields
                    fields[name] = text
                    self.last_id = text if name == "id" else self.last_id
            self.ended = "end"
        except aiohttp.ClientError as error:
            self.ended = type(error).__name__
        self.ended_at = time.monotonic()

    async def until(self, condition: Callable[["LiveClient"], bool], what: str, timeout_s: float = 10) -> None:
        async def insert() -> bool:
            return condition(self)

        await eventually(insert, what, timeout_s)

    async def receives(self, *values: Any) -> None:
        """Wait for as many readings, and assert that they have these values."""
        await self.until(lambda self: len(self.values) >= len(values), f"{values} are received")
        assert self.values == list(values)

    async def ends(self, within_s: float = 5) -> None:
        await self.until(lambda self: bool(self.ended), "the feed ends", within_s)


@asynccontextmanager
async def live_client(
    reader_client: ReaderClient,
    query: Mapping[str, str] | None = None,
    *,
    token: str | None = None,
    after: str | None = None,
) -> AsyncIterator[LiveClient]:
    """Follow the feed while the context is open; `after` is the id of the last event received."""
    headers = bearer(token or user_token()) | ({} if after is None else {"Last-Event-ID": after})
    async with reader_client.http.get(
        reader_client.url + "/live", params=query or {}, headers=headers, timeout=aiohttp.ClientTimeout()
    ) as response:
        assert response.status == 200, await response.text()
        feed = LiveClient(response)
        async with background(feed.read(), name="following"):
            await feed.until(lambda self: "live" in self.comments, "the feed begins")
            yield feed


class Persister:
    """Broadcasts readings as persisters do."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker

    async def broadcast(self, *readings: Reading, device: str = DEVICE, owner: str = OWNER) -> list[bytes]:
        documents = [encode_document(owner, device, reading) for reading in readings]
        await self.broadcast_documents(documents)
        return documents

    async def broadcast_documents(self, documents: Iterable[bytes]) -> None:
        async with self._broker.broadcaster(LIVE_EXCHANGE) as broadcaster:
            broadcaster.broadcast(b"".join(documents))


@asynccontextmanager
async def client_that_never_reads(
    reader_client: ReaderClient, token: str | None = None
) -> AsyncIterator[socket.socket]:
    """A client with a small buffer that opens the feed and never reads."""
    loop = asyncio.get_running_loop()
    before = reader_client.count("live_feeds")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", reader_client.port))
        head = f"GET /live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token or user_token()}\r\n\r\n"
        await loop.sock_sendall(client, head.encode())

        async def open_() -> bool:
            return reader_client.count("live_feeds") > before

        await eventually(open_, "the feed is open")
        yield client


@asynccontextmanager
async def endless_broadcast(broker: EmbeddedBroker) -> AsyncIterator[None]:
    """A persister that broadcasts 250 kB, of 50 series, a hundred times a second."""
    persister, tags = Persister(broker), {f"tag-{number}": "x" * 256 for number in range(16)}

    async def talk() -> None:
        for number in count():
            for device in range(50):
                await persister.broadcast(make_reading(number, TS + number, tags=tags), device=f"d-{device}")
            await asyncio.sleep(0.01)

    async with background(talk(), name="talking"):
        yield
