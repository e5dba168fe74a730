"""`make soak`: a fleet for hours on real servers, what grows meanwhile, and an account of every reading.

Exit code 1 if a reading was lost, stored twice or invented, if a process crashed, or if something grows that should
not. SIGINT ends the run early, with a verdict over what was run.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from runtime.command_line import number_between, positive_number, whole_number
from runtime.logs import configure_logs
from runtime.process import raise_fd_limit
from tests.soak.overload import DEVICES as OVERLOADING
from tests.soak.overload import overload
from tests.soak.run import Plan, soak

HALF_HOUR_S = 1800.0
DEVICES = 1000
MAX_DEVICES, MAX_SETTLE = 100_000, 10_000.0


def plan_of(args: argparse.Namespace) -> Plan:
    """Return what the command line asks for."""
    default_hours = 10 / 60 if args.overload else 2.0
    hours = args.minutes / 60 if args.minutes is not None else args.hours or default_hours
    folder = args.resume or args.dir or Path("data") / "soak" / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=args.resume is not None)
    seconds = hours * 3600
    settle_s = min(HALF_HOUR_S, seconds / 2) if args.settle is None else args.settle * 60
    devices = args.devices or (OVERLOADING if args.overload else DEVICES)
    return Plan(folder.resolve(), seconds, devices, settle_s, args.seed)


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    length, where = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=positive_number, help="how long (default 2)")
    length.add_argument("--minutes", type=positive_number, help="the same in minutes (overload: 10)")
    parser.add_argument(
        "--devices", type=whole_number(1, MAX_DEVICES), help="number of devices (default 1000; overload: 200)"
    )
    parser.add_argument(
        "--settle",
        type=number_between(0, MAX_SETTLE),
        metavar="MINUTES",
        help="left out of slopes (default 30, at most half)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of what the devices do (default 1)")
    where.add_argument("--dir", type=Path, help="new folder for data, samples, plot and verdict (default data/soak/…)")
    where.add_argument("--resume", type=Path, metavar="DIR", help="go on with the data of an earlier run")
    parser.add_argument("--overload", action="store_true", help="instead: twice what this machine can take, then half")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    args = parser.parse_args(arguments)
    if args.resume is not None and not (args.resume / "stack.json").exists():
        parser.error(f"{args.resume} has no data of an earlier run")
    if args.dir is not None and args.dir.exists():
        parser.error(f"{args.dir} exists already; --resume goes on with it")
    return args


async def run(args: argparse.Namespace) -> int:
    """Run it, print the verdict, return the exit code."""
    ended, plan = asyncio.Event(), plan_of(args)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)

    def tell(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    verdict = await (overload if args.overload else soak)(plan, ended, tell)
    tell(verdict.text())
    if args.json:
        print(json.dumps(verdict.json()))
    return 0 if verdict.holds else 1


def main() -> int:
    """Run the command."""
    args = parsed()
    raise_fd_limit()
    configure_logs("error", "console")
    return asyncio.run(run(args))


if __name__ == "__main__":
    sys.exit(main())
