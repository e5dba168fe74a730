"""`python -m broker`: declare the queues in advance, and handle dead letters. `BROKER_URL` names the broker.

Exit codes: 0 done; 1 the broker is unreachable or refused, or the ID matches no dead letter or several; 2 the command
line or BROKER_URL is wrong.
"""

import argparse
import asyncio
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from broker.connect import open_broker
from broker.interface import Broker, BrokerError, BrokerUnavailable
from broker.operator.dead_letter_output import full_json, full_lines, json_row, table_head, table_row
from broker.operator.dead_letters import (
    REASONS,
    AmbiguousIdError,
    OperationCounts,
    Progress,
    Selector,
    discard,
    replay,
    select,
)
from broker.settings import BrokerSettings
from broker.topology import DEAD_LETTERS
from runtime.command_line import CommandParser, number_between, positive_number, whole_number
from runtime.logs import configure_logs
from runtime.settings import SettingsError, from_env

PROGRESS_INTERVAL_S = 2.0
RETRY_EVERY_S = 1.0
_ENDS = """\
exit codes:
  0  done
  1  the broker is unreachable or refused, or the ID matches no dead letter or several
  2  the command line or BROKER_URL is wrong

signals:
  SIGINT (Ctrl-C)  stops; unsettled dead letters stay in the queue"""


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(arguments)
    try:
        settings = from_env(BrokerSettings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure_logs("error", "console")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8
    if getattr(args, "run", None) is _discard and not args.yes and not _confirmed():
        _report("Nothing was discarded.")
        return 1
    try:
        return asyncio.run(_run(args, settings.broker_url))
    except AmbiguousIdError as error:
        _report(f"{error}:")
        for dead_letter in error.dead_letters:
            _report(f"  {dead_letter.id}")
    except BrokerError as error:
        _report(f"The broker failed: {error}")
    except BrokenPipeError:  # the reader of a list, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _report("Stopped. Unsettled dead letters stay in the queue.")
    return 1


async def _run(args: argparse.Namespace, url: str) -> int:
    path = url.removeprefix("embedded://")
    if args.command != "declare" and path != url and not Path(path).exists():  # noqa: ASYNC240 - once, at the start
        raise BrokerUnavailable(f"the file {path} does not exist")
    async with open_broker(url) as broker:
        if args.command == "declare":
            return await _declare(broker, args.wait)
        action: Callable[[Broker, argparse.Namespace, Selector], object] = args.run
        selector = Selector(
            reason=getattr(args, "reason", None),
            device=getattr(args, "device", None),
            limit=getattr(args, "limit", None) or None,
            dead_letter=getattr(args, "dead_letter", None),
        )
        code: int = await action(broker, args, selector)  # type: ignore[misc]
        return code


async def _declare(broker: Broker, wait_s: float) -> int:
    """Declare everything; retry for `wait_s` seconds while the broker is still starting."""
    until = time.monotonic() + wait_s
    while True:
        try:
            await broker.declare()
        except BrokerUnavailable:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(RETRY_EVERY_S)
        else:
            _report("All exchanges and queues are declared.")
            return 0


async def _list(broker: Broker, args: argparse.Namespace, selector: Selector) -> int:
    if not args.json:
        _print(table_head())
    shown = 0
    async with broker.browser(DEAD_LETTERS) as browser:
        async for dead_letter in select(browser, selector, _progress()):
            _print(json_row(dead_letter) if args.json else table_row(dead_letter))
            shown += 1
    _report(f"{shown} dead letters shown.")
    return 0


async def _show(broker: Broker, args: argparse.Namespace, selector: Selector) -> int:
    shown = 0
    async with broker.browser(DEAD_LETTERS) as browser:
        async for dead_letter in select(browser, selector, _progress()):
            shown += 1
            if args.json:
                _print(full_json(dead_letter))
            else:
                for line in ("", *full_lines(dead_letter)) if shown > 1 else full_lines(dead_letter):
                    _print(line)
    return _found(shown, selector)


async def _replay(broker: Broker, args: argparse.Namespace, selector: Selector) -> int:
    counts = OperationCounts()
    try:
        await replay(broker, selector, rate=args.rate, force=args.force, progress=_progress(), counts=counts)
    finally:
        _report(f"{counts.done} dead letters replayed.")
        if counts.skipped:
            _report(
                f"{counts.skipped} skipped: they do not decode and would only be dead-lettered again "
                "(--force replays them too)."
            )
    return _found(counts.done + counts.skipped, selector)


def _confirmed() -> bool:
    """Ask for confirmation on a terminal; return True without one, as in a script."""
    if not sys.stdin.isatty():
        return True
    sys.stderr.write("This deletes readings for good. Continue? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _discard(broker: Broker, _: argparse.Namespace, selector: Selector) -> int:
    counts = OperationCounts()
    try:
        await discard(broker, selector, progress=_progress(), counts=counts)
    finally:
        _report(f"{counts.done} dead letters discarded.")
    return _found(counts.done, selector)


def _found(number: int, selector: Selector) -> int:
    """Return the exit code: an ID that matches nothing is an error, a filter that matches nothing is not."""
    if selector.dead_letter is None or number:
        return 0
    _report(f"There is no dead letter {selector.dead_letter}.")
    return 1


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m broker",
        description="Declares the exchanges and queues in advance, and handles dead letters: messages that could not "
        "be stored, each with the reason.",
        settings=BrokerSettings,
        exit_codes=_ENDS,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    declare = commands.add_parser("declare", help="declare every exchange and queue, before gateways start")
    declare.add_argument(
        "--wait",
        type=number_between(0, 86_400),
        default=30.0,
        help="seconds to retry while it is unreachable (default 30)",
    )
    dead_letters = commands.add_parser(
        "dead-letters", help="list, show, replay or discard messages that could not be stored"
    )
    actions = dead_letters.add_subparsers(dest="action", required=True)
    listing = _action(actions, "list", _list, "one line per dead letter")
    show = _action(actions, "show", _show, "dead letters in full, or one of them")
    replaying = _action(actions, "replay", _replay, "publish dead letters again, to be stored")
    discarding = _action(actions, "discard", _discard, "delete dead letters for good")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    show.add_argument("--json", action="store_true", help="one JSON object per line, with all bytes")
    replaying.add_argument(
        "--rate", type=positive_number, default=50.0, help="at most this many messages per second (default 50)"
    )
    replaying.add_argument("--force", action="store_true", help="replay also those that do not decode")
    discarding.add_argument("--yes", action="store_true", help="do not ask for confirmation on a terminal")
    for action in (show, replaying, discarding):
        action.add_argument(
            "dead_letter", metavar="ID", nargs="?", help="only this one: the first 6 or more characters of its id"
        )
    return parser


def _action(
    actions: "argparse._SubParsersAction[CommandParser]", name: str, run: object, about: str
) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=about)
    action.add_argument("--reason", choices=REASONS, metavar="REASON", help=f"one of {', '.join(REASONS)}")
    action.add_argument("--device", help="only those with a reading of this device")
    action.add_argument("--limit", type=whole_number(0), default=0, help="at most this many (default: all)")
    action.set_defaults(run=run)
    return action


def _progress() -> Progress:
    """Return a callback that reports the progress of a long pass every two seconds."""
    reported_at = time.monotonic()

    def report(visited: int, found: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= PROGRESS_INTERVAL_S:
            reported_at = time.monotonic()
            _report(f"{visited} visited, {found} selected …")

    return report


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _report(line: str) -> None:
    sys.stderr.write(line + "\n")
