"""Workers with wrong clocks miss no deletion, and remove nothing too early."""

import asyncio
import time
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import bson
import pytest
from pymongo import MongoClient

from broker.connect import open_broker
from broker.deleted_owner import DeletedOwner
from broker.message import Message
from broker.topology import DELETED_OWNERS, OWNERS_EXCHANGE, READINGS_EXCHANGE
from readings.document import encode_document
from readings.reading import Reading
from testing.waiting import eventually
from tests.faults.clock import Clock, library
from tests.integration.services import Running, started

HOUR_MS = 3_600_000
Mongo = tuple[str, str]


def clock(folder: Path, seconds: int) -> dict[str, str]:
    """Return the variables of a process whose clock is ahead by this many seconds."""
    made = Clock(folder / "clock")
    assert library() is not None, "libfaketime is not installed: testing/servers/install"
    made.leap(seconds)
    return made.settings


async def erased_of(worker: Running) -> int:
    """Return how many readings of deleted owners a worker has not stored."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{worker.ops_port}/metrics") as response,
    ):
        for line in (await response.text()).splitlines():
            if line.startswith('tidegate_persister_readings_total{outcome="erased"}'):
                return int(float(line.split()[-1]))
    return 0


async def takers(url: str) -> int:
    """Return how many workers consume announcements."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        queue = await channel.declare_queue(DELETED_OWNERS.name, passive=True)
        return queue.declaration_result.consumer_count or 0


@pytest.mark.parametrize("seconds", [600, -600])
async def test_a_worker_whose_clock_is_ten_minutes_off_learns_of_every_deletion(
    tmp_path: Path, rabbitmq_url: str, mongodb_database: Mongo, seconds: int
) -> None:
    """Each worker records some of the deletions, and gets readings of all these owners."""
    url, name = mongodb_database
    settings = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": name}
    owners = [f"gone-{number}" for number in range(4)]
    async with (
        started("persister", **settings) as right,
        started("persister", **settings, **clock(tmp_path, seconds)) as off,
        open_broker(rabbitmq_url) as broker,
        broker.publisher() as publisher,
    ):

        async def both_take() -> bool:
            return await takers(rabbitmq_url) == 2

        # In turn: each records some by its own clock, and the other has to learn of them.
        await eventually(both_take, "both consume announcements")
        for owner in owners:
            await publisher.publish(DeletedOwner(owner, 1_700_000_000_000).message(), OWNERS_EXCHANGE)

        async def noted() -> bool:
            with MongoClient[dict[str, Any]](url) as client:
                return client[name]["deleted_owners"].count_documents({}) == len(owners)

        await eventually(noted, "the tombstones are written")
        await asyncio.sleep(3)  # both ask every 2 s
        documents = [
            encode_document(owner, "d", Reading("s", number, 1_700_000_000_000 + number, 0, 1))
            for owner in owners  # not in turn, unlike the messages that the workers get
            for number in range(100)
        ]
        for one in documents:
            await publisher.publish(Message.of([one]), READINGS_EXCHANGE)

        async def all_erased() -> bool:
            return await erased_of(right) + await erased_of(off) == len(documents)

        await eventually(all_erased, "neither worker has stored a reading of a deleted owner")
        assert await erased_of(off) > 0


async def test_a_clock_an_hour_ahead_removes_no_reading_an_hour_too_early(
    tmp_path: Path, rabbitmq_url: str, mongodb_database: Mongo
) -> None:
    url, name = mongodb_database
    now = time.time_ns() // 1_000_000
    times = {"kept": now - 23 * HOUR_MS - HOUR_MS // 2, "old": now - 25 * HOUR_MS}
    with MongoClient[dict[str, Any]](url) as client:
        database = client[name]
        for device, ts in times.items():
            document = bson.decode(encode_document("owner", device, Reading("s", 1, ts, 0, ts)))
            database["readings"].insert_one(document)
            database["series"].insert_one({"_id": {"owner": "owner", "device": device, "sensorType": "s"}})
        settings = {"BROKER_URL": rabbitmq_url, "READINGS_URL": url, "READINGS_DATABASE": name, "RETENTION_DAYS": "1"}
        async with started("persister", **settings, **clock(tmp_path, 3600)):

            async def removed() -> bool:
                # The round is over: its end schedules the next one.
                chore = database["chores"].find_one({"_id": "retention"})
                return bool(chore) and not database["readings"].count_documents({"_id.device": "old"})

            await eventually(removed, "what is old is removed")
            await asyncio.sleep(1)
            assert [one["_id"]["device"] for one in database["readings"].find()] == ["kept"]
