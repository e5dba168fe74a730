"""Readers for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from tests.reader.following import Persister
from tests.reader.resuming import Gap
from tests.reader.running import Mongo, Running, Store, reader, stored_in


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as opened:
        yield opened


@pytest.fixture
async def store(mongodb_database: Mongo) -> AsyncIterator[Store]:
    async with stored_in(mongodb_database) as opened:
        yield opened


@pytest.fixture
async def running(broker: EmbeddedBroker, mongodb_database: Mongo) -> AsyncIterator[Running]:
    async with reader(broker, mongodb_database) as found:
        yield found


@pytest.fixture
def persister(broker: EmbeddedBroker) -> Persister:
    return Persister(broker)


@pytest.fixture
def gap(monkeypatch: pytest.MonkeyPatch) -> Gap:
    return Gap(monkeypatch)
