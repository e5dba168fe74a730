"""An operator's erasure: removes everything that is stored of one owner, with or without a tombstone.

Unlike the erasure of a deleted owner it leaves nothing behind, and what is stored later is kept. If the process dies, a
part is erased, and the command has to be run again.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from persister.maintenance.database_identity import DatabaseIdentity
from persister.maintenance.erasure import POLL_EVERY_S
from persister.maintenance.removal import Removal
from persister.maintenance.store import MaintenanceStore

Report = Callable[[str], None]
REPORT_EVERY_S = 2.0
# After this time every worker that reaches the database has seen that its known series are void.
WORKERS_NOTICE_S = 2 * POLL_EVERY_S + 1


class Erased(msgspec.Struct, frozen=True, rename="camel"):
    """The counts of an owner before and after. `readings_deleted` may exceed `readings_before`."""

    owner: str
    readings_before: int
    series_before: int
    readings_deleted: int
    readings_after: int
    series_after: int


async def erase(database: Any, owner: str, report: Report, *, workers_notice_s: float = WORKERS_NOTICE_S) -> Erased:
    """Delete what is stored of an owner; WriteFailed if MongoDB is away or refuses. `report` gets lines on progress.

    Workers remember which series have their documents, and these are deleted, so the workers are made to learn again.
    What they stored until then has readings but no document of its series, which is written here.
    """
    maintenance, identity = MaintenanceStore(database), DatabaseIdentity(database)
    removal = Removal(database, progress=_reporting(report))
    report("counting …")
    readings, series = await removal.count(owner), await maintenance.count_series(owner)
    report(f"{readings:,} readings in {series:,} series; erasing …")
    await removal.of_owner(owner)
    if removal.deleted or series:
        await maintenance.delete_series(owner)
        await identity.next_generation()
        report("waiting until the workers have noticed …")
        await asyncio.sleep(workers_notice_s)
        # A compactor writes what it has read within a second or two.
        await removal.of_owner_in_blocks(owner)
        await removal.rebuild_series(owner)
    return Erased(
        owner,
        readings_before=readings,
        series_before=series,
        readings_deleted=removal.deleted,
        readings_after=await removal.count(owner),
        series_after=await maintenance.count_series(owner),
    )


def _reporting(report: Report) -> Callable[[int], None]:
    reported_at = time.monotonic()

    def progress(so_far: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at > REPORT_EVERY_S:
            reported_at = time.monotonic()
            report(f"{so_far:,} readings erased …")

    return progress
