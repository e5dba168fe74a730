"""The faults by name. Each is injected into a cluster that is whole, while the fleet streams."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from pymongo import WriteConcern
from pymongo.errors import PyMongoError

from broker.topology import READINGS
from testing.servers.process import Server
from testing.servers.rabbitmq_cluster import Node
from testing.servers.replica_set import Member
from tests.faults.cluster.stack import QUEUE_NAMES, Cluster, until
from tests.faults.scenarios import crash, freeze

AWAY_S = 40.0
# RabbitMQ notices after 45 to 75 s that nodes are parted (net_ticktime).
PAST_THE_TICK_S = 85.0
# TCP sends what was lost again after ever longer times, and whatever is said over a connection waits for that.
RECOVERS_LATER_BY_S = 10.0
# Each of these waits is twice the one before, so the last one may go on after the partition for as long as that lasted.
# What a node had for a worker beyond the cut, before it knew of it, is stored when that wait is over.
PARTED_S = (20.0, 30.0)
BEHIND_S = 30
ON_THE_MINORITY_SIDE = "its gateway reaches a minority only"


@dataclass(frozen=True)
class Fault:
    """A fault, and what may stand still while it lasts: why, or empty where there is a majority that goes on.

    `recovers_later_by_s`: what the network needs once it is over. `stored_later_by_s`: what it needs besides for what
    was on its way between two nodes.
    """

    run: Callable[[Cluster, random.Random], Awaitable[None]]
    accepting: str
    one_device: str
    storing: str
    recovers_later_by_s: float = 0.0
    stored_later_by_s: float = 0.0


FAULTS: dict[str, Fault] = {}
# What a single server cannot show: the leader, the partition and a primary whose writes are undone.
SHORT = (
    "queue_leader_killed_in_the_middle_of_confirms",
    "gateway_on_the_minority_side",
    "primary_rolled_back",
)
Run = Callable[[Cluster, random.Random], Awaitable[None]]


def fault(
    *,
    accepting: str = "",
    one_device: str = "",
    storing: str = "",
    recovers_later_by_s: float = 0.0,
    stored_later_by_s: float = 0.0,
) -> Callable[[Run], Run]:
    """Add a fault, and the reasons why all devices, one device or all workers may stand still."""

    def add(run: Run) -> Run:
        reasons = (accepting, one_device or accepting, storing)
        FAULTS[run.__name__] = Fault(run, *reasons, recovers_later_by_s, stored_later_by_s)
        return run

    return add


async def leader(cluster: Cluster) -> Node:
    found = await asyncio.to_thread(cluster.rabbitmq.leader, READINGS.name)
    assert found is not None, "the readings' queue has no leader"
    return found


def leads(cluster: Cluster, node: Node) -> bool:
    return cluster.rabbitmq.leader(READINGS.name) is node


async def primary(cluster: Cluster) -> Member:
    found = await asyncio.to_thread(lambda: cluster.mongodb.primary)
    assert found is not None, "there is no primary"
    return found


async def restarted(*servers: Server) -> None:
    """Start these again, at once: the nodes of a cluster may wait for each other."""
    await asyncio.gather(*(asyncio.to_thread(server.restart) for server in servers))


@fault()
async def queue_leader_killed_in_the_middle_of_confirms(cluster: Cluster, random: random.Random) -> None:
    await asyncio.sleep(random.random())
    await crash(await leader(cluster), random.uniform(2, 5))


@fault()
async def queue_leader_moved(cluster: Cluster, random: random.Random) -> None:
    for _time in range(4):
        old = await leader(cluster)
        to = random.choice([node for node in cluster.rabbitmq.nodes if node is not old])
        await asyncio.to_thread(cluster.rabbitmq.move_leaders, QUEUE_NAMES, to)
        await until(partial(leads, cluster, to), "the leader has moved")
        await asyncio.sleep(random.uniform(1, 3))


@fault()
async def rabbitmq_node_paused_and_back(cluster: Cluster, random: random.Random) -> None:
    await freeze(await leader(cluster), random.uniform(22, 26))


async def partition(cluster: Cluster, random: random.Random, seconds: float) -> None:
    """Leave a gateway and a worker with a single node, sometimes the leader of the readings' queue."""
    node = random.choice([await leader(cluster), *cluster.rabbitmq.nodes])
    minority = [node.host, random.choice(cluster.gateways).at, random.choice(cluster.persisters).at]
    cluster.network.cut_off(minority)
    try:
        await asyncio.sleep(seconds)
    finally:
        cluster.network.heal()


@fault(one_device=ON_THE_MINORITY_SIDE, recovers_later_by_s=RECOVERS_LATER_BY_S, stored_later_by_s=PARTED_S[1])
async def gateway_on_the_minority_side(cluster: Cluster, random: random.Random) -> None:
    await partition(cluster, random, random.uniform(*PARTED_S))


@fault(one_device=ON_THE_MINORITY_SIDE, recovers_later_by_s=RECOVERS_LATER_BY_S)
async def partition_past_the_net_tick(cluster: Cluster, random: random.Random) -> None:
    await partition(cluster, random, PAST_THE_TICK_S + random.uniform(0, 10))


@fault(
    accepting="of three RabbitMQ nodes one is left: nothing can be confirmed",
    storing="without accepted readings there is nothing to store",
)
async def rabbitmq_majority_lost_for_40_s(cluster: Cluster, random: random.Random) -> None:
    lost = random.sample(cluster.rabbitmq.nodes, 2)
    await asyncio.gather(*(asyncio.to_thread(node.kill) for node in lost))
    await asyncio.sleep(AWAY_S)
    await restarted(*lost)
    # What follows counts as recovery.
    await until(lambda: cluster.rabbitmq.leader(READINGS.name) is not None, "the readings' queue has a leader")


@fault()
async def rolling_restart_of_all_nodes(cluster: Cluster, random: random.Random) -> None:
    """As an upgrade does it: the next one once all are back, a primary last."""
    for node in random.sample(cluster.rabbitmq.nodes, 3):
        await restarted(node)
        await cluster.rabbitmq_whole()
    last = await primary(cluster)
    for member in [*(member for member in cluster.mongodb.members if member is not last), last]:
        await restarted(member)
        await cluster.mongodb_whole()


@fault()
async def primary_stepped_down(cluster: Cluster, random: random.Random) -> None:
    for _time in range(2):
        await asyncio.to_thread((await primary(cluster)).step_down, 10)
        await asyncio.sleep(random.uniform(1, 4))
        await cluster.mongodb_whole()


@fault()
async def primary_killed(cluster: Cluster, random: random.Random) -> None:
    await asyncio.sleep(random.random())
    await crash(await primary(cluster), random.uniform(12, 18))


@fault(storing="of three members one is left: no write is acknowledged by a majority")
async def mongodb_majority_lost_for_40_s(cluster: Cluster, random: random.Random) -> None:
    lost = random.sample(cluster.mongodb.members, 2)
    await asyncio.gather(*(asyncio.to_thread(member.kill) for member in lost))
    await asyncio.sleep(AWAY_S)
    await restarted(*lost)
    # What follows counts as recovery: an election takes MongoDB some 11 s.
    await until(lambda: cluster.mongodb.primary is not None, "a primary is elected")


@fault(
    storing="both workers are on the side of the primary that has no majority", recovers_later_by_s=RECOVERS_LATER_BY_S
)
async def primary_rolled_back(cluster: Cluster, random: random.Random) -> None:
    """A primary without its majority takes writes for some 10 s, which are undone; workers and RabbitMQ reach it."""
    old = await primary(cluster)
    others = [member for member in cluster.mongodb.members if member is not old]
    mark = {"_id": random.getrandbits(48)}

    def written() -> bool:
        with old.client() as client:
            marks = client["chaos"].get_collection("marks", write_concern=WriteConcern(w=1))
            return bool(marks.insert_one(dict(mark)).acknowledged)

    def undone() -> bool:
        # It closes its connections when it steps down and when it rolls back.
        with suppress(PyMongoError), old.client() as client:
            state: dict[str, Any] = client.admin.command("hello")
            return bool(state["secondary"]) and client["chaos"]["marks"].find_one(mark) is None
        return False

    cluster.network.cut_off([member.host for member in others])
    try:
        assert await asyncio.to_thread(written)
        await until(lambda: cluster.mongodb.primary_among(others) is not None, "the majority has a primary")
        await asyncio.sleep(random.uniform(0, 4))
    finally:
        cluster.network.heal()
    await until(undone, "what the old primary had alone is rolled back")


@fault()
async def one_replica_30_s_behind(cluster: Cluster, random: random.Random) -> None:
    first = await primary(cluster)
    late = random.choice([member for member in cluster.mongodb.members if member is not first])
    await asyncio.to_thread(cluster.mongodb.delay, late, BEHIND_S)
    try:
        await asyncio.sleep(BEHIND_S / 2)
        behind_s = await asyncio.to_thread(behind, first, late)
        assert behind_s > BEHIND_S / 3, f"the replica is only {behind_s:.0f} s behind"
        # The only one that can follow is the other, which has everything that a majority has.
        await asyncio.to_thread(first.step_down, 20)
        await asyncio.sleep(random.uniform(15, 20))
    finally:
        await until(lambda: cluster.mongodb.primary is not None, "there is a primary")
        await asyncio.to_thread(cluster.mongodb.delay, late, 0)


def behind(first: Member, late: Member) -> float:
    """Return by how many seconds a member is behind the primary."""
    at = {one["name"]: one["optimeDate"] for one in first.status()["members"]}
    behind_s: float = (at[first.address] - at[late.address]).total_seconds()
    return behind_s


@fault()
async def mongodb_disk_full_on_the_primary(cluster: Cluster, random: random.Random) -> None:
    full = await primary(cluster)
    disk = cluster.disk_of(full)
    await asyncio.to_thread(disk.fill)
    try:
        # Flush now what is still to be written: a mongod without room ends.
        assert not await asyncio.to_thread(full.fsync), "mongod goes on although its disk is full"
        await asyncio.sleep(random.uniform(12, 16))
    finally:
        disk.empty()
    await restarted(full)


@fault(
    accepting="RabbitMQ blocks publishers at every node while one of them has a disk alarm",
    storing="without accepted readings there is nothing to store",
)
async def rabbitmq_disk_full_on_one_node(cluster: Cluster, random: random.Random) -> None:
    full = await leader(cluster)
    disk = cluster.disk_of(full)
    await asyncio.to_thread(disk.fill)
    try:
        await asyncio.sleep(random.uniform(10, 15))
    finally:
        disk.empty()
    await restarted(full)
