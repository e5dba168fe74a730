"""What the live feed remembers between broadcasts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker import live as broadcasts
from broker.embedded.fanout import EmbeddedSubscriber
from broker.live import live_readings
from reader.live import from_live
from reader.live.from_live import FromLive
from reader.metrics import ReaderMetrics
from readings.document import encode_document
from testing.waiting import eventually
from tests.reader.harness import make_reading


class OneSubscriber:
    """A broker on which nothing is broadcast."""

    @asynccontextmanager
    async def subscriber(self, _: str, *, bound: int) -> AsyncIterator[EmbeddedSubscriber]:
        """Subscribe."""
        yield EmbeddedSubscriber(bound)


async def test_series_that_are_not_received_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_live, "FORGET_SERIES_EVERY_S", 0.01)
    live_readings(encode_document("owner", "device-1", make_reading(1)))
    assert broadcasts._series.cache_info().currsize
    broker: Any = OneSubscriber()

    async def is_empty() -> bool:
        return not broadcasts._series.cache_info().currsize

    async with FromLive.subscribed(broker, ReaderMetrics(CollectorRegistry()), heartbeat_s=10):
        await eventually(is_empty, "nothing is remembered")
