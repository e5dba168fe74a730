"""Faults of those who seal and compact. Both go on, every few seconds, during all other faults, too."""

import asyncio
import random
import secrets
import signal
import time
from typing import get_args

from bench.preload import OWNER as PRELOADED_OWNER
from bench.preload import Preloader
from broker.failpoints import Point
from persister.compaction.lease import LEASE_S
from persister.sealing.sealer import LEASE_S as SEALING_LEASE_S
from readings.collections import READINGS
from storage.places.names import BLOCKS, sealed_name
from storage.places.state import STATE
from tests.faults.fleet import Fleet
from tests.faults.restores import announce_deleted, database_of, publish, stored, until
from tests.faults.scenarios import crash, die_at, fault, kill, kill_in_a_loop, long_fault
from tests.faults.stack import DIES_WITHIN_S, Stack

FIRST_SEAL_READINGS = 20_000_000
FIRST_SEAL_WITHIN_S = 900.0
KILLED_EVERY_S = 30.0
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
    await kill_in_a_loop(stack.compactors, random, 12, 0.1, 2)


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
    for _time in range(20):
        await asyncio.to_thread(_change_state, stack, {"$unset": {"compaction.until": "", "compaction.holder": ""}})
        await asyncio.sleep(random.uniform(0, 0.6))


@fault
async def sealer_killed_at_a_step(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    # A sealer that was killed still has the lease, and so may one that an earlier fault has killed.
    within_s = SEALING_LEASE_S + DIES_WITHIN_S
    steps: tuple[Point, ...] = ("persister.before_rename", "persister.renamed")
    await stack.persisters[1].take_away()
    try:
        for step in steps:
            await asyncio.to_thread(_change_state, stack, {"$unset": {"sealing.until": ""}})
            await die_at(stack.persisters[:1], step, random.randint(1, 2), fleet, within_s)
    finally:
        stack.persisters[1].bring_back()
    await stack.persisters[1].ready()


def _change_state(stack: Stack, change: dict[str, dict[str, str]]) -> None:
    with database_of(stack) as database:
        database[BLOCKS].update_one({"_id": STATE}, change)


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


@long_fault
async def first_seal_of_20_million_killed_every_30_s(stack: Stack, _: Fleet, random: random.Random) -> None:
    """An installation that stored for years is upgraded: its first sealed collection is everything it has."""
    await asyncio.gather(*(persister.take_away() for persister in stack.persisters))
    try:
        await asyncio.to_thread(_fill, stack)
    finally:
        for persister in stack.persisters:
            persister.bring_back()
    await asyncio.gather(*(persister.ready() for persister in stack.persisters))
    number = await _number_of_the_large_one(stack)
    deadline = time.monotonic() + FIRST_SEAL_WITHIN_S
    kills = 0
    while await asyncio.to_thread(_waits, stack, number):
        assert time.monotonic() < deadline, f"not compacted within {FIRST_SEAL_WITHIN_S:g} s, {kills} times killed"
        await asyncio.sleep(KILLED_EVERY_S)
        await asyncio.gather(*(kill(compactor) for compactor in stack.compactors))
        kills += 1
    assert kills > 1, "it was compacted before it was killed"
    found = await stored(stack, PRELOADED_OWNER)
    assert found == FIRST_SEAL_READINGS, f"{found:,} of {FIRST_SEAL_READINGS:,} readings are stored"


def _fill(stack: Stack) -> None:
    with database_of(stack) as database:
        Preloader(database[READINGS], stack.disk.folder).fill(FIRST_SEAL_READINGS)


async def _number_of_the_large_one(stack: Stack) -> int:
    """Return the seal number of the collection that has nearly everything, once it is sealed."""
    large: list[int] = []

    def look() -> None:
        with database_of(stack) as database:
            state = database[BLOCKS].find_one({"_id": STATE}) or {}
            waiting = [one["number"] for one in state.get("waiting", ())]
            large.extend(
                number
                for number in waiting
                if database[sealed_name(number)].estimated_document_count() >= FIRST_SEAL_READINGS
            )

    async def is_sealed() -> bool:
        await asyncio.to_thread(look)
        return bool(large)

    await until(is_sealed, "the collection of 20 million readings is sealed")
    return large[0]


def _waits(stack: Stack, number: int) -> bool:
    with database_of(stack) as database:
        return database[BLOCKS].find_one({"_id": STATE, "waiting.number": number}) is not None
