"""Injects the faults into a cluster, and judges what went on meanwhile besides every reading."""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from subprocess import SubprocessError

from pymongo.errors import PyMongoError

from testing.servers.debian import newest_rabbitmq_root
from testing.servers.network import Network
from testing.servers.process import ServerError
from tests.faults.accounting import Injection, account, streaming
from tests.faults.answers import compared_with_answers
from tests.faults.cluster.faults import FAULTS, SHORT
from tests.faults.cluster.stack import Cluster, running_cluster
from tests.faults.cluster.standstill import Standstill
from tests.faults.fleet import Fleet
from tests.faults.verdict import Stores, Verdict

# Where there is a majority, something is accepted and stored again after this time: a primary is missed after 10 s.
ACCEPTS_WITHIN_S = 15.0
ONE_DEVICE_WITHIN_S = 20.0
STORES_WITHIN_S = 30.0


async def on_the_cluster(folder: Path, args: argparse.Namespace, rng: random.Random) -> list[Verdict]:
    """Run the whole; NetworkError or NotAvailableError where that cannot be."""
    rabbitmq = newest_rabbitmq_root()  # may download it, which cannot be done inside the network
    network = Network()
    async with running_cluster(folder, network, rabbitmq) as cluster:
        print(await asyncio.to_thread(versions, cluster), flush=True)
        stores = Stores(cluster.mongodb.url, cluster.rabbitmq.url)
        urls = [gateway.url for gateway in cluster.gateways]
        async with streaming(folder, cluster.auth.url, urls, cluster.front_url, args) as fleet:
            verdicts = await account(stores, fleet, faults_of(cluster, fleet, args, rng), cluster.services)
            if all(verdict.holds for verdict in verdicts):
                await cluster.whole()
                print(await compared_with_answers(cluster.auth, cluster.reader, stores, fleet), flush=True)
            return verdicts


def versions(cluster: Cluster) -> str:
    """Return what runs, in a line."""
    with cluster.mongodb.members[0].client() as client:
        mongodb = client.server_info()["version"]
    rabbitmq = cluster.rabbitmq.nodes[0].version
    return f"3 nodes of RabbitMQ {rabbitmq}, 3 members of MongoDB {mongodb}, 2 gateways, 2 workers"


def faults_of(cluster: Cluster, fleet: Fleet, args: argparse.Namespace, rng: random.Random) -> Iterator[Injection]:
    """Yield faults until the time is over, each as often as the others; with `--short`, a few of them once."""
    select = args.only or list(SHORT if args.short else FAULTS)
    until = time.monotonic() + args.minutes * 60
    while True:
        for name in rng.sample(select, len(select)):
            if not args.short and time.monotonic() >= until:
                return
            fault = FAULTS[name]
            make = partial(injected, name, cluster, fleet, rng)
            yield Injection(name, make, fault.recovers_later_by_s, fault.stored_later_by_s)
        if args.short:
            return


async def injected(name: str, cluster: Cluster, fleet: Fleet, rng: random.Random) -> str:
    """Inject a fault; return what stood still, AssertionError if something did that had a majority."""
    fault = FAULTS[name]
    await cluster.whole()
    still = Standstill()
    watching = asyncio.create_task(still.watch(fleet, cluster.persisters))
    try:
        await fault.run(cluster, rng)
    except (ServerError, SubprocessError, PyMongoError, OSError) as error:
        raise AssertionError(f"the fault could not be injected: {error}") from error
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    times = f"at most {still.accepting_s:.0f} s without accepted, {still.one_device_s:.0f} s for one device"
    note = [f"{times}, {still.storing_s:.0f} s without stored"]
    for what, seconds, bound, why in (
        ("accepting", still.accepting_s, ACCEPTS_WITHIN_S, fault.accepting),
        ("one device", still.one_device_s, ONE_DEVICE_WITHIN_S, fault.one_device),
        ("storing", still.storing_s, STORES_WITHIN_S, fault.storing),
    ):
        assert why or seconds <= bound, f"{what} stood still for {seconds:.0f} s although a majority was there"
        if why and why not in note[-1]:
            note.append(f"{what} may stand still: {why}")
    return "; ".join(note)
