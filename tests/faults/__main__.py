"""`make chaos`: the fleet streams, faults come one after the other, and every reading is accounted for.

Exit code 1 when a reading was lost, stored twice or invented, or a scenario did not come to an end.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

from runtime.logs import configure_logs
from tests.faults.fleet import Fleet
from tests.faults.scenarios import FAULTS
from tests.faults.stack import Stack, running_stack
from tests.faults.verdict import COLUMNS, Verdict, judged

RECOVERS_WITHIN_S = 10.0
GIVES_UP_AFTER_S = 60.0


async def scenario(stack: Stack, fleet: Fleet, name: str, number: int, random: random.Random) -> Verdict:
    """Make one fault, heal it, and account for what was sent meanwhile."""
    verdict = Verdict(name)
    sensor_type = f"{number}-{name}"[:64]
    fleet.begin(sensor_type)
    try:
        await asyncio.sleep(1)
        await FAULTS[name](stack, fleet, random)
        healed = time.monotonic()
        await fleet.accepted_since(healed, GIVES_UP_AFTER_S)
        await fleet.finish(GIVES_UP_AFTER_S)
        verdict.counts = await judged(stack, fleet, sensor_type, GIVES_UP_AFTER_S)
        verdict.recovered_s = time.monotonic() - healed
        refused = [answer for sender in fleet.senders for answer in sender.refused]
        if refused:
            verdict.trouble = f"refused: {refused[0]}"
    except (TimeoutError, AssertionError) as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        verdict.trouble = f"{type(error).__name__}: {error} in {at.name}, line {at.lineno}"
    return verdict


def row(verdict: Verdict) -> str:
    counts = "".join(f"{verdict.counts.get(name, 0):>13}" for name in COLUMNS)
    late = "" if verdict.recovered_s <= RECOVERS_WITHIN_S else f"  LATE (asked {RECOVERS_WITHIN_S:g})"
    return f"{verdict.name:54}{counts}{verdict.recovered_s:>10.1f} s{late}  {verdict.trouble}"


async def run(args: argparse.Namespace) -> int:
    chosen = args.only or list(FAULTS)
    rng = random.Random(args.seed)
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-chaos-") as folder:
        async with running_stack(Path(folder)) as stack, asyncio.TaskGroup() as tasks:
            urls = [gateway.url for gateway in stack.gateways]
            fleet = await Fleet.registered(stack.auth.url, urls, devices=args.devices, seed=args.seed)
            streaming = [tasks.create_task(sender.run()) for sender in fleet.senders]
            print(f"{'':54}" + "".join(f"{name:>13}" for name in COLUMNS) + f"{'recovery':>12}", flush=True)
            until = time.monotonic() + args.minutes * 60
            for number in itertools.count():
                if number % len(chosen) == 0:
                    order = rng.sample(chosen, len(chosen))
                if number and time.monotonic() >= until:
                    break
                verdicts.append(await scenario(stack, fleet, order[number % len(chosen)], number, rng))
                print(row(verdicts[-1]), flush=True)
                if verdicts[-1].trouble:
                    break  # what it left behind would be told of the next one
            for task in streaming:
                task.cancel()
    total = {name: sum(verdict.counts.get(name, 0) for verdict in verdicts) for name in COLUMNS}
    slowest = max(verdict.recovered_s for verdict in verdicts)
    print(
        f"{len(verdicts)} scenarios, seed {args.seed}: " + ", ".join(f"{n} {name}" for name, n in total.items()), end=""
    )
    print(f"; the slowest recovery took {slowest:.1f} s")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long faults are made (default 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the order, the times and the devices (default 1)")
    parser.add_argument("--devices", type=int, default=8, help="how many stream (default 8)")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="this scenario; may be repeated")
    args = parser.parse_args()
    configure_logs("error", "console")
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
