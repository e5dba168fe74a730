"""A broker whose confirms the test controls."""

import pytest

from tests.gateway.held import HeldBroker


@pytest.fixture
async def held() -> HeldBroker:
    return HeldBroker()
