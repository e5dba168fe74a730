"""Fixtures of the reader's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from tests.reader.backfill_hooks import QueryHooks
from tests.reader.harness import Mongo, ReaderClient, Store, open_reader, open_store
from tests.reader.live_client import Persister


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as opened:
        yield opened


@pytest.fixture
async def store(mongodb_database: Mongo) -> AsyncIterator[Store]:
    async with open_store(mongodb_database) as opened:
        yield opened


@pytest.fixture
async def reader_client(broker: EmbeddedBroker, mongodb_database: Mongo) -> AsyncIterator[ReaderClient]:
    async with open_reader(broker, mongodb_database) as found:
        yield found


@pytest.fixture
def persister(broker: EmbeddedBroker) -> Persister:
    return Persister(broker)


@pytest.fixture
def query_hooks(monkeypatch: pytest.MonkeyPatch) -> QueryHooks:
    return QueryHooks(monkeypatch)
