"""Ends a worker that is delivered nothing although its queue has messages: its replacement gets a fresh start.

A lost connection, a cancelled consumer and a broker that is away are known and mended elsewhere. This is for what
nobody has thought of.
"""

import asyncio
import time
from contextlib import suppress

from broker.interface import Broker, BrokerError
from broker.topology import READINGS
from persister.acks import Ledger
from persister.metrics import PersisterMetrics

LOOK_EVERY_S = 5.0
# Where MongoDB answers, storing begins before: no connection is opened only to be cut.
FIRST_LOOK_AFTER_S = 2.0


class StuckError(Exception):
    """There are messages, and none is delivered."""


async def watch_deliveries(broker: Broker, ledger: Ledger, metrics: PersisterMetrics, *, stuck_after_s: float) -> None:
    """Look every 5 s, for ever; StuckError when messages wait and nothing was delivered for so long."""
    delivered, since = -1, time.monotonic()
    while True:
        await asyncio.sleep(min(LOOK_EVERY_S, stuck_after_s / 4))
        try:
            depth = await broker.depth(READINGS)
        except BrokerError:
            delivered = -1  # it is away: that is no fault of this worker's
            continue
        metrics.depth.set(depth)
        if delivered != ledger.delivered or not depth or len(ledger):
            delivered, since = ledger.delivered, time.monotonic()
        elif time.monotonic() - since > stuck_after_s:
            raise StuckError(f"{depth} messages wait, and none was delivered for {stuck_after_s:g} s")


async def tell_depth(broker: Broker, metrics: PersisterMetrics) -> None:
    """Look every 5 s, for ever, and no more than tell: as long as nothing can be stored, nothing is consumed."""
    await asyncio.sleep(FIRST_LOOK_AFTER_S)
    while True:
        with suppress(BrokerError):
            metrics.depth.set(await broker.depth(READINGS))
        await asyncio.sleep(LOOK_EVERY_S)
