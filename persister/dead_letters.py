"""Dead letters, published beside the flow of good messages, with a bound on what waits for that.

A message whose dead letters are not confirmed stays unacknowledged. It is put aside, so that it takes no room in the
consumer's window and the others go on. At its deadline (`persister.retry`) it goes back to the queue, whether it is
being tried or still waits in line: RabbitMQ would end the channel, and good messages would stand still. Beyond the
bound the window fills up, and one message after the other goes back before its time: its place is at the head, so that
this frees memory and another worker may have it, but no more. Each return is noted (`persister.requeues`), so that
however long the dead-letter queue refuses, a message keeps its own reason, and what is good in it is no dead letter.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from broker.interface import Consumer, Delivery
from persister.acks import Ledger
from persister.batch import Opened, Outcome
from persister.metrics import PersisterMetrics
from persister.requeues import Requeues
from persister.retry import Holding, LetGoError
from persister.to_dead_letters import ToDeadLetters
from persister.to_mongodb import WriteFailed
from runtime.logs import logger

log = logger("persister.dead_letters")

# What may wait for the dead-letter queue; a message and what was made of it count.
MOST_PARKED = 4096
MOST_PARKED_BYTES = 16 * 1024 * 1024
GIVE_BACK_EVERY_S = 1.0
# So many are published at once: a queue that refuses is not to be asked by thousands.
AT_ONCE = 8
# Deadlines are looked at so often; a return that is not noted in time goes on, and is noted with the next.
LOOK_EVERY_S = 1.0
NOTED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Burial:
    """One message with something dead in it, its documents and what became of each."""

    opened: Opened
    documents: list[bytes]
    outcomes: list[Outcome]

    @property
    def delivery(self) -> Delivery:
        """The message."""
        return self.opened.delivery

    @property
    def size(self) -> int:
        """How many bytes it holds, about: the message, and its documents cut out of it."""
        return len(self.delivery.message.body) + sum(map(len, self.documents))


class Burials:
    """What is dead of one consumer's messages. `done` is told of each burial that is confirmed and settled."""

    def __init__(
        self,
        consumer: Consumer,
        ledger: Ledger,
        dead_letters: ToDeadLetters,
        *,
        holding: Holding,
        requeues: Requeues,
        metrics: PersisterMetrics,
        done: Callable[[Burial], None],
    ) -> None:
        self._consumer = consumer
        self._ledger = ledger
        self._dead_letters = dead_letters
        self._holding = holding
        self._requeues = requeues
        self._metrics = metrics
        self._done = done
        self._waiting: deque[Burial] = deque()
        # Of what waits and of what is being published.
        self._bytes = 0
        self._undertakers = 0
        self._giving_back = False
        self._looking = False

    @property
    def full(self) -> bool:
        """Whether no more may be put aside."""
        return self._ledger.parked >= MOST_PARKED or self._bytes >= MOST_PARKED_BYTES

    async def add(self, burial: Burial, tasks: asyncio.TaskGroup) -> None:
        """Take a message; it is buried and settled by a task of its own."""
        if not self._ledger.park(burial.delivery):
            return
        self._forget_stale()
        self._waiting.append(burial)
        self._bytes += burial.size
        if self._undertakers < AT_ONCE:
            self._undertakers += 1
            tasks.create_task(self._undertake(), name="dead letters")
        if not self._looking:
            self._looking = True
            tasks.create_task(self._give_back_in_time(), name="deadlines")
        if not self.full:
            await self._consumer.park(burial.delivery)
        elif not self._giving_back:
            self._giving_back = True
            tasks.create_task(self._give_back_slowly(), name="giving back")

    def _forget_stale(self) -> None:
        """Drop what an earlier connection delivered: it comes again."""
        if self._waiting and not self._ledger.holds(self._waiting[0].delivery):
            for burial in self._waiting:
                self._bytes -= burial.size
            self._waiting.clear()

    async def _undertake(self) -> None:
        try:
            while self._waiting:
                burial = self._waiting.popleft()
                try:
                    if self._ledger.holds(burial.delivery):
                        await self._bury(burial)
                finally:
                    self._bytes -= burial.size
        finally:
            self._undertakers -= 1

    async def _bury(self, burial: Burial) -> None:
        """Publish what is dead of one message, then settle the message."""
        holding = self._holding.until(
            self._holding.deadline_of(burial.delivery), gone=lambda: not self._ledger.holds(burial.delivery)
        )
        try:
            for letter in burial.opened.letters:
                bury = partial(self._dead_letters.bury, letter, burial.delivery.message)
                await holding.until_done("dead letter", bury)
                self._metrics.dead_letters.labels(letter.reason).inc()
        except LetGoError:
            log.warning("The dead-letter queue still refuses; a message goes back for another try.")
            await self._give_back([burial])
            return
        settle = partial(self._ledger.settle_parked, burial.delivery)
        if await self._holding.until_done("acknowledgement", settle):
            self._done(burial)

    async def _give_back(self, burials: Iterable[Burial]) -> None:
        here = [burial.delivery for burial in burials if self._ledger.holds(burial.delivery)]
        self._requeues.note(here)
        with suppress(WriteFailed, TimeoutError):
            async with asyncio.timeout(NOTED_WITHIN_S):
                await self._requeues.write()
        for delivery in here:
            requeue = partial(self._ledger.give_back_parked, delivery)
            await self._holding.until_done("acknowledgement", requeue)

    async def _give_back_in_time(self) -> None:
        """Give back what has waited in line until its deadline. Whoever tries to publish one looks after it."""
        try:
            while self._waiting:
                now = time.monotonic()
                lines: tuple[deque[Burial], deque[Burial]] = deque(), deque()
                for burial in self._waiting:
                    lines[self._holding.deadline_of(burial.delivery) <= now].append(burial)
                self._waiting, late = lines
                if late:
                    self._bytes -= sum(burial.size for burial in late)
                    log.warning("The dead-letter queue refuses; what waits in line goes back.", messages=len(late))
                    await self._give_back(late)
                else:
                    soonest = min(self._holding.deadline_of(burial.delivery) for burial in self._waiting)
                    await asyncio.sleep(min(LOOK_EVERY_S, soonest - now))
        finally:
            self._looking = False

    async def _give_back_slowly(self) -> None:
        try:
            log.warning("Too much waits for the dead-letter queue; messages go back.", parked=self._ledger.parked)
            while self.full and self._waiting:
                burial = self._waiting.popleft()
                self._bytes -= burial.size
                await self._give_back([burial])
                await asyncio.sleep(GIVE_BACK_EVERY_S)
        finally:
            self._giving_back = False
