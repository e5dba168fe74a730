"""Erases the readings of deleted owners, those that are still on their way included.

What is true at each point: the message of a deletion is acknowledged when its tombstone is safe, and from then on the
tombstone is the work. Every worker learns of new ones each 2 s and stores nothing more of those owners. What a worker
had at hand before it knew is written at the latest when it lets go of it, after HOLD_SECONDS: so the key range is swept
at once, and again after 10 s, a minute, and beyond that time.
"""

import asyncio
from functools import partial

from broker.deleted_owner import DeletedOwner
from broker.interface import Broker, Consumer, Delivery
from broker.message import DecodeError
from broker.topology import DELETED_OWNERS, OWNERS_EXCHANGE
from persister.batch import DeadLetter
from persister.maintenance.database_state import Learned
from persister.maintenance.store import Upkeep
from persister.metrics import PersisterMetrics
from persister.retry import GivenUpError, Holding, LetGoError
from persister.to_dead_letters import ToDeadLetters
from persister.to_mongodb import WriteFailed
from runtime.logs import logger

log = logger("persister.maintenance.erasure")

LOOK_EVERY_S = 2.0
PREFETCH = 16


class Erasure:
    """What one worker does about deleted owners."""

    def __init__(
        self,
        upkeep: Upkeep,
        learned: Learned,
        dead_letters: ToDeadLetters,
        holding: Holding,
        metrics: PersisterMetrics,
        *,
        hold_s: float,
    ) -> None:
        self._upkeep = upkeep
        self._learned = learned
        self._dead_letters = dead_letters
        self._holding = holding
        self._metrics = metrics
        self._sweeps_after_s = (10.0, 60.0, max(3600.0, 2 * hold_s))

    async def first_look(self) -> None:
        """Learn of every deleted owner, before anything is stored. GivenUpError at a stop."""
        while True:
            try:
                return await self._holding.until_done("tombstones", self._learned.first)
            except LetGoError:
                log.warning("MongoDB is still away; nothing is taken from the queue before it answers.")

    async def take_deletions(self, broker: Broker) -> None:
        """Turn messages of deleted owners into tombstones, for ever."""
        while True:
            try:
                async with broker.consumer(DELETED_OWNERS, prefetch=PREFETCH) as consumer:
                    while True:
                        await self._take(consumer, await consumer.get())
            except GivenUpError:
                return
            except LetGoError:
                log.warning("A deletion was held for too long; the broker is to deliver it again.")

    async def _take(self, consumer: Consumer, delivery: Delivery) -> None:
        # Those behind it wait in the window meanwhile: their time has begun, too.
        holding = self._holding.until(self._holding.deadline_of(delivery))
        try:
            deleted = DeletedOwner.of(delivery.message)
        except DecodeError as error:
            log.error("A message about a deleted owner was not understood.", reason=error.reason, error=str(error))
            letter = DeadLetter(error.body, error.reason, str(error))
            bury = partial(self._dead_letters.bury, letter, delivery.message, OWNERS_EXCHANGE)
            await holding.until_done("dead letter", bury)
        else:
            await holding.until_done("tombstone", partial(self._learned.note_deleted, deleted))
        await holding.until_done("acknowledgement", partial(consumer.acknowledge, delivery))

    async def keep_up(self) -> None:
        """Learn of new tombstones, or of all where the database is another one, for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self._learned.keep_up()
            except WriteFailed as error:
                log.warning("Deleted owners could not be read; trying again.", error=str(error))

    async def sweep_what_is_due(self) -> None:
        """Erase one owner after the other, for ever. Beside `keep_up`, for a sweep may take long."""
        while True:
            try:
                while await self._sweep_one():
                    pass
            except WriteFailed as error:
                log.warning("An erasure could not go on; trying again.", error=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _sweep_one(self) -> bool:
        sweep = await self._upkeep.claim_sweep()
        if sweep is None:
            return False
        erased = await self._upkeep.erase_owner(sweep.owner, partial(self._upkeep.renew_sweep, sweep))
        self._metrics.removed.labels("erasure").inc(erased)
        number = sweep.sweeps
        after_s = self._sweeps_after_s[number] if number < len(self._sweeps_after_s) else None
        await self._upkeep.swept(sweep, next_in_s=after_s)
        log.info("The readings of a deleted owner are erased.", owner=sweep.owner, readings=erased, sweep=number + 1)
        return True
