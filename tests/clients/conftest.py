"""The broker that confirms when the test says so."""

import pytest

from tests.gateway.held import HeldBroker


@pytest.fixture
async def held() -> HeldBroker:
    return HeldBroker()
