"""Removes readings past their retention: series by series, by key range, in small steps.

One worker at a time does it, under a lease. Each publishes the limits in the state document first, because readers show
nothing older (storage/places/state.py). The pause after a round is at least 20 times as long as the round, so that
retention never takes more than a twentieth of the database's time.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from persister.maintenance.removal import Removal
from persister.maintenance.store import LEASE, MaintenanceStore
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteFailed
from persister.sealing.state_document import StateDocument
from runtime.logs import logger
from runtime.times import now_ms
from storage.places.state import DAY_MS

log = logger("persister.maintenance.retention")

JOB = "retention"
CHECK_EVERY_S = 5.0
ROUND_EVERY_S = 60.0
PAUSE_FACTOR = 20
SERIES_PER_QUERY = 500
# Before the calendar of MongoDB, whose times are milliseconds in 64 bits, there is nothing to remove.
MAX_DAYS = 100_000_000


@dataclass(frozen=True, slots=True)
class Retention:
    """The days for which readings are kept, in general and by sensorType; 0 keeps them without limit."""

    days: int = 0
    by_sensor_type: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, days: int, overrides: tuple[str, ...]) -> "Retention":
        """Parse overrides of the form `temperature=30`; ValueError names an invalid one."""
        by_sensor_type: dict[str, int] = {}
        for text in overrides:
            sensor_type, _, number = text.rpartition("=")
            if not sensor_type or not number.isdecimal() or sensor_type in by_sensor_type:
                raise ValueError(
                    f"RETENTION_DAYS_BY_SENSOR_TYPE={text!r}: expected SENSORTYPE=DAYS, each sensorType once"
                )
            by_sensor_type[sensor_type] = int(number)
        for variable, given in ("RETENTION_DAYS", (days,)), ("RETENTION_DAYS_BY_SENSOR_TYPE", by_sensor_type.values()):
            if max(given, default=0) > MAX_DAYS:
                raise ValueError(f"{variable}: at most {MAX_DAYS:,} days; 0 keeps readings without limit")
        return cls(days, by_sensor_type)

    @property
    def removes_anything(self) -> bool:
        """Whether any reading is ever removed."""
        return self.days > 0 or any(self.by_sensor_type.values())

    def days_of(self, sensor_type: str) -> int:
        """Return the days for which readings of a sensorType are kept; 0 is without limit."""
        return self.by_sensor_type.get(sensor_type, self.days)


async def enforce(
    retention: Retention, maintenance: MaintenanceStore, state: StateDocument, metrics: PersisterMetrics
) -> None:
    """Remove what is too old, until cancelled, and let readers and compactors know the limit, or that there is none."""
    while not retention.removes_anything:
        try:
            await state.publish_retention(0, {})
            await asyncio.sleep(ROUND_EVERY_S)  # and again: a restored copy may say something else
        except WriteFailed as error:
            log.warning("That readings are kept without limit could not be stored; trying again.", error=str(error))
            await asyncio.sleep(CHECK_EVERY_S)
    while True:
        try:
            await state.publish_retention(retention.days, retention.by_sensor_type)
            if (server_ms := await maintenance.claim_job(JOB)) is not None:
                started = time.monotonic()
                # By the slower of two clocks: what is removed too early is lost.
                removed = await remove_old(retention, maintenance, now_ms=min(server_ms, now_ms()))
                metrics.removed.labels("retention").inc(removed)
                took_s = time.monotonic() - started
                await maintenance.schedule_job(JOB, max(ROUND_EVERY_S, PAUSE_FACTOR * took_s))
                if removed:
                    log.info("Old readings were removed.", readings=removed, seconds=round(took_s, 1))
        except WriteFailed as error:
            log.warning("Old readings could not be removed; trying again.", error=str(error))
        await asyncio.sleep(CHECK_EVERY_S)


async def remove_old(retention: Retention, maintenance: MaintenanceStore, *, now_ms: int) -> int:
    """Go through all series once; return how many readings were removed. `now_ms`: milliseconds since 1970."""
    renew = partial(maintenance.schedule_job, JOB, LEASE.total_seconds())
    removal, last = Removal(maintenance.database, renew), None
    while found := await maintenance.series_after(last, SERIES_PER_QUERY):
        await renew()
        for series in found:
            if days := retention.days_of(series["sensorType"]):
                await removal.before(series, now_ms - days * DAY_MS)
        last = found[-1]
    return removal.deleted
