"""Makes the dead-letter queue refuse, checks that it does, and checks that good readings flow meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.connect import open_broker
from broker.interface import QueueFull
from broker.message import Message
from broker.topology import DEAD_EXCHANGE
from tests.faults.fleet import Fleet
from tests.faults.stack import Stack
from tests.faults.verdict import Stores, stored_of

# A policy rather than a missing binding: opening a publisher declares the queue and binds it again.
POLICY = "policies/%2F/dead-letters-full"
DEFINITION = {
    "pattern": "^tidegate.readings.dead$",
    "definition": {"max-length": 1, "overflow": "reject-publish"},
    "apply-to": "queues",
}
FULL_WITHIN_S = 10.0
FILLER = Message(b"fills the dead-letter queue")


@asynccontextmanager
async def refused(stack: Stack) -> AsyncIterator[None]:
    """Make the dead-letter queue refuse while the context lasts; AssertionError if it takes something."""
    await asyncio.to_thread(stack.rabbitmq.api, "PUT", POLICY, DEFINITION)
    try:
        await _full(stack.rabbitmq.url)
        yield
        assert await _refuses(stack.rabbitmq.url), "the dead-letter queue takes messages again"
    finally:
        await asyncio.to_thread(stack.rabbitmq.api, "DELETE", POLICY)


async def _full(url: str) -> None:
    async with asyncio.timeout(FULL_WITHIN_S):
        while not await _refuses(url):
            await asyncio.sleep(0.1)


async def _refuses(url: str) -> bool:
    """Return whether a publish is refused: with a nack, and no other error."""
    async with open_broker(url) as broker, broker.publisher() as publisher:
        try:
            await publisher.publish(Message(FILLER.body), DEAD_EXCHANGE)
        except QueueFull:
            return True
    return False


async def good_ones_flow(stack: Stack, fleet: Fleet, seconds: float, *, within_s: float) -> None:
    """Check for `seconds` that everything acknowledged is stored within `within_s`."""
    stores, ends = Stores(stack.mongodb.url, stack.rabbitmq.url), time.monotonic() + seconds
    while time.monotonic() < ends:
        acknowledged, since = fleet.acknowledged(), time.monotonic()
        sensor_type = fleet.senders[0].sensor_type
        while missing := acknowledged - {
            identity for identity, _ in await asyncio.to_thread(stored_of, stores, sensor_type)
        }:
            assert time.monotonic() - since < within_s, f"{len(missing)} good readings are held up"
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
