"""The commands `compact`, as a service and with `--all`, and `unseal` of `python -m persister`."""

import math
import sys
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from persister.compaction.compact_all import Compacted, compact_all
from persister.compaction.compactor import Compactor
from persister.compaction.metrics import CompactorMetrics
from persister.compaction.service import SealNow, serve_compactor
from persister.compaction.unseal import Unsealed, UnsealRefusedError, unseal_all
from persister.database_command import print_error, run_on_database
from persister.sealing.metrics import SealingMetrics
from persister.sealing.sealer import Sealer
from persister.settings import CompactSettings
from runtime.allocator import use_one_arena
from runtime.logs import logger
from runtime.operators import system_user
from runtime.process import run_service

audit_log = logger("persister.audit")


def serve() -> int:
    """Run the service and return the exit code."""
    return run_service(CompactSettings, serve_compactor)


def compact(*, as_json: bool) -> int:
    """Run `compact --all` and return the exit code."""
    use_one_arena()

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
        # What arrives meanwhile is not sealed once more.
        seal_readings=sys.maxsize,
        seal_seconds=math.inf,
        metrics=SealingMetrics(CollectorRegistry()),
    )
    return sealer.seal_all


def unseal(*, is_forced: bool) -> int:
    """Run `unseal` and return the exit code."""

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
