"""Faults of the whole database of readings (restored, dropped) and of the clocks of its workers."""

import asyncio
import random
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pymongo import MongoClient

from broker.connect import open_broker
from broker.deleted_owner import DeletedOwner
from broker.message import Message
from broker.topology import OWNERS_EXCHANGE, READINGS, READINGS_EXCHANGE
from persister.maintenance.removal import Removal
from readings.document import encode_document
from readings.reading import Reading
from runtime.mongodb import mongodb_client
from tests.faults.clock import Clock
from tests.faults.fleet import Fleet
from tests.faults.scenarios import fault
from tests.faults.stack import Stack
from tests.faults.verdict import Stores, stored_of

WITHIN_S = 30.0
APART_S = 600
_numbers = count()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s: {what}"
        await asyncio.sleep(0.1)


@contextmanager
def database_of(stack: Stack) -> Iterator[Any]:
    with MongoClient[dict[str, Any]](stack.mongodb.url, timeoutMS=10_000) as client:
        yield client["tidegate"]


async def publish(stack: Stack, *owners: str, readings: int) -> None:
    """Publish readings of each owner past the gateways."""
    async with open_broker(stack.rabbitmq.url) as broker, broker.publisher() as publisher:
        for owner in (owner for owner in owners for _ in range(readings)):
            document = encode_document(owner, "d", Reading("erased", 1, 1_700_000_000_000 + next(_numbers), 0, 1))
            await publisher.publish(Message.of([document]), READINGS_EXCHANGE)


async def announce_deleted(stack: Stack, *owners: str) -> None:
    async with open_broker(stack.rabbitmq.url) as broker, broker.publisher() as publisher:
        for owner in owners:
            await publisher.publish(DeletedOwner(owner, 1_700_000_000_000).message(), OWNERS_EXCHANGE)


async def stored(stack: Stack, owner: str) -> int:
    """Return how many readings of an owner there are, in any place."""
    async with mongodb_client(stack.mongodb.url, name="chaos", timeout_s=10) as client:
        return await Removal(client["tidegate"]).count(owner)


async def series_are_there(stack: Stack, fleet: Fleet, sensor_type: str) -> None:
    """Return once the series of every device has its document."""
    devices = {(sender.owner, sender.device) for sender in fleet.senders}

    def asked() -> bool:
        with database_of(stack) as database:
            keys = [one["_id"] for one in database["series"].find({"_id.sensorType": sensor_type})]
        return {(key["owner"], key["device"]) for key in keys} >= devices

    await until(lambda: asyncio.to_thread(asked), f"every series {sensor_type} has its document")


async def everything_is_stored(stack: Stack, fleet: Fleet, sensor_type: str) -> None:
    stores = Stores(stack.mongodb.url)

    def asked() -> bool:
        expected = {identity for identity in fleet.acknowledged() if identity[2] == sensor_type}
        return expected <= {identity for identity, _ in stored_of(stores, sensor_type)}

    await until(lambda: asyncio.to_thread(asked), f"everything acknowledged of {sensor_type} is stored")


async def library_values(stack: Stack, fleet: Fleet) -> set[int]:
    """Return the values that are stored of devices with the library."""
    found = await asyncio.to_thread(stored_of, Stores(stack.mongodb.url), fleet.library.sensor_type)
    return {value for _, value in found}


def rename(fleet: Fleet, sensor_type: str) -> None:
    for sender in fleet.senders:
        sender.sensor_type = sensor_type
        sender.may_send.set()


def forgive(fleet: Fleet) -> None:
    """Forget what was acknowledged: an operator's action loses it. What is acknowledged from here on counts.

    Devices with the library are forgiven nothing here: what they keep is what a restore needs.
    """
    for sender in fleet.senders:
        sender.acknowledged.clear()


async def has_its_options(stack: Stack) -> bool:
    def asked() -> bool:
        with database_of(stack) as database:
            found = list(database.list_collections(filter={"name": "readings"}))
        return bool(found) and "zstd" in str(found[0]["options"])

    return await asyncio.to_thread(asked)


@fault
async def mongodb_restored_from_an_older_copy(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    name, gone, data = fleet.senders[0].sensor_type, f"gone-{secrets.token_hex(4)}", stack.mongodb.folder / "data"
    later = f"{name[:50]}-later"

    async def newer_than(copied: set[int]) -> bool:
        return len(await library_values(stack, fleet) - copied) >= 20

    async def gone_has(readings: int) -> bool:
        return await stored(stack, gone) == readings

    await publish(stack, gone, readings=20)
    await until(lambda: gone_has(20), "the owner's readings are stored")
    with tempfile.TemporaryDirectory(prefix="tidegate-copy-") as folder:
        copy = Path(folder) / "data"
        await asyncio.to_thread(stack.mongodb.stop)
        await asyncio.to_thread(shutil.copytree, data, copy)
        await asyncio.to_thread(stack.mongodb.restart)
        copied_at = time.monotonic()
        copied = await library_values(stack, fleet)
        # After the copy: every device's second series is seen for the first time, and an owner is deleted.
        rename(fleet, later)
        await announce_deleted(stack, gone)
        await series_are_there(stack, fleet, later)
        await until(lambda: gone_has(0), "the deleted owner is erased")
        await asyncio.sleep(max(random.uniform(0, 2), copied_at + stack.backup_age_s - time.monotonic()))
        await until(lambda: newer_than(copied), "devices with the library have something stored that the copy has not")
        before = await library_values(stack, fleet)
        await asyncio.to_thread(stack.mongodb.stop)
        age_s = time.monotonic() - copied_at
        assert age_s < fleet.library.keep_stored_s, f"the copy is {age_s:.0f} s old: devices need not keep so long"
        forgive(fleet)
        await asyncio.sleep(random.uniform(0, 2))
        await asyncio.to_thread(shutil.rmtree, data)
        await asyncio.to_thread(shutil.copytree, copy, data)
        await asyncio.to_thread(stack.mongodb.restart)
        assert before - await library_values(stack, fleet), (
            "the copy has everything that devices keep: it proves nothing"
        )
    await series_are_there(stack, fleet, later)
    await fleet.finish(WITHIN_S)
    await everything_is_stored(stack, fleet, later)
    assert await gone_has(20), "the copy does not hold the deleted owner, or a living owner's readings were erased"
    await announce_deleted(stack, gone)
    await until(lambda: gone_has(0), "the owner who returned with the copy is erased again")
    forgive(fleet)
    rename(fleet, name)


@fault
async def mongodb_dropped_under_running_workers(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    name = fleet.senders[0].sensor_type

    async def settled() -> None:
        await fleet.finish(WITHIN_S)
        await everything_is_stored(stack, fleet, name)
        forgive(fleet)

    def drop_readings() -> None:
        with database_of(stack) as database:
            database["readings"].drop()

    for drop in (drop_readings, lambda: stack.mongodb.drop_database("tidegate")):
        await settled()
        fleet.library.forgive()
        await asyncio.to_thread(drop)
        rename(fleet, name)
        await asyncio.sleep(random.uniform(0, 1))
        await series_are_there(stack, fleet, name)
        await until(lambda: has_its_options(stack), "the collection has its options")


@fault
async def persister_clocks_apart(stack: Stack, _: Fleet, random: random.Random) -> None:
    owners = [f"gone-{secrets.token_hex(4)}" for _ in range(4)]
    apart = stack.persisters[0]
    with tempfile.TemporaryDirectory(prefix="tidegate-clock-") as folder:
        clock = Clock(Path(folder) / "clock")
        clock.leap(random.choice((-APART_S, APART_S)))
        await apart.restart(**clock.settings)
        try:
            await announce_deleted(stack, *owners)

            async def learned() -> bool:
                words = [("An owner is deleted", owner) for owner in owners]
                return all(service.logged(*said) for service in stack.persisters for said in words)

            await until(learned, "every worker has learned of every deletion")
            await publish(stack, *owners * 3, readings=10)
            async with open_broker(stack.rabbitmq.url) as broker:

                async def drained() -> bool:
                    return await broker.depth(READINGS) < 10

                await until(drained, "the queue is drained")
            await asyncio.sleep(0.5)
            # Before the sweep after 10 s, which would remove them.
            kept = sum([await stored(stack, owner) for owner in owners])
            assert not kept, f"{kept} readings of deleted owners were stored by a worker who had not learned of them"
        finally:
            await apart.restart()
