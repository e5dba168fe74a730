"""Erases the readings of deleted owners, including those that are still on their way.

What is true at each point: the message of a deletion is acknowledged once its tombstone is safe, and from then on the
tombstone is the work item. Every worker polls for new tombstones every 2 s and stores nothing more of those owners.
What a worker held before it knew is written at the latest when it requeues it, after HOLD_SECONDS. The key range is
therefore swept at once, and again after 10 s, after a minute, and beyond that time.
"""

import asyncio
from functools import partial

from broker.deleted_owner import DeletedOwner
from broker.interface import Broker, Consumer, Delivery
from broker.message import DecodeError
from broker.topology import DELETED_OWNERS, OWNERS_EXCHANGE
from persister.batch import Unstorable
from persister.dead_letters import ToDeadLetters
from persister.maintenance.database_state import DatabaseState
from persister.maintenance.removal import Removal
from persister.maintenance.store import MaintenanceStore
from persister.metrics import PersisterMetrics
from persister.mongodb_errors import WriteFailed
from persister.retry import HeldTooLongError, Retrier
from runtime.logs import logger
from runtime.waiting import StoppedError

log = logger("persister.maintenance.erasure")

POLL_EVERY_S = 2.0
PREFETCH = 16


class Erasure:
    """One worker's part in the erasure of deleted owners."""

    def __init__(
        self,
        maintenance: MaintenanceStore,
        state: DatabaseState,
        dead_letters: ToDeadLetters,
        retrier: Retrier,
        metrics: PersisterMetrics,
        *,
        hold_s: float,
    ) -> None:
        self._maintenance = maintenance
        self._state = state
        self._dead_letters = dead_letters
        self._retrier = retrier
        self._metrics = metrics
        self._sweeps_after_s = (10.0, 60.0, max(3600.0, 2 * hold_s))

    async def load(self) -> None:
        """Load every deleted owner, before anything is stored; StoppedError at a stop."""
        while True:
            try:
                return await self._retrier.run("tombstones", self._state.load)
            except HeldTooLongError:
                log.warning("MongoDB is still away; nothing is consumed before it answers.")

    async def consume_deletions(self, broker: Broker) -> None:
        """Turn messages about deleted owners into tombstones, until cancelled or stopped."""
        while True:
            try:
                async with broker.consumer(DELETED_OWNERS, prefetch=PREFETCH) as consumer:
                    while True:
                        await self._record(consumer, await consumer.get())
            except StoppedError:
                return
            except HeldTooLongError:
                log.warning("A deletion was held past its deadline; the broker redelivers it.")

    async def _record(self, consumer: Consumer, delivery: Delivery) -> None:
        # Messages wait in the prefetch window behind others: the deadline counts from their arrival.
        retrier = self._retrier.with_deadline(self._retrier.deadline_of(delivery))
        try:
            deleted = DeletedOwner.of(delivery.message)
        except DecodeError as error:
            log.error("A message about a deleted owner could not be read.", reason=error.reason, error=str(error))
            dead = Unstorable(error.body, error.reason, str(error))
            publish = partial(self._dead_letters.publish, dead, delivery.message, OWNERS_EXCHANGE)
            await retrier.run("dead letter", publish)
        else:
            await retrier.run("tombstone", partial(self._state.record_deletion, deleted))
        await retrier.run("acknowledgement", partial(consumer.acknowledge, delivery))

    async def follow(self) -> None:
        """Load new tombstones every 2 s until cancelled, or all of them if the database has changed."""
        while True:
            await asyncio.sleep(POLL_EVERY_S)
            try:
                await self._state.refresh()
            except WriteFailed as error:
                log.warning("Deleted owners could not be read; trying again.", error=str(error))

    async def sweep(self) -> None:
        """Erase the owners that are due, one after the other, until cancelled. It may take longer than `follow` may."""
        while True:
            try:
                while await self._sweep_one():
                    pass
            except WriteFailed as error:
                log.warning("An erasure was interrupted; trying again.", error=str(error))
            await asyncio.sleep(POLL_EVERY_S)

    async def _sweep_one(self) -> bool:
        """Erase one owner that is due; return False if there is none."""
        sweep = await self._maintenance.claim_sweep()
        if sweep is None:
            return False
        removal = Removal(self._maintenance.database, partial(self._maintenance.renew_sweep, sweep))
        await removal.of_owner(sweep.owner)
        await self._maintenance.delete_series(sweep.owner)
        erased = removal.deleted
        self._metrics.removed.labels("erasure").inc(erased)
        number = sweep.sweeps
        after_s = self._sweeps_after_s[number] if number < len(self._sweeps_after_s) else None
        await self._maintenance.finish_sweep(sweep, next_in_s=after_s)
        log.info("The readings of a deleted owner are erased.", owner=sweep.owner, readings=erased, sweep=number + 1)
        return True
