"""Runs faults one after the other while a fleet streams, and accounts for every reading."""

import argparse
import asyncio
import random
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tests.faults.fleet import Fleet
from tests.faults.library_fleet import LibraryFleet
from tests.faults.onebox import Onebox
from tests.faults.stack import Service
from tests.faults.verdict import (
    COLUMNS,
    MAX_BYTES,
    Stores,
    Verdict,
    judged,
    judged_library,
    largest_bytes,
    until_stored,
)

GIVES_UP_AFTER_S = 60.0
KEEP_MORE_S = 30.0
# The faults after which stored readings are missing until devices have sent them again.
RESTORES = {"mongodb_restored_from_an_older_copy"}
Process = Service | Onebox
# Injects a fault, and returns once it is over: what is to be said of it, if anything.
Make = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True)
class Injection:
    """A fault to inject now, and by how much longer than after others the recovery from it may take.

    `stored_later_by_s`: and by how much longer still it may take to store what was accepted.
    """

    name: str
    make: Make
    recovers_later_by_s: float = 0.0
    stored_later_by_s: float = 0.0


async def scenario(stores: Stores, fleet: Fleet, fault: Injection, number: int) -> Verdict:
    """Inject one fault, wait until it is over, and account for what was sent meanwhile."""
    verdict = Verdict(fault.name)
    verdict.recovers_within_s += fault.recovers_later_by_s
    verdict.stored_later_by_s = fault.stored_later_by_s
    sensor_type = f"{number}-{fault.name}"[:64]
    fleet.begin(sensor_type)
    library_type = f"library-{sensor_type}"[:64]
    fleet.library.begin(library_type)
    try:
        await asyncio.sleep(1)
        await fleet.library.all_send(GIVES_UP_AFTER_S)
        verdict.note = await fault.make() or ""
        healed = time.monotonic()
        await fleet.accepted_since(healed, GIVES_UP_AFTER_S)
        await fleet.finish(GIVES_UP_AFTER_S)
        verdict.accepted_s = time.monotonic() - healed
        await until_stored(stores, fleet, sensor_type, GIVES_UP_AFTER_S)
        verdict.recovered_s = time.monotonic() - healed
        verdict.counts, verdict.lost = await judged(stores, fleet, sensor_type)
        await fleet.library.finish(GIVES_UP_AFTER_S)
        within_s = 1.5 * fleet.library.keep_stored_s + GIVES_UP_AFTER_S if fault.name in RESTORES else 0.0
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
    asked = f"accepted within {verdict.recovers_within_s:g} s, stored {verdict.stored_later_by_s:g} s later"
    late = f"  LATE (accepted after {verdict.accepted_s:.1f} s; asked: {asked})" if verdict.late else ""
    large = f"  LARGE (asked {MAX_BYTES / 1e6:g})" if verdict.large else ""
    times = f"{verdict.recovered_s:>10.1f} s{verdict.largest_bytes / 1e6:>8.0f} MB"
    return f"{verdict.name:54}{counts}{times}{late}{large}  {verdict.note}  {verdict.failure}".rstrip()


def lost_lines(verdict: Verdict) -> list[str]:
    """Return which readings are lost: a line for each device."""
    made = []
    for device, group in groupby(sorted(verdict.lost), key=lambda identity: identity[:3]):
        keys = [f"{ts}/{seq}" for *_, ts, seq in group]
        made.append(f"  LOST of {' '.join(device)}, ts/seq: {' '.join(keys)}")
    return made


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
    print(f"readings for {keep_stored_s:g} s more", end="")
    print("" if args.cluster else f", as MongoDB is restored from a copy {args.backup_age:g} s old", flush=True)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(sender.run()) for sender in fleet.senders]
        running += [tasks.create_task(device.run()) for device in fleet.library.devices]
        running.append(tasks.create_task(fleet.library.kill_at_random(random.Random(args.seed))))
        yield fleet
        for task in running:
            task.cancel()


async def account(
    stores: Stores, fleet: Fleet, faults: Iterator[Injection], processes: Sequence[Process]
) -> list[Verdict]:
    """Inject the faults and print each result. A failed one is the last: the next would be blamed for it."""
    verdicts: list[Verdict] = []
    print(f"{'':54}" + "".join(f"{name:>13}" for name in COLUMNS) + f"{'recovery':>12}{'memory':>11}", flush=True)
    for number, fault in enumerate(faults):
        verdicts.append(await scenario(stores, fleet, fault, number))
        verdicts[-1].largest_bytes = largest_bytes(process.pid for process in processes)
        for crash in (crash for process in processes for crash in process.crashes):
            verdicts[-1].failure = crash
        print(row(verdicts[-1]), *lost_lines(verdicts[-1]), sep="\n", flush=True)
        if verdicts[-1].failure:
            break
    return verdicts
