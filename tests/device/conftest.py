"""A broker that confirms at once."""

import pytest

from tests.gateway.fakes import FakeBroker


@pytest.fixture
async def fake_broker() -> FakeBroker:
    broker = FakeBroker()
    broker.outgoing.auto_confirm = True
    return broker
