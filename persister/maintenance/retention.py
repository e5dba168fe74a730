"""Removes readings that are older than they are to be kept: series by series, by key range, in small steps.

One worker at a time does it, by a lease; the rest between two rounds is at least 20 times what the round took, so that
it never has more than a twentieth of the database's time.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from persister.maintenance.store import LEASE, Upkeep
from persister.metrics import PersisterMetrics
from persister.to_mongodb import WriteFailed
from readings.filters import in_time_range
from runtime.logs import logger
from runtime.times import now_ms

log = logger("persister.maintenance.retention")

CHORE = "retention"
LOOK_EVERY_S = 5.0
ROUND_EVERY_S = 60.0
REST = 20
SERIES_AT_ONCE = 500
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days readings are kept, and which sensorTypes for how many others; 0 keeps for ever."""

    days: int = 0
    by_sensor_type: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, days: int, overrides: tuple[str, ...]) -> "Retention":
        """Read overrides of the form `temperature=30`; ValueError names the one that is wrong."""
        by_sensor_type: dict[str, int] = {}
        for text in overrides:
            sensor_type, _, number = text.rpartition("=")
            if not sensor_type or not number.isdecimal() or sensor_type in by_sensor_type:
                raise ValueError(
                    f"RETENTION_DAYS_BY_SENSOR_TYPE={text!r}: expected SENSORTYPE=DAYS, each sensorType once"
                )
            by_sensor_type[sensor_type] = int(number)
        return cls(days, by_sensor_type)

    @property
    def removes_anything(self) -> bool:
        """Whether there is anything to do."""
        return self.days > 0 or any(self.by_sensor_type.values())

    def days_of(self, sensor_type: str) -> int:
        """Return for how many days the readings of a sensorType are kept; 0 is for ever."""
        return self.by_sensor_type.get(sensor_type, self.days)


async def keep_to(retention: Retention, upkeep: Upkeep, metrics: PersisterMetrics) -> None:
    """Remove what is too old, for ever; returns at once where everything is kept."""
    while retention.removes_anything:
        try:
            if (server_ms := await upkeep.claim_chore(CHORE)) is not None:
                started = time.monotonic()
                # Of two clocks the one that is behind: what goes too early is gone.
                removed = await remove_old(retention, upkeep, now_ms=min(server_ms, now_ms()))
                metrics.removed.labels("retention").inc(removed)
                took_s = time.monotonic() - started
                await upkeep.chore_due_in(CHORE, max(ROUND_EVERY_S, REST * took_s))
                if removed:
                    log.info("Old readings were removed.", readings=removed, seconds=round(took_s, 1))
        except WriteFailed as error:
            log.warning("Old readings could not be removed; trying again.", error=str(error))
        await asyncio.sleep(LOOK_EVERY_S)


async def remove_old(retention: Retention, upkeep: Upkeep, *, now_ms: int) -> int:
    """Go through all series once; return how many readings were removed."""
    renew = partial(upkeep.chore_due_in, CHORE, LEASE.total_seconds())
    removed, last = 0, None
    while found := await upkeep.series_after(last, SERIES_AT_ONCE):
        await renew()
        for series in found:
            if days := retention.days_of(series["sensorType"]):
                removed += await upkeep.delete_range(in_time_range(series, to_ms=now_ms - days * DAY_MS), renew)
        last = found[-1]
    return removed
