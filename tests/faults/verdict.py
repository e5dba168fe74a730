"""What became of every reading of a scenario, asked of MongoDB and the dead letters themselves."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pymongo import MongoClient

from broker.connect import open_broker
from broker.document import AS_MILLISECONDS, DocumentError, decode_document, split_documents
from broker.topology import DEAD_LETTERS
from tests.faults.fleet import Fleet, Identity
from tests.faults.stack import Stack

COLUMNS = ("sent", "acknowledged", "stored", "dead", "lost", "duplicated", "foreign")


@dataclass
class Verdict:
    """One scenario's account."""

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    recovered_s: float = 0.0
    trouble: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing is lost, stored twice or invented, and it came to an end."""
        return not self.trouble and not any(self.counts.get(name) for name in ("lost", "duplicated", "foreign"))


def stored_of(stack: Stack, sensor_type: str) -> list[tuple[Identity, Any]]:
    """Return what is stored under this name, whoever's it is."""
    with MongoClient[dict[str, Any]](stack.mongodb.url, timeoutMS=20_000) as client:
        readings = client["tidegate"].get_collection("readings", codec_options=AS_MILLISECONDS)
        return [(_identity(item["_id"]), item["value"]) for item in readings.find({"_id.sensorType": sensor_type})]


async def dead_of(stack: Stack, sensor_type: str) -> list[Identity]:
    """Return the readings of this name among the dead letters."""
    found: list[Identity] = []
    async with open_broker(stack.rabbitmq.url) as broker:
        if not await broker.depth(DEAD_LETTERS):
            return found
        async with broker.inspection(DEAD_LETTERS) as inspection:
            async for delivery in inspection:
                try:
                    keys = [decode_document(part)["_id"] for part in split_documents(delivery.message.body)]
                except DocumentError:
                    continue
                found += [_identity(key) for key in keys if key["sensorType"] == sensor_type]
    return found


async def judged(stack: Stack, fleet: Fleet, sensor_type: str, within_s: float) -> dict[str, int]:
    """Wait until everything acknowledged has arrived, or the time is over; then count."""
    sent, acknowledged = fleet.sent(), fleet.acknowledged()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        stored = await asyncio.to_thread(stored_of, stack, sensor_type)
        missing = acknowledged - {identity for identity, _ in stored}
        if not missing or loop.time() > deadline:
            break
        await asyncio.sleep(0.1)
    dead = await dead_of(stack, sensor_type)
    copies = Counter(value for _, value in stored)
    return {
        "sent": len(sent),
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "dead": len(set(dead)),
        "lost": len(missing - set(dead)),
        "duplicated": sum(number - 1 for number in copies.values()),
        "foreign": sum(1 for identity, value in stored if sent.get(identity) != value),
    }


def _identity(key: dict[str, Any]) -> Identity:
    return (key["owner"], key["device"], key["sensorType"], int(key["ts"]), int(key["seq"]))
