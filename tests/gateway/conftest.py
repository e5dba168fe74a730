"""Gateways for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.embedded import EmbeddedBroker
from tests.gateway.held import HeldBroker
from tests.gateway.running import Running, gateway


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:
        yield broker


@pytest.fixture
async def running(embedded: EmbeddedBroker) -> AsyncIterator[Running]:
    async with gateway(embedded) as found:
        yield found


@pytest.fixture
async def held() -> HeldBroker:
    return HeldBroker()


@pytest.fixture
async def holding(held: HeldBroker) -> AsyncIterator[Running]:
    async with gateway(held) as found:
        yield found
        held.held.release()
