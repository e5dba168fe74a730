"""A world in a fresh database, with small sizes."""

from collections.abc import AsyncIterator

import pytest

from runtime.mongodb import mongodb_client
from tests.persister.compaction.stage import Stage
from tests.persister.compaction.world import World, make_small


@pytest.fixture
async def world(mongodb_database: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """An empty database."""
    make_small(monkeypatch)
    url, name = mongodb_database
    async with mongodb_client(url, name="test", timeout_s=20) as client:
        yield World(client[name])


@pytest.fixture
async def stage(mongodb_database: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """An empty database, and who writes, seals and removes."""
    make_small(monkeypatch)
    url, name = mongodb_database
    async with mongodb_client(url, name="test", timeout_s=20) as client:
        found = Stage(client, name)
        await found.to_mongodb.prepare()
        await found.maintenance.prepare()
        yield found
