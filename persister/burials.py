"""Dead letters, published beside the flow of good messages, with a bound on what waits for that.

A message whose dead letters are not confirmed stays unacknowledged. It is put aside, so that it takes no room in the
consumer's window and the others go on. Beyond the bound the window fills up, and one message after the other goes back
to the queue: its place is at the head, so that this frees memory and another worker may have it, but no more.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from broker.interface import Consumer, Delivery
from persister.batch import Opened, Outcome
from persister.holding import Holding, LetGoError
from persister.ledger import Ledger
from persister.metrics import PersisterMetrics
from persister.to_dead_letters import ToDeadLetters
from runtime.logs import logger

log = logger("persister.burials")

# What may wait for the dead-letter queue; a message and what was made of it count.
MOST_PARKED = 4096
MOST_PARKED_BYTES = 16 * 1024 * 1024
GIVE_BACK_EVERY_S = 1.0
# So many are published at once: a queue that refuses is not to be asked by thousands.
AT_ONCE = 8


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
        metrics: PersisterMetrics,
        done: Callable[[Burial], None],
    ) -> None:
        self._consumer = consumer
        self._ledger = ledger
        self._dead_letters = dead_letters
        self._holding = holding
        self._metrics = metrics
        self._done = done
        self._waiting: deque[Burial] = deque()
        # Of what waits and of what is being published.
        self._bytes = 0
        self._undertakers = 0
        self._giving_back = False

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
        if not self.full:
            await self._consumer.put_aside(burial.delivery)
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
        try:
            for letter in burial.opened.letters:
                bury = partial(self._dead_letters.bury, letter, burial.delivery.message)
                await self._holding.until_done("dead letter", bury)
                self._metrics.dead_letters.labels(letter.reason).inc()
        except LetGoError:
            log.warning("The dead-letter queue still refuses; a message goes back for another try.")
            await self._give_back(burial)
            return
        settle = partial(self._ledger.settle_parked, burial.delivery)
        if await self._holding.until_done("acknowledgement", settle):
            self._done(burial)

    async def _give_back(self, burial: Burial) -> None:
        give_back = partial(self._ledger.give_back_parked, burial.delivery)
        await self._holding.until_done("acknowledgement", give_back)

    async def _give_back_slowly(self) -> None:
        try:
            log.warning("Too much waits for the dead-letter queue; messages go back.", parked=self._ledger.parked)
            while self.full and self._waiting:
                burial = self._waiting.popleft()
                self._bytes -= burial.size
                await self._give_back(burial)
                await asyncio.sleep(GIVE_BACK_EVERY_S)
        finally:
            self._giving_back = False
