"""The command line of `python -m persister`: without a command it stores readings; `erase` is for operators.

Exit codes of `erase`: 0 done; 1 MongoDB is away or did not do it; 2 a wrong command line or environment, or no `--yes`.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec

from persister.app import serve
from persister.maintenance.erase import Erased, erase
from persister.settings import PersisterSettings, ReadingsSettings
from persister.to_mongodb import WriteFailed
from runtime.command_line import CommandParser, service_parser
from runtime.logs import configure_logs, logger
from runtime.mongodb import mongodb_client
from runtime.operators import system_user
from runtime.process import run_service
from runtime.settings import SettingsError, from_env

audit_log = logger("persister.audit")

# One step; the command itself takes as long as it takes.
_STEP_TIMEOUT_S = 30.0
_ERASE = (
    "Erase every reading and series of an owner that is stored by now: for one who returned with an older copy of the "
    "database and whom auth does not announce any more. It does not end an account: new readings of an owner who is "
    "still there are taken and kept. Those that arrive while it runs may be erased or kept."
)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    if args.command is None:
        return run_service(PersisterSettings, serve)
    if wrong := _wrong(args):
        _tell(wrong)
        return 2
    try:
        settings = from_env(ReadingsSettings)
    except SettingsError as error:
        _tell(str(error))
        return 2
    configure_logs(settings.log_level, settings.log_format)
    return _erase(settings, args.owner, as_json=args.json)


def _wrong(args: argparse.Namespace) -> str:
    """Return what stands against the command line."""
    try:
        args.owner.encode()
    except UnicodeEncodeError:
        return "OWNER is not UTF-8."
    if not args.owner or "\0" in args.owner:
        return "OWNER is empty."
    if not args.yes:
        return f"Nothing was erased: this erases all stored readings of {args.owner!r} for ever, and takes --yes."
    return ""


def _erase(settings: ReadingsSettings, owner: str, *, as_json: bool) -> int:
    try:
        erased = asyncio.run(_run(settings, owner))
        _print(erased, as_json=as_json)
        sys.stdout.flush()
    except WriteFailed as error:
        _tell(f"MongoDB did not do it: {error}")
        _tell("What was erased so far stays erased; give the command again.")
        return 1
    except BrokenPipeError:  # whoever reads has seen enough, and it is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _tell("Stopped. What was erased so far stays erased; give the command again.")
        return 1
    return 0


async def _run(settings: ReadingsSettings, owner: str) -> Erased:
    async with mongodb_client(
        settings.readings_url, name="tidegate persister erase", timeout_s=_STEP_TIMEOUT_S
    ) as client:
        erased = await erase(client[settings.readings_database], owner, _tell)
    audit_log.info(
        "An owner's readings were erased.",
        owner=owner,
        readings=erased.readings_deleted,
        left=erased.readings_after,
        by="operator",
        system_user=system_user(),
    )
    return erased


def _print(erased: Erased, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(erased).decode() + "\n")
        return
    sys.stdout.write(
        f"{'':10}{'before':>16}{'after':>16}\n"
        f"{'readings':10}{erased.readings_before:>16,}{erased.readings_after:>16,}\n"
        f"{'series':10}{erased.series_before:>16,}{erased.series_after:>16,}\n"
        f"{erased.readings_deleted:,} readings were erased.\n"
    )
    if erased.readings_after:
        sys.stdout.write("What is there has arrived meanwhile: the owner is not deleted, and new readings are kept.\n")
    else:
        sys.stdout.write("Should the owner not be deleted, new readings are kept.\n")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> CommandParser:
    parser = service_parser(
        "persister",
        "Takes readings from the broker and stores each once in MongoDB, in batches; run as many as you like on one "
        "queue. Erases the readings of deleted owners and what is older than its retention. `erase` is for operators.",
        PersisterSettings,
        epilog="`erase` ends with 0 when it is done, 1 when MongoDB is away or did not do it, 2 when the command line "
        "or a setting is wrong.",
    )
    commands = parser.add_subparsers(dest="command", metavar="{erase}")
    erasing = commands.add_parser(
        "erase",
        help="erase what is stored of an owner",
        description=_ERASE,
        settings=ReadingsSettings,
        allow_abbrev=False,
    )
    erasing.add_argument("owner", metavar="OWNER", help="the owner's id, as auth's audit log has it")
    erasing.add_argument("--yes", action="store_true", help="do it; without this nothing is done")
    erasing.add_argument("--json", action="store_true", help="the counts as one JSON object")
    return parser
