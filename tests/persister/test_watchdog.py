"""A worker that gets no deliveries although messages wait."""

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.interface import BrokerUnavailable
from persister.acks import AckTracker
from persister.lanes import lanes_of
from persister.metrics import PersisterMetrics
from persister.watchdog import StuckError, watch_deliveries
from tests.persister.harness import Queue, delivery


class Depth:
    """Knows one depth of every queue."""

    def __init__(self, depth: int | None) -> None:
        self.found = depth

    async def depth(self, _: Any) -> int:
        if self.found is None:
            raise BrokerUnavailable("away")
        return self.found


@pytest.mark.parametrize(("depth", "open_ones", "ends"), [(5, 0, True), (0, 0, False), (5, 1, False), (None, 0, False)])
async def test_a_worker_that_is_delivered_nothing_although_messages_wait_is_ended(
    depth: int | None, open_ones: int, ends: bool
) -> None:
    acks = AckTracker(Queue([]))
    for tag in range(1, open_ones + 1):
        acks.add(delivery(tag))
    lane = lanes_of(PersisterMetrics(CollectorRegistry()))[0]
    watching = watch_deliveries(Depth(depth), lane, acks, stuck_after_s=0.2)
    with pytest.raises(StuckError if ends else TimeoutError):
        await asyncio.wait_for(watching, 1)
