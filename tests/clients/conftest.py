"""The broker that confirms when the test says so."""

import pytest

from tests.gateway.fakes import FakeBroker


@pytest.fixture
async def fake_broker() -> FakeBroker:
    return FakeBroker()
