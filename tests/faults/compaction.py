"""Faults of those who seal and compact. Both go on, every few seconds, during all other faults, too."""

import asyncio
import random
import secrets
import signal
from typing import get_args

from broker.failpoints import Point
from persister.compaction.lease import LEASE_S
from storage.places.names import BLOCKS
from storage.places.state import STATE
from tests.faults.fleet import Fleet
from tests.faults.restores import announce_deleted, database_of, publish, stored, until
from tests.faults.scenarios import crash, die_at, fault, kill
from tests.faults.stack import Stack

STEPS: list[Point] = [point for point in get_args(Point) if point.startswith("compactor.")]


@fault
async def compactor_killed_at_a_step(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await stack.compactors[1].take_away()
    try:
        # A series needs many readings before its pieces become a block.
        for step in random.sample(STEPS[:1] + STEPS[6:], 3):
            await die_at(stack.compactors[:1], step, random.randint(1, 2), fleet)
    finally:
        stack.compactors[1].bring_back()


@fault
async def compactors_killed_in_a_loop(stack: Stack, _: Fleet, random: random.Random) -> None:
    for _time in range(12):
        random.choice(stack.compactors).signal(signal.SIGKILL)
        await asyncio.sleep(random.uniform(0.1, 2))
    await asyncio.gather(*(service.ready() for service in stack.compactors))


@fault
async def compactor_stopped_past_its_lease(stack: Stack, _: Fleet, random: random.Random) -> None:
    first, second = random.sample(stack.compactors, 2)
    for stopped in (first, second):
        stopped.signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_S / 2 + random.uniform(LEASE_S / 2, LEASE_S))
        stopped.signal(signal.SIGCONT)
    await asyncio.gather(*(service.ready() for service in stack.compactors))


@fault
async def two_compactors_at_once(stack: Stack, _: Fleet, random: random.Random) -> None:
    def end_lease() -> None:
        with database_of(stack) as database:
            database[BLOCKS].update_one({"_id": STATE}, {"$unset": {"compaction.until": "", "compaction.holder": ""}})

    for _time in range(20):
        await asyncio.to_thread(end_lease)
        await asyncio.sleep(random.uniform(0, 0.6))


@fault
async def sealer_killed_at_a_step(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await stack.persisters[1].take_away()
    try:
        await die_at(stack.persisters[:1], "persister.before_rename", random.randint(1, 2), fleet)
        await die_at(stack.persisters[:1], "persister.renamed", random.randint(1, 2), fleet)
    finally:
        stack.persisters[1].bring_back()
    await stack.persisters[1].ready()


@fault
async def mongod_killed_in_a_merge(stack: Stack, _: Fleet, random: random.Random) -> None:
    for _time in range(3):
        await asyncio.sleep(random.uniform(1, 4))
        await crash(stack.mongodb, random.random())


@fault
async def owner_erased_in_mid_merge(stack: Stack, _: Fleet, random: random.Random) -> None:
    owners = [f"gone-{secrets.token_hex(4)}" for _ in range(3)]
    for owner in owners:
        await publish(stack, owner, readings=30)
        await asyncio.sleep(random.uniform(0, 6))
        if random.random() < 0.5:
            await kill(random.choice(stack.compactors))
        await announce_deleted(stack, owner)

    async def gone() -> bool:
        return sum([await stored(stack, owner) for owner in owners]) == 0

    await until(gone, "the deleted owners are erased from all places")
