"""The edge that devices meet: auth and a gateway as processes, on the embedded broker, and what that broker has."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from broker.embedded.broker import EmbeddedBroker
from broker.topology import READINGS
from readings.document import decode_document
from testing.servers.ports import free_port
from tests.gateway.fakes import FakeBroker
from tests.integration.device import logged_in, new_token, registered_device
from tests.integration.services import SECRET, Running, migrated, started

EMAIL = "ada@example.com"


# Documents by value: each test gives every reading a value of its own.
Stored = dict[int, dict[str, Any]]


def by_value(documents: Iterable[dict[str, Any]]) -> Stored:
    """Return the documents that a persister would store; it skips repeats of an identity."""
    found: Stored = {}
    values: dict[tuple[Any, ...], int] = {}
    for document in documents:
        identity, value = tuple(document["_id"].values()), document["value"]
        assert found.setdefault(value, document)["_id"] == document["_id"], "stored twice"
        assert values.setdefault(identity, value) == value, "one identity for two readings: the second is not stored"
    return found


def published(broker: FakeBroker) -> Stored:
    """Return what the broker received."""
    return by_value(decode_document(body) for message in broker.outgoing.messages for body in message.documents())


@dataclass
class Edge:
    """One gateway that comes and goes at the same port; auth stays."""

    folder: Path
    auth: Running
    device: str
    token: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def queue(self) -> Path:
        return self.folder / "queue.db"

    @asynccontextmanager
    async def gateway(self, **settings: str) -> AsyncIterator[Running]:
        """Run the gateway; it is killed on exit of the context."""
        url = f"embedded://{self.queue}"
        async with started(
            "gateway", BROKER_URL=url, AUTH_URL=self.auth.url, PORT=str(self.port), **settings
        ) as running:
            yield running

    async def new_token(self) -> str:
        return await new_token(self.auth.url, EMAIL, self.device)

    async def revoke(self) -> None:
        """Revoke all tokens of the device."""
        async with aiohttp.ClientSession(self.auth.url, raise_for_status=True) as session:
            bearer = {"Authorization": f"Bearer {await logged_in(session, EMAIL)}"}
            async with session.delete(f"/devices/{self.device}/tokens", headers=bearer):
                pass

    @contextmanager
    def broker_away(self) -> Iterator[None]:
        """Hold the broker's file, so that nothing is confirmed."""
        connection = sqlite3.connect(self.queue, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    async def stored(self) -> "Stored":
        """Return what the broker has of a stopped gateway."""
        documents: list[dict[str, Any]] = []
        async with (
            EmbeddedBroker.open_at(self.queue) as broker,
            broker.consumer(READINGS, prefetch=10_000) as consumer,
        ):
            for _ in range(await broker.depth(READINGS)):
                delivery = await asyncio.wait_for(consumer.get(), 60)
                documents += map(decode_document, delivery.message.documents())
        return by_value(documents)


@asynccontextmanager
async def edge(folder: Path, **auth_settings: str) -> AsyncIterator[Edge]:
    """Run auth, with one registered device."""
    users = f"sqlite+aiosqlite:///{folder / 'users.db'}"
    await migrated(users)
    settings = {"AUTH_DATABASE_URL": users, "SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4", **auth_settings}
    async with AsyncExitStack() as stack:
        auth = await stack.enter_async_context(started("auth", **settings))
        _, device, token = await registered_device(auth.url)
        yield Edge(folder, auth, device, token, free_port())
