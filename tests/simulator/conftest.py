from collections.abc import AsyncIterator

import pytest_asyncio

from tests.simulator.fake_tidegate import FakeTidegate


@pytest_asyncio.fixture
async def tidegate() -> AsyncIterator[FakeTidegate]:
    async with FakeTidegate().serving() as fake:
        yield fake
