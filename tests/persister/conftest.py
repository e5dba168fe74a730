"""A fresh database whose readings are sealed, ordinary and clustered."""

from collections.abc import AsyncIterator

import pytest

from persister.to_mongodb import ToMongoDB


@pytest.fixture(params=[False, True], ids=["ordinary", "clustered"])
def clustered(request: pytest.FixtureRequest) -> bool:
    """Whether `readings` is clustered."""
    return bool(request.param)


@pytest.fixture
async def store(clustered: bool, mongodb_database: tuple[str, str]) -> AsyncIterator[ToMongoDB]:
    """What writes to it."""
    url, name = mongodb_database
    async with ToMongoDB.connected(url, name, clustered=clustered, timeout_s=10, sealing=True) as connected:
        await connected.prepare()
        yield connected
