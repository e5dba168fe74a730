"""Faults of those who evaluate and notify, of what they need, and of whom they notify."""

import asyncio
import random
import signal
from typing import get_args

from alarms.evaluation.leader import LEASE_S
from broker.failpoints import Point
from testing.waiting import eventually
from tests.faults.alarms.watching import gauge
from tests.faults.fleet import Fleet
from tests.faults.scenarios import die_at, fault, kill, kill_in_a_loop
from tests.faults.stack import Service, Stack

STEPS: list[Point] = [point for point in get_args(Point) if point.startswith("alarms.")]


async def leader_of(stack: Stack) -> Service:
    """Return the process that evaluates, once there is one."""
    leading: list[Service] = []

    async def one_leads() -> bool:
        leading[:] = [one for one in stack.alarms if await gauge(one, "tidegate_alarms_leading")]
        return len(leading) == 1

    await eventually(one_leads, "one process evaluates")
    return leading[0]


@fault
async def alarms_leader_killed_and_the_next_one(stack: Stack, _: Fleet, random: random.Random) -> None:
    for _time in range(2):
        await asyncio.sleep(random.random())
        await kill(await leader_of(stack))
    await leader_of(stack)


@fault
async def alarms_killed_at_a_step(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    await stack.alarms[1].take_away()
    try:
        for step in random.sample(STEPS, 2):
            await die_at(stack.alarms[:1], step, random.randint(1, 3), fleet)
    finally:
        stack.alarms[1].bring_back()
    await stack.alarms[1].ready()


@fault
async def alarms_killed_in_a_loop(stack: Stack, _: Fleet, random: random.Random) -> None:
    await kill_in_a_loop(stack.alarms, random, 8, 0.5, 3)


@fault
async def alarms_leader_stopped_past_its_lease(stack: Stack, _: Fleet, random: random.Random) -> None:
    stopped = await leader_of(stack)
    stopped.signal(signal.SIGSTOP)
    await asyncio.sleep(LEASE_S + random.uniform(3, 8))
    stopped.signal(signal.SIGCONT)
    await leader_of(stack)


@fault
async def alarms_all_away(stack: Stack, _: Fleet, random: random.Random) -> None:
    await asyncio.gather(*(service.take_away() for service in stack.alarms))
    await asyncio.sleep(random.uniform(4, 8))
    for service in stack.alarms:
        service.bring_back()
    await asyncio.gather(*(service.ready() for service in stack.alarms))


@fault
async def persister_killed_around_an_announcement(stack: Stack, fleet: Fleet, random: random.Random) -> None:
    for step in ("persister.before_announce", "persister.announced"):
        await die_at(stack.persisters, step, random.randint(1, 10), fleet)


@fault
async def receiver_of_webhooks_broken(stack: Stack, _: Fleet, random: random.Random) -> None:
    stack.receiver.is_broken = True
    await asyncio.sleep(random.uniform(8, 14))
    stack.receiver.is_broken = False
