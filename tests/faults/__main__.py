"""`make chaos`: a fleet streams, faults are injected one after the other, and every reading is accounted for.

Exit code 1 if a reading was lost, stored twice or invented, if a change of an alarm or its notification is missing, is
there twice or without a reason, if a recovery took too long, or if a process used too much memory; 2 if it cannot be
run here, as with `--cluster` where network namespaces are not permitted.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from runtime.command_line import positive_number, whole_number
from runtime.logs import configure_logs
from testing.servers.debian import NotAvailableError
from testing.servers.network import NetworkError
from testing.signals import until_signal
from tests.faults import compaction, endings, restores  # noqa: F401 - importing them adds their faults to FAULTS
from tests.faults.accounting import RESTORES, Injection, account, streaming
from tests.faults.alarms import faults  # noqa: F401 - as above
from tests.faults.alarms.findings import AlarmsVerdict
from tests.faults.alarms.watching import Watching
from tests.faults.answers import compared_with_answers
from tests.faults.clock import NEEDS_A_CLOCK, library
from tests.faults.cluster.faults import FAULTS as CLUSTER_FAULTS
from tests.faults.cluster.run import on_the_cluster
from tests.faults.disk import DISK_BYTES
from tests.faults.fleet import Fleet
from tests.faults.onebox import Onebox
from tests.faults.scenarios import FAULTS, LONG_FAULTS, NEEDS_A_SMALL_DISK
from tests.faults.stack import Stack, running_stack
from tests.faults.verdict import COLUMNS, Stores, Verdict

LARGE_DISK_BYTES = 6 * DISK_BYTES
# The age of the backup is this part of the time asked for, within these bounds; what devices keep is more.
BACKUP_PART, MIN_BACKUP_AGE_S, MAX_BACKUP_AGE_S = 0.05, 5.0, 300.0
NOT_HERE = 2
# What watched devices have stored counts although it is gone.
REMOVES_STORED = RESTORES | {"mongodb_dropped_under_running_workers"}


@dataclass(frozen=True)
class Outcome:
    """What a run proves; where no alarms are watched, or a scenario has failed, nothing is said of them."""

    verdicts: list[Verdict]
    alarms: AlarmsVerdict | None = None

    @property
    def holds(self) -> bool:
        return all(verdict.holds for verdict in self.verdicts) and (self.alarms is None or self.alarms.holds)


def faults_of(
    stack: Stack, fleet: Fleet, watching: Watching, args: argparse.Namespace, rng: random.Random
) -> Iterator[Injection]:
    """Yield faults until the time is over, each as often as the others."""
    select = args.only or list(FAULTS)
    if library() is None and (away := NEEDS_A_CLOCK & set(select)):
        print(f"SKIPPED, libfaketime is not installed: {', '.join(away)}", flush=True)
        select = [name for name in select if name not in away]
    if not stack.disk.small and (away := NEEDS_A_SMALL_DISK & set(select)):
        print(f"SKIPPED, mounting is not permitted: {', '.join(away)}", flush=True)
        select = [name for name in select if name not in away]
    until = time.monotonic() + args.minutes * 60
    first = True
    while True:
        for name in rng.sample(select, len(select)):
            if not first and time.monotonic() >= until:
                return
            first = False
            make = partial((FAULTS | LONG_FAULTS)[name], stack, fleet, rng)
            yield Injection(name, partial(watching.paused, make) if name in REMOVES_STORED else make)


async def on_the_stack(folder: Path, args: argparse.Namespace, rng: random.Random) -> Outcome:
    disk_bytes = LARGE_DISK_BYTES if LONG_FAULTS.keys() & set(args.only or ()) else DISK_BYTES
    async with running_stack(folder, disk_bytes, args.backup_age, args.seed) as stack:
        stores = Stores(stack.mongodb.url, stack.rabbitmq.url)
        urls = [gateway.url for gateway in stack.gateways]
        async with (
            Watching.running(stack, args.seed) as watching,
            streaming(folder, stack.auth.url, urls, stack.front_url, args) as fleet,
        ):
            verdicts = await account(stores, fleet, faults_of(stack, fleet, watching, args, rng), stack.services)
            if any(verdict.failure for verdict in verdicts):  # its end would be blamed for it
                return Outcome(verdicts)
            async with asyncio.TaskGroup() as tasks:
                alarms = tasks.create_task(watching.judged())  # waits for a silence
                if all(verdict.holds for verdict in verdicts):
                    print(await compared_with_answers(stack.auth, stack.reader, stores, fleet), flush=True)
            return Outcome(verdicts, alarms.result())


async def on_a_onebox(folder: Path, args: argparse.Namespace, rng: random.Random) -> Outcome:
    async with (
        Onebox.running(folder / "data") as onebox,
        streaming(folder, onebox.url, [onebox.url], onebox.url, args) as fleet,
    ):
        crashes = itertools.repeat(Injection("onebox_process_group_killed", partial(onebox.crash, rng)), args.onebox)
        return Outcome(await account(Stores(onebox.mongodb_url), fleet, crashes, [onebox]))


async def in_a_cluster(folder: Path, args: argparse.Namespace, rng: random.Random) -> Outcome:
    return Outcome(await on_the_cluster(folder, args, rng))


async def run(args: argparse.Namespace, folder: Path) -> int:
    rng = random.Random(args.seed)
    on_it = on_a_onebox if args.onebox else in_a_cluster if args.cluster else on_the_stack
    outcome = await on_it(folder, args, rng)
    verdicts, alarms = outcome.verdicts, outcome.alarms
    total = {name: sum(verdict.counts.get(name, 0) for verdict in verdicts) for name in COLUMNS}
    slowest = max(verdict.recovered_s for verdict in verdicts)
    counts = ", ".join(f"{n} {name}" for name, n in total.items())
    print(f"{len(verdicts)} scenarios, seed {args.seed}: {counts}; the slowest recovery took {slowest:.1f} s", end="")
    print(f", the largest process had {max(verdict.largest_bytes for verdict in verdicts) / 1e6:.0f} MB")
    if alarms is not None:
        print(*alarms.lines(), sep="\n")
    return 0 if outcome.holds else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--minutes", type=positive_number, default=10.0, help="how long faults are injected (default 10)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the order, the times and the devices (default 1)")
    parser.add_argument("--devices", type=whole_number(1, 1000), default=8, help="number of devices (default 8)")
    parser.add_argument(
        "--library-devices",
        type=whole_number(0, 1000),
        default=3,
        metavar="N",
        help="further devices that use the library (default 3)",
    )
    parser.add_argument(
        "--backup-age",
        type=positive_number,
        metavar="S",
        help="age of the copy from which MongoDB is restored (default: a twentieth of the minutes, from 5 s to 300 s)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted({*FAULTS, *LONG_FAULTS, *CLUSTER_FAULTS}),
        metavar="NAME",
        help="only this scenario of --list; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="show the scenarios, with --cluster those of the clusters")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--cluster", action="store_true", help="instead, three RabbitMQ nodes and three mongods in network namespaces"
    )
    parser.add_argument("--short", action="store_true", help="with --cluster: a few of the scenarios, each once")
    where.add_argument(
        "--onebox", type=whole_number(1), metavar="N", help="instead, kill -9 a onebox's process group N times"
    )
    args = parser.parse_args()
    known = CLUSTER_FAULTS if args.cluster else FAULTS | LONG_FAULTS
    if args.list:
        print(*(f"{name}{' (only by --only)' if name in LONG_FAULTS else ''}" for name in known), sep="\n")
        return 0
    if others := set(args.only or ()) - known.keys():
        parser.error(f"{'without' if not args.cluster else 'with'} --cluster there is no {', '.join(others)}")
    if args.short and not args.cluster:
        parser.error("--short is for --cluster")
    if args.only and args.onebox:
        parser.error("--onebox has one scenario: leave out --only")
    if args.backup_age is None:
        args.backup_age = min(max(args.minutes * 60 * BACKUP_PART, MIN_BACKUP_AGE_S), MAX_BACKUP_AGE_S)
    configure_logs("error", "console")
    try:
        # Outside: a thread that starts a server goes on until the loop has ended, also if its run was cancelled.
        with tempfile.TemporaryDirectory(prefix="tidegate-chaos-") as folder:
            return asyncio.run(until_signal(run(args, Path(folder))))
    except (NetworkError, NotAvailableError) as error:
        print(f"NOT RUN: {error}", flush=True)
        return NOT_HERE


if __name__ == "__main__":
    sys.exit(main())
