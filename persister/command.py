"""The command line of `python -m persister`: without a command it stores readings, with `compact` it compacts them.

`erase`, `compact --all` and `unseal` are for operators. Their exit codes: 0 done; 1 MongoDB is away or refused, or not
all could be done; 2 an invalid command line or environment, or no `--yes`.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from persister.app import serve
from persister.database_command import print_error, run_on_database
from persister.maintenance.erase import Erased, erase
from persister.settings import CompactSettings, PersisterSettings, ReadingsSettings
from runtime.command_line import SERVICE_EXIT_CODES, CommandParser, service_parser
from runtime.logs import logger
from runtime.operators import system_user
from runtime.process import run_service

audit_log = logger("persister.audit")

_ERASE = (
    "Erase every stored reading and series of an owner: one who came back with an older copy of the database and whom "
    "auth does not announce any more. It does not delete an account: new readings of an owner who still exists are "
    "accepted and kept. Readings that arrive while it runs may be erased or kept."
)


_COMPACT = (
    "Move the readings of sealed collections into blocks, in which they take a fraction of the room, until a signal "
    "ends the process. Several of these processes share the work. With --all: seal what there is, go on until nothing "
    "waits, and end."
)
_UNSEAL = (
    "Put every sealed and compacted reading back into `readings`, one document each, and remove blocks, pieces and "
    "sealed collections: for going back to a version that does not know them. Set SEALING=off for all persisters and "
    "stop `compact` first. It may be interrupted, and is run again then."
)


def main(arguments: Sequence[str]) -> int:
    """Run the command and return the exit code."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    match args.command:
        case None:
            return run_service(PersisterSettings, serve)
        case "erase":
            return _erase_command(args)
        case "compact" if args.json and not args.all:
            print_error("--json goes with --all: without it the process works until a signal ends it.")
            return 2
    # Loads NumPy, which a worker that only stores readings can do without: 0.2 s of CPU at its start.
    from persister.compaction import command  # noqa: PLC0415

    if args.command == "unseal":
        return command.unseal(is_forced=args.force)
    return command.compact(as_json=args.json) if args.all else command.serve()


def _erase_command(args: argparse.Namespace) -> int:
    if error := _argument_error(args):
        print_error(error)
        return 2

    async def work(settings: ReadingsSettings, database: Any) -> Erased:
        erased = await erase(database, args.owner, print_error)
        audit_log.info(
            "An owner's readings were erased.",
            owner=args.owner,
            readings=erased.readings_deleted,
            left=erased.readings_after,
            by="operator",
            system_user=system_user(),
        )
        return erased

    return run_on_database(
        "erase", ReadingsSettings, work, lambda erased: _print(erased, as_json=args.json), done="erased"
    )


def _argument_error(args: argparse.Namespace) -> str:
    """Return why the arguments of `erase` are invalid; an empty string if they are not."""
    try:
        args.owner.encode()
    except UnicodeEncodeError:
        return "OWNER is not UTF-8."
    if not args.owner or "\0" in args.owner:
        return "OWNER is empty."
    if not args.yes:
        return f"Nothing was erased: this permanently erases all stored readings of {args.owner!r} and needs --yes."
    return ""


def _print(erased: Erased, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(msgspec.json.encode(erased).decode() + "\n")
        return 0
    sys.stdout.write(
        f"{'':10}{'before':>16}{'after':>16}\n"
        f"{'readings':10}{erased.readings_before:>16,}{erased.readings_after:>16,}\n"
        f"{'series':10}{erased.series_before:>16,}{erased.series_after:>16,}\n"
        f"{erased.readings_deleted:,} readings were erased.\n"
    )
    if erased.readings_after:
        sys.stdout.write(
            "The readings that remain arrived meanwhile: the owner is not deleted, and new readings are kept.\n"
        )
    else:
        sys.stdout.write("If the owner is not deleted, new readings are kept.\n")
    return 0


def _parser() -> CommandParser:
    parser = service_parser(
        "persister",
        "Takes readings from the broker and stores each once in MongoDB, in batches; any number may share one queue. "
        "Erases the readings of deleted owners and those past their retention. `compact` without --all is a service of "
        "its own; the other commands are for operators.",
        PersisterSettings,
        epilog="`erase`, `compact --all` and `unseal` exit with 0 when they are done, 1 if MongoDB is away or refuses, "
        "or a part could not be done, 2 if the command line or a setting is invalid.",
    )
    commands = parser.add_subparsers(dest="command", metavar="{compact,erase,unseal}")
    _add_compaction(commands)
    erasing = commands.add_parser(
        "erase",
        help="erase the stored readings of an owner",
        description=_ERASE,
        settings=ReadingsSettings,
        allow_abbrev=False,
    )
    erasing.add_argument("owner", metavar="OWNER", help="the owner's id, as in auth's audit log")
    erasing.add_argument("--yes", action="store_true", help="confirm; without this nothing is erased")
    erasing.add_argument("--json", action="store_true", help="print the counts as one JSON object")
    return parser


def _add_compaction(commands: Any) -> None:
    compacting = commands.add_parser(
        "compact",
        help="move sealed readings into blocks",
        description=_COMPACT,
        epilog="With --all the exit code is 0 when it is done, and 1 if MongoDB is away or refuses, or a sealed "
        "collection was given up.",
        settings=CompactSettings,
        exit_codes=SERVICE_EXIT_CODES,
        allow_abbrev=False,
    )
    compacting.add_argument("--all", action="store_true", help="seal, compact until nothing waits, and end")
    compacting.add_argument("--json", action="store_true", help="with --all: print the counts as one JSON object")
    unsealing = commands.add_parser(
        "unseal",
        help="put sealed and compacted readings back",
        description=_UNSEAL,
        settings=CompactSettings,
        allow_abbrev=False,
    )
    unsealing.add_argument("--yes", action="store_true", help="accepted, as earlier versions asked for it")
    unsealing.add_argument("--force", action="store_true", help="also while a persister seals")
