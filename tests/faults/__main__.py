"""`make chaos`: a fleet streams, faults are injected one after the other, and every reading is accounted for.

Exit code 1 if a reading was lost, stored twice or invented, if a recovery took too long, or if a process used too much
memory.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from runtime.logs import configure_logs
from tests.faults import compaction, endings, restores  # noqa: F401 - importing them adds their faults to FAULTS
from tests.faults.answers import compared_with_answers
from tests.faults.clock import NEEDS_A_CLOCK, library
from tests.faults.disk import DISK_BYTES
from tests.faults.fleet import Fleet
from tests.faults.library_fleet import LibraryFleet
from tests.faults.onebox import Onebox
from tests.faults.scenarios import FAULTS, LONG_FAULTS, NEEDS_A_SMALL_DISK
from tests.faults.stack import Service, Stack, running_stack
from tests.faults.verdict import (
    COLUMNS,
    MAX_BYTES,
    RECOVERS_WITHIN_S,
    Stores,
    Verdict,
    judged,
    judged_library,
    largest_bytes,
)

GIVES_UP_AFTER_S = 60.0
LARGE_DISK_BYTES = 6 * DISK_BYTES
# The age of the backup is this part of the time asked for, within these bounds; what devices keep is more.
BACKUP_PART, MIN_BACKUP_AGE_S, MAX_BACKUP_AGE_S = 0.05, 5.0, 300.0
KEEP_MORE_S = 30.0
# The faults after which stored readings are missing until devices have sent them again.
RESTORES = {"mongodb_restored_from_an_older_copy"}
Process = Service | Onebox
Make = Callable[[], Awaitable[None]]


async def scenario(stores: Stores, fleet: Fleet, name: str, number: int, make: Make) -> Verdict:
    """Inject one fault, wait until it is over, and account for what was sent meanwhile."""
    verdict = Verdict(name)
    sensor_type = f"{number}-{name}"[:64]
    fleet.begin(sensor_type)
    library_type = f"library-{sensor_type}"[:64]
    fleet.library.begin(library_type)
    try:
        await asyncio.sleep(1)
        await fleet.library.all_send(GIVES_UP_AFTER_S)
        await make()
        healed = time.monotonic()
        await fleet.accepted_since(healed, GIVES_UP_AFTER_S)
        await fleet.finish(GIVES_UP_AFTER_S)
        verdict.counts = await judged(stores, fleet, sensor_type, GIVES_UP_AFTER_S)
        verdict.recovered_s = time.monotonic() - healed
        await fleet.library.finish(GIVES_UP_AFTER_S)
        within_s = 1.5 * fleet.library.keep_stored_s + GIVES_UP_AFTER_S if name in RESTORES else 0.0
        for column, count in (await judged_library(stores, fleet.library, library_type, within_s)).items():
            verdict.counts[column] += count
        refused = [answer for sender in fleet.senders for answer in sender.refused]
        if refused:
            verdict.failure = f"refused: {refused[0]}"
    except (TimeoutError, AssertionError) as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        verdict.failure = f"{type(error).__name__}: {error} in {at.name}, line {at.lineno}"
    return verdict


def row(verdict: Verdict) -> str:
    counts = "".join(f"{verdict.counts.get(name, 0):>13}" for name in COLUMNS)
    late = f"  LATE (asked {RECOVERS_WITHIN_S:g})" if verdict.late else ""
    large = f"  LARGE (asked {MAX_BYTES / 1e6:g})" if verdict.large else ""
    times = f"{verdict.recovered_s:>10.1f} s{verdict.largest_bytes / 1e6:>8.0f} MB"
    return f"{verdict.name:54}{counts}{times}{late}{large}  {verdict.failure}"


def faults_of(stack: Stack, fleet: Fleet, args: argparse.Namespace, rng: random.Random) -> Iterator[tuple[str, Make]]:
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
            yield name, partial((FAULTS | LONG_FAULTS)[name], stack, fleet, rng)


@asynccontextmanager
async def streaming(
    folder: Path, auth_url: str, urls: list[str], front_url: str, args: argparse.Namespace
) -> AsyncIterator[Fleet]:
    fleet = await Fleet.registered(auth_url, urls, devices=args.devices, seed=args.seed)
    keep_stored_s = min(2 * args.backup_age + KEEP_MORE_S, 600)
    fleet.library = await LibraryFleet.registered(
        auth_url, front_url, folder, devices=args.library_devices, keep_stored_s=keep_stored_s
    )
    print(
        f"{args.library_devices} more devices use the library: killed at random, they free on receipts alone and keep"
    )
    print(
        f"readings for {keep_stored_s:g} s more, as MongoDB is restored from a copy {args.backup_age:g} s old",
        flush=True,
    )
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(sender.run()) for sender in fleet.senders]
        running += [tasks.create_task(device.run()) for device in fleet.library.devices]
        running.append(tasks.create_task(fleet.library.kill_at_random(random.Random(args.seed))))
        yield fleet
        for task in running:
            task.cancel()


async def account(
    stores: Stores, fleet: Fleet, faults: Iterator[tuple[str, Make]], processes: Sequence[Process]
) -> list[Verdict]:
    """Inject the faults and print each result. A failed one is the last: the next would be blamed for it."""
    verdicts: list[Verdict] = []
    print(f"{'':54}" + "".join(f"{name:>13}" for name in COLUMNS) + f"{'recovery':>12}{'memory':>11}", flush=True)
    for number, (name, make) in enumerate(faults):
        verdicts.append(await scenario(stores, fleet, name, number, make))
        verdicts[-1].largest_bytes = largest_bytes(process.pid for process in processes)
        for crash in (crash for process in processes for crash in process.crashes):
            verdicts[-1].failure = crash
        print(row(verdicts[-1]), flush=True)
        if verdicts[-1].failure:
            break
    return verdicts


async def on_the_stack(folder: Path, args: argparse.Namespace, rng: random.Random) -> list[Verdict]:
    disk_bytes = LARGE_DISK_BYTES if LONG_FAULTS.keys() & set(args.only or ()) else DISK_BYTES
    async with running_stack(folder, disk_bytes, args.backup_age) as stack:
        stores = Stores(stack.mongodb.url, stack.rabbitmq.url)
        urls = [gateway.url for gateway in stack.gateways]
        async with streaming(folder, stack.auth.url, urls, stack.front_url, args) as fleet:
            verdicts = await account(stores, fleet, faults_of(stack, fleet, args, rng), stack.services)
            if all(verdict.holds for verdict in verdicts):
                print(await compared_with_answers(stack, stores, fleet), flush=True)
            return verdicts


async def on_a_onebox(folder: Path, args: argparse.Namespace, rng: random.Random) -> list[Verdict]:
    async with (
        Onebox.running(folder / "data") as onebox,
        streaming(folder, onebox.url, [onebox.url], onebox.url, args) as fleet,
    ):
        crashes = itertools.repeat(("onebox_process_group_killed", partial(onebox.crash, rng)), args.onebox)
        return await account(Stores(onebox.mongodb_url), fleet, crashes, [onebox])


async def run(args: argparse.Namespace) -> int:
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="tidegate-chaos-") as folder:
        verdicts = await (on_a_onebox if args.onebox else on_the_stack)(Path(folder), args, rng)
    total = {name: sum(verdict.counts.get(name, 0) for verdict in verdicts) for name in COLUMNS}
    slowest = max(verdict.recovered_s for verdict in verdicts)
    counts = ", ".join(f"{n} {name}" for name, n in total.items())
    print(f"{len(verdicts)} scenarios, seed {args.seed}: {counts}; the slowest recovery took {slowest:.1f} s", end="")
    print(f", the largest process had {max(verdict.largest_bytes for verdict in verdicts) / 1e6:.0f} MB")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long faults are injected (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the order, the times and the devices (default 1)")
    parser.add_argument("--devices", type=int, default=8, help="number of devices (default 8)")
    parser.add_argument(
        "--library-devices", type=int, default=3, metavar="N", help="further devices that use the library (default 3)"
    )
    parser.add_argument(
        "--backup-age",
        type=float,
        metavar="S",
        help="age of the copy from which MongoDB is restored (default: a twentieth of the minutes, from 5 s to 300 s)",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(FAULTS | LONG_FAULTS),
        help=f"only this scenario; may be repeated. Only so: {', '.join(sorted(LONG_FAULTS))}",
    )
    parser.add_argument("--onebox", type=int, metavar="N", help="instead, kill -9 a onebox's process group N times")
    args = parser.parse_args()
    if args.backup_age is None:
        args.backup_age = min(max(args.minutes * 60 * BACKUP_PART, MIN_BACKUP_AGE_S), MAX_BACKUP_AGE_S)
    configure_logs("error", "console")
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
