"""The commands `compact` and `unseal` of `python -m persister`."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
from prometheus_client import CollectorRegistry

from persister.compaction.compact_all import Compacted, compact_all
from persister.compaction.compactor import Compactor
from persister.compaction.metrics import CompactorMetrics
from persister.compaction.service import SealNow
from persister.compaction.unseal import Unsealed, UnsealRefusedError, unseal_all
from persister.mongodb_errors import WriteFailed
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from persister.settings import CompactSettings
from runtime.command_line import SERVICE_EXIT_CODES
from runtime.logs import configure_logs, logger
from runtime.mongodb import mongodb_client
from runtime.operators import system_user
from runtime.settings import SettingsError, from_env

audit_log = logger("persister.audit")

# For one call; a command as a whole has no time limit.
_CALL_TIMEOUT_S = 30.0
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
Result = TypeVar("Result")


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
        return await compact_all(compactor, sealing(settings, database), _print_error)

    return _run(work, lambda done: _print_compacted(done, as_json=as_json), name="compact")


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
        _print_error("Nothing was done: this rewrites every stored reading and needs --yes.")
        return 2

    async def work(settings: CompactSettings, database: Any) -> Unsealed:
        done = await unseal_all(database, _print_error, clustered=settings.readings_clustered, is_forced=is_forced)
        audit_log.info("Readings were put back.", readings=done.readings, by="operator", system_user=system_user())
        return done

    return _run(work, _print_unsealed, name="unseal")


def _run(work: Callable[[CompactSettings, Any], Awaitable[Result]], show: Callable[[Result], int], *, name: str) -> int:
    try:
        settings = from_env(CompactSettings)
    except SettingsError as error:
        _print_error(str(error))
        return 2
    configure_logs(settings.log_level, settings.log_format)

    async def connected() -> Result:
        async with mongodb_client(
            settings.readings_url, name=f"tidegate persister {name}", timeout_s=_CALL_TIMEOUT_S
        ) as client:
            return await work(settings, client[settings.readings_database])

    code = 0
    try:
        code = show(asyncio.run(connected()))
        sys.stdout.flush()
    except UnsealRefusedError as error:
        _print_error(f"Nothing was done: {error}")
        return 1
    except WriteFailed as error:
        _print_error(f"MongoDB is away or refused: {error}")
        _print_error("What was done so far stays done; run the command again.")
        return 1
    except BrokenPipeError:  # the reader has closed the pipe, and the work is done
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        _print_error("Stopped. What was done so far stays done; run the command again.")
        return 1
    return code


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
        _print_error(f"These failed three times and stay where they are, readable: {', '.join(map(str, done.left))}")
    return 1 if done.left else 0


def _print_unsealed(done: Unsealed) -> int:
    sys.stdout.write(
        f"{done.readings:,} readings are back in `readings`; {done.collections} collections were removed.\n"
    )
    return 0


def _print_error(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
