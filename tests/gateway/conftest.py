"""Gateways for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from tests.gateway.held import HeldBroker
from tests.gateway.running import DEFAULTS, Running, gateway


@pytest.fixture(params=["true", "false"], ids=["fast lane", "plain path"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What uses this runs on both."""
    monkeypatch.setitem(DEFAULTS, "fast_lane", request.param == "true")


@pytest.fixture
def confirming(held: HeldBroker) -> None:
    """The broker confirms at once."""
    held.held.free = True


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
