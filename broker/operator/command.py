"""`python -m broker`: declare the queues ahead, and work on dead letters. `BROKER_URL` names the broker.

Exit codes: 0 done; 1 the broker is away or refused, or there is no such letter, or several; 2 the command or BROKER_URL
is wrong.
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
from broker.operator.dead_letter_output import in_full, in_full_json, json_row, table_head, table_row
from broker.operator.dead_letters import REASONS, AmbiguousIdError, Outcome, Progress, Selector, discard, replay, select
from broker.settings import BrokerSettings
from broker.topology import DEAD_LETTERS
from runtime.command_line import CommandParser, number_between, positive_number, whole_number
from runtime.logs import configure_logs
from runtime.settings import SettingsError, from_env

TELL_EVERY_S = 2.0
RETRY_EVERY_S = 1.0
_ENDS = """\
exit codes:
  0  done
  1  the broker is away or refused, or there is no such letter, or several
  2  the command line or BROKER_URL is wrong

signals:
  SIGINT (Ctrl-C)  stops; what was not settled stays in the queue"""


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
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows no UTF-8
    if getattr(args, "run", None) is _discard and not args.yes and not _confirmed():
        _tell("Nothing was discarded.")
        return 1
    try:
        return asyncio.run(_run(args, settings.broker_url))
    except AmbiguousIdError as error:
        _tell(f"{error}:")
        for letter in error.letters:
            _tell(f"  {letter.id}")
    except BrokerError as error:
        _tell(f"The broker did not do it: {error}")
    except BrokenPipeError:  # the reader of a list, say head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        _tell("Stopped. What was not settled stays in the queue.")
    return 1


async def _run(args: argparse.Namespace, url: str) -> int:
    path = url.removeprefix("embedded://")
    if args.command != "declare" and path != url and not Path(path).exists():  # noqa: ASYNC240 - once, at the start
        raise BrokerUnavailable(f"there is no file {path}")
    async with open_broker(url) as broker:
        if args.command == "declare":
            return await _declare(broker, args.wait)
        action: Callable[[Broker, argparse.Namespace, Selector], object] = args.run
        choice = Selector(
            reason=getattr(args, "reason", None),
            device=getattr(args, "device", None),
            limit=getattr(args, "limit", None) or None,
            letter=getattr(args, "letter", None),
        )
        code: int = await action(broker, args, choice)  # type: ignore[misc]
        return code


async def _declare(broker: Broker, wait_s: float) -> int:
    """Declare everything; a broker that is still starting gets `wait_s` seconds."""
    until = time.monotonic() + wait_s
    while True:
        try:
            await broker.declare()
        except BrokerUnavailable:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(RETRY_EVERY_S)
        else:
            _tell("Every exchange and queue is there.")
            return 0


async def _list(broker: Broker, args: argparse.Namespace, choice: Selector) -> int:
    if not args.json:
        _out(table_head())
    shown = 0
    async with broker.browser(DEAD_LETTERS) as browser:
        async for letter in select(browser, choice, _progress()):
            _out(json_row(letter) if args.json else table_row(letter))
            shown += 1
    _tell(f"{shown} dead letters shown.")
    return 0


async def _show(broker: Broker, args: argparse.Namespace, choice: Selector) -> int:
    shown = 0
    async with broker.browser(DEAD_LETTERS) as browser:
        async for letter in select(browser, choice, _progress()):
            shown += 1
            if args.json:
                _out(in_full_json(letter))
            else:
                for line in ("", *in_full(letter)) if shown > 1 else in_full(letter):
                    _out(line)
    return _found(shown, choice)


async def _replay(broker: Broker, args: argparse.Namespace, choice: Selector) -> int:
    outcome = Outcome()
    try:
        await replay(broker, choice, rate=args.rate, force=args.force, progress=_progress(), outcome=outcome)
    finally:
        _tell(f"{outcome.done} dead letters replayed.")
        if outcome.left:
            _tell(f"{outcome.left} left: they do not decode and would only be buried again (--force replays them too).")
    return _found(outcome.done + outcome.left, choice)


def _confirmed() -> bool:
    """Ask a person; a script has nobody to ask and means what it says."""
    if not sys.stdin.isatty():
        return True
    sys.stderr.write("This forgets readings for good. Go on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _discard(broker: Broker, _: argparse.Namespace, choice: Selector) -> int:
    outcome = Outcome()
    try:
        await discard(broker, choice, progress=_progress(), outcome=outcome)
    finally:
        _tell(f"{outcome.done} dead letters discarded.")
    return _found(outcome.done, choice)


def _found(number: int, choice: Selector) -> int:
    """One that was named and is not there is an error; a filter that meets nothing is not."""
    if choice.letter is None or number:
        return 0
    _tell(f"There is no dead letter {choice.letter}.")
    return 1


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m broker",
        description="Declares the exchanges and queues ahead of the services, and works on dead letters: what could "
        "not be stored, with the reason.",
        settings=BrokerSettings,
        exit_codes=_ENDS,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    declare = commands.add_parser("declare", help="declare every exchange and queue, before gateways start")
    declare.add_argument(
        "--wait", type=number_between(0, 86_400), default=30.0, help="seconds to try while it is away (default 30)"
    )
    letters = commands.add_parser("dead-letters", help="list, show, replay or discard what could not be stored")
    actions = letters.add_subparsers(dest="action", required=True)
    listing = _action(actions, "list", _list, "one line a letter")
    show = _action(actions, "show", _show, "letters in full, or one of them")
    again = _action(actions, "replay", _replay, "publish letters to the readings again")
    away = _action(actions, "discard", _discard, "forget letters for good")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    show.add_argument("--json", action="store_true", help="one JSON object a line, with all its bytes")
    again.add_argument("--rate", type=positive_number, default=50.0, help="messages a second at most (default 50)")
    again.add_argument("--force", action="store_true", help="also those that do not decode")
    away.add_argument("--yes", action="store_true", help="do not ask, where a terminal could answer")
    for action in (show, again, away):
        action.add_argument("letter", metavar="ID", nargs="?", help="only this one: 6 or more characters of its id")
    return parser


def _action(
    actions: "argparse._SubParsersAction[CommandParser]", name: str, run: object, about: str
) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(name, help=about)
    action.add_argument("--reason", choices=REASONS, metavar="REASON", help=f"one of {', '.join(REASONS)}")
    action.add_argument("--device", help="those with a reading of this device")
    action.add_argument("--limit", type=whole_number(0), default=0, help="at most so many (default: all)")
    action.set_defaults(run=run)
    return action


def _progress() -> Progress:
    """Tell every two seconds how far a long walk is."""
    told_at = time.monotonic()

    def tell(looked: int, found: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            _tell(f"{looked} looked at, {found} chosen …")

    return tell


def _out(line: str) -> None:
    sys.stdout.write(line + "\n")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
