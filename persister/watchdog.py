"""Ends a worker that gets no deliveries although messages wait in its queue, so that its replacement starts afresh.

A lost connection, a cancelled consumer and a broker that is away are handled elsewhere. This covers the cases that
nobody has thought of.
"""

import asyncio
import time
from contextlib import suppress

from broker.interface import BrokerError, Inspector
from persister.acks import AckTracker
from persister.lanes import Lane

CHECK_EVERY_S = 5.0
# If MongoDB answers, storing begins before this: no connection is opened only to be closed again.
FIRST_REPORT_AFTER_S = 2.0


class StuckError(Exception):
    """Messages wait, and none is delivered."""


async def watch_deliveries(inspector: Inspector, lane: Lane, acks: AckTracker, *, stuck_after_s: float) -> None:
    """Check every 5 s until cancelled; StuckError if messages wait and none was delivered for `stuck_after_s`."""
    delivered, since = -1, time.monotonic()
    while True:
        await asyncio.sleep(min(CHECK_EVERY_S, stuck_after_s / 4))
        try:
            depth = await inspector.depth(lane.queue)
        except BrokerError:
            delivered = -1  # the broker is away, which is not this worker's fault
            continue
        lane.metrics.depth.set(depth)
        if delivered != acks.delivered or not depth or len(acks):
            delivered, since = acks.delivered, time.monotonic()
        elif time.monotonic() - since > stuck_after_s:
            raise StuckError(
                f"{depth} messages wait in {lane.queue.name}, and none was delivered for {stuck_after_s:g} s"
            )


async def report_depth(inspector: Inspector, *lanes: Lane) -> None:
    """Set the lanes' depth metrics every 5 s until cancelled: for the time in which nothing is consumed."""
    await asyncio.sleep(FIRST_REPORT_AFTER_S)
    while True:
        for lane in lanes:
            with suppress(BrokerError):
                lane.metrics.depth.set(await inspector.depth(lane.queue))
        await asyncio.sleep(CHECK_EVERY_S)
