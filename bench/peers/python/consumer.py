"""RabbitMQ to MongoDB by aio-pika and Motor: `python -m bench.peers.python.consumer`.

Gathers messages, writes them with one `insert_many`, then acknowledges them with one frame. One batch at a time, so
that acknowledging up to a delivery acknowledges nothing that is not stored yet. The default event loop.
"""

import asyncio
import json
import os
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
from bson import Int64
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import BulkWriteError

from bench.peers.python.input import end_with_input
from bench.peers.python.queue import connect, declare_queue

PREFETCH = 2000  # two batches: one is being written while the next one comes
BATCH = 1000
LINGER_S = 0.010
DUPLICATE_KEY = 11000

Received = asyncio.Queue[AbstractIncomingMessage]


def document_of(body: bytes) -> dict[str, Any]:
    """Return a message's reading as a document, identical in all systems."""
    sent = json.loads(body)
    key = {
        "owner": sent["owner"],
        "device": sent["device"],
        "sensorType": sent["sensorType"],
        "ts": date(sent["ts"]),
        "seq": Int64(sent["seq"]),
    }
    document = {"_id": key, "value": sent["value"], "receivedAt": date(sent["receivedAt"])}
    return document | {"unit": sent["unit"]} if "unit" in sent else document


def date(ms: int) -> datetime:
    """Return a datetime from milliseconds since 1970."""
    return datetime.fromtimestamp(ms / 1000, UTC)


async def gather(received: Received) -> list[AbstractIncomingMessage]:
    """Return up to 1,000 messages, or those that arrive within 10 ms of the first."""
    batch = [await received.get()]
    try:
        async with asyncio.timeout(LINGER_S):
            while len(batch) < BATCH:
                batch.append(await received.get())
    except TimeoutError:
        pass
    return batch


async def store(collection: Any, documents: list[dict[str, Any]]) -> None:
    """Write what is not stored yet; an error ends the process, and RabbitMQ keeps what was not acknowledged."""
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        found = error.details or {}
        duplicates = all(one["code"] == DUPLICATE_KEY for one in found["writeErrors"])
        if not duplicates or found["writeConcernErrors"]:
            raise


async def consume() -> None:
    """Store messages until cancelled."""
    # As safe as Tidegate's writes; everything else is Motor's default.
    mongodb: Any = AsyncIOMotorClient(os.environ["MONGODB_URL"], w="majority", journal=True)
    collection = mongodb[os.environ["DATABASE"]]["readings"]
    async with await connect() as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await declare_queue(channel)
        received = Received()
        await queue.consume(received.put)
        while True:
            batch = await gather(received)
            await store(collection, [document_of(message.body) for message in batch])
            await batch[-1].ack(multiple=True)


async def main() -> None:
    """Consume until SIGTERM or the end of standard input."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(end_with_input())
        tasks.create_task(consume())


if __name__ == "__main__":
    asyncio.run(main())
