"""A broker whose confirms the test controls."""

import pytest

from tests.gateway.fakes import FakeBroker


@pytest.fixture
async def fake_broker() -> FakeBroker:
    return FakeBroker()
