"""An operator's erasure: everything of one owner that is stored, whether or not there is a tombstone.

Unlike the erasure of a deleted owner it leaves nothing behind: what is stored later is kept. Where the process can die,
a part is erased, and the command is to be given again.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from persister.maintenance.database_identity import Identity
from persister.maintenance.erasure import LOOK_EVERY_S
from persister.maintenance.store import Upkeep
from readings.filters import of_owner

Tell = Callable[[str], None]
TELL_EVERY_S = 2.0
# By then every worker that reaches the database has seen that what it knew of series does not hold.
WORKERS_LOOK_S = 2 * LOOK_EVERY_S + 1


class Erased(msgspec.Struct, frozen=True, rename="camel"):
    """What there was of an owner and what there is now. `readings_deleted` may be more than there was before."""

    owner: str
    readings_before: int
    series_before: int
    readings_deleted: int
    readings_after: int
    series_after: int


async def erase(database: Any, owner: str, tell: Tell, *, workers_look_s: float = WORKERS_LOOK_S) -> Erased:
    """Delete what is stored of an owner; WriteFailed when MongoDB does not do it.

    Workers remember which series have their documents, and these are deleted: so they are made to learn anew. What they
    stored until then has readings and no document of its series, which is written here.
    """
    upkeep, identity = Upkeep(database), Identity(database)
    bounds = of_owner(owner)
    tell("counting …")
    readings, series = await upkeep.count_readings(bounds), await upkeep.count_series(owner)
    tell(f"{readings:,} readings in {series:,} series; erasing …")
    deleted = await _delete(upkeep, bounds, tell)
    if deleted or series:
        await upkeep.delete_series(owner)
        await identity.next_generation()
        tell("waiting until the workers have seen it …")
        await asyncio.sleep(workers_look_s)
        await upkeep.note_series_of(owner)
    return Erased(
        owner,
        readings_before=readings,
        series_before=series,
        readings_deleted=deleted,
        readings_after=await upkeep.count_readings(bounds),
        series_after=await upkeep.count_series(owner),
    )


async def _delete(upkeep: Upkeep, bounds: dict[str, Any], tell: Tell) -> int:
    told_at = time.monotonic()

    def progress(so_far: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > TELL_EVERY_S:
            told_at = time.monotonic()
            tell(f"{so_far:,} readings erased …")

    return await upkeep.delete_range(bounds, None, progress)
