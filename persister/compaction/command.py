"""The commands `compact` and `unseal` of `python -m persister`."""

import sys
from functools import partial
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from persister.compaction.compact_all import Compacted, compact_all
from persister.compaction.compactor import Compactor
from persister.compaction.metrics import CompactorMetrics
from persister.compaction.service import SealNow
from persister.compaction.unseal import Unsealed, UnsealRefusedError, unseal_all
from persister.database_command import print_error, run_on_database
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from persister.settings import CompactSettings
from runtime.command_line import SERVICE_EXIT_CODES
from runtime.logs import logger
from runtime.operators import system_user

audit_log = logger("persister.audit")

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


def add_commands(commands: Any) -> None:
    """Add `compact` and `unseal` to the commands of a parser."""
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
    unsealing.add_argument("--yes", action="store_true", help="confirm; without this nothing is done")
    unsealing.add_argument("--force", action="store_true", help="also while a persister seals")


def compact(*, as_json: bool) -> int:
    """Run `compact --all` and return the exit code."""

    async def work(settings: CompactSettings, database: Any) -> Compacted:
        metrics = CompactorMetrics(CollectorRegistry())
        compactor = Compactor(database, metrics, cores=settings.compact_cores)
        return await compact_all(compactor, sealing(settings, database), print_error)

    return run_on_database("compact", CompactSettings, work, lambda done: _print_compacted(done, as_json=as_json))


def sealing(settings: CompactSettings, database: Any) -> SealNow:
    """Return what seals `readings` at once, whatever its size."""
    sealer = Sealer(
        database,
        clustered=settings.readings_clustered,
        seal_readings=0,
        seal_seconds=0,
        metrics=SealingMetrics(CollectorRegistry()),
    )
    return partial(sealer.seal, force=True)


def unseal(*, is_confirmed: bool, is_forced: bool) -> int:
    """Run `unseal` and return the exit code."""
    if not is_confirmed:
        print_error("Nothing was done: this rewrites every stored reading and needs --yes.")
        return 2

    async def work(settings: CompactSettings, database: Any) -> Unsealed:
        done = await unseal_all(database, print_error, clustered=settings.readings_clustered, is_forced=is_forced)
        audit_log.info("Readings were put back.", readings=done.readings, by="operator", system_user=system_user())
        return done

    try:
        return run_on_database("unseal", CompactSettings, work, _print_unsealed)
    except UnsealRefusedError as error:
        print_error(f"Nothing was done: {error}")
        return 1


def _print_compacted(done: Compacted, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
    else:
        sys.stdout.write(
            f"{done.readings:,} readings of {done.collections} sealed collections were compacted in {done.seconds:.1f} "
            f"s: {done.blocks:,} blocks and {done.pieces:,} pieces were written, {done.bytes_written:,} bytes of "
            f"columns; {done.repeats:,} readings were repeats.\n"
        )
    if done.left:
        print_error(f"These failed three times and stay where they are, readable: {', '.join(map(str, done.left))}")
    return 1 if done.left else 0


def _print_unsealed(done: Unsealed) -> int:
    sys.stdout.write(
        f"{done.readings:,} readings are back in `readings`; {done.collections} collections were removed.\n"
    )
    return 0
