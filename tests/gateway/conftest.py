"""Brokers and gateways for the tests of this package."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.embedded.broker import EmbeddedBroker
from tests.gateway.fakes import FakeBroker
from tests.gateway.harness import DEFAULTS, RunningGateway, gateway


@pytest.fixture(params=["true", "false"], ids=["fast path", "plain path"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the test on the fast path and on the plain path."""
    monkeypatch.setitem(DEFAULTS, "fast_lane", request.param == "true")


@pytest.fixture
def confirming(fake_broker: FakeBroker) -> None:
    """The broker confirms at once."""
    fake_broker.outgoing.auto_confirm = True


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    async with EmbeddedBroker.open_at(tmp_path / "queue.db") as broker:
        yield broker


@pytest.fixture
async def running(embedded: EmbeddedBroker) -> AsyncIterator[RunningGateway]:
    async with gateway(embedded) as found:
        yield found


@pytest.fixture
async def fake_broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
async def stalled(fake_broker: FakeBroker) -> AsyncIterator[RunningGateway]:
    async with gateway(fake_broker) as found:
        yield found
        fake_broker.outgoing.confirm_all()
