"""Ledger → receivers: sends what is due, again and again for a day, in any number of processes."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from alarms.deliveries.channel import Channel, NotDeliveredError
from alarms.deliveries.store import Delivery, DeliveryStore, Kind
from alarms.metrics import AlarmsMetrics
from alarms.webhooks.retries import pause_s
from broker.failpoints import failpoint
from runtime.background import background
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.times import now_ms

log = logger("alarms")

LOOK_EVERY_S = 1.0
FORGET_EVERY_S = 60.0
# Owners who are remembered as failing, some 100 bytes each.
MAX_FAILING = 10_000


@dataclass(frozen=True, slots=True)
class Lane:
    """How one kind of delivery is sent, and how many at once by one process.

    `max_of_owner`: of one owner, whose receiver may hang, so that others are not held up; `max_of_failing`: the same
    while what was last sent has failed, so that it takes many such owners to hold up the others.
    """

    kind: Kind
    channel: Channel
    max_sending: int
    max_of_owner: int
    max_of_failing: int
    due: asyncio.Event = field(default_factory=asyncio.Event)
    sending: Counter[str] = field(default_factory=Counter)
    failing: set[str] = field(default_factory=set)

    @property
    def room(self) -> int:
        """How many more may be leased now."""
        return max(0, min(self.max_sending - self.sending.total(), self.max_of_owner))

    @property
    def room_of_owners(self) -> dict[str, int]:
        """Of how many more each owner may be sent who has less room than others."""
        return {owner: self.room_of(owner) for owner in self.sending.keys() | self.failing}

    def room_of(self, owner: str) -> int:
        """Of how many more an owner may be sent."""
        most = self.max_of_failing if owner in self.failing else self.max_of_owner
        return max(0, most - self.sending[owner])

    def note_failing(self, owner: str) -> None:
        """Note that what was last sent of an owner has failed."""
        if len(self.failing) >= MAX_FAILING:
            self.failing.clear()
        self.failing.add(owner)

    def end(self, owner: str) -> None:
        """Note that one of an owner's is not being sent any more; look at once if others waited for that."""
        if self.room_of(owner) == 0 or self.room == 0:
            self.due.set()
        self.sending[owner] -= 1
        if not self.sending[owner]:
            del self.sending[owner]


def lanes(webhooks: Channel, emails: Channel) -> list[Lane]:
    """Return the lanes of a process: each kind has its own, so that an SMTP server that hangs stops no webhook.

    SMTP servers take some dozens of connections of one client; a webhook's receiver is mostly another one each.
    """
    return [Lane("webhook", webhooks, 200, 20, 4), Lane("email", emails, 20, 5, 2)]


class DeliverySender:
    """Sends deliveries while its context is open."""

    def __init__(self, store: DeliveryStore, lanes: Sequence[Lane], metrics: AlarmsMetrics, *, history_ms: int) -> None:
        self._store = store
        self._lanes = lanes
        self._metrics = metrics
        self._history_ms = history_ms
        self._random = random.Random()
        # Delivered, with their statuses, and not noted yet.
        self._delivered: dict[str, tuple[Delivery, str]] = {}
        self._noting = asyncio.Lock()

    def wake(self) -> None:
        """Look at once: something is due."""
        for lane in self._lanes:
            lane.due.set()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send while the context is open; what is being sent at its end is finished, or due again after its lease."""
        async with background(*(self._run(lane) for lane in self._lanes), self._forget(), name="deliveries"):
            yield

    async def _run(self, lane: Lane) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                lane.due.clear()
                leased = []
                if lane.room > 0:
                    try:
                        leased = await self._store.lease(lane.kind, lane.room, lane.room_of_owners, lane.max_of_owner)
                    except Problem as problem:
                        log.debug("What is due cannot be read; trying again.", why=problem.detail)
                for delivery, sealed in leased:
                    lane.sending[delivery.owner] += 1
                    tasks.create_task(self._deliver(lane, delivery, sealed), name="delivery")
                if leased:
                    continue
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await lane.due.wait()
                except TimeoutError:
                    pass

    async def _deliver(self, lane: Lane, delivery: Delivery, sealed: tuple[str, ...]) -> None:
        try:
            await self._attempt(lane, delivery, sealed)
        except Problem:  # its lease ends: it is sent again, under the same id
            log.warning("What became of deliveries could not be noted; they are sent again.", delivery=delivery.id)
        finally:
            lane.end(delivery.owner)

    async def _attempt(self, lane: Lane, delivery: Delivery, sealed: tuple[str, ...]) -> None:
        failpoint("alarms.before_send")
        try:
            status = await lane.channel.send(delivery, sealed)
        except NotDeliveredError as error:
            lane.note_failing(delivery.owner)
            if error.is_final:
                await self._give_up(delivery, error.status)
            else:
                await self._failed(delivery, error)
        else:
            lane.failing.discard(delivery.owner)
            failpoint("alarms.sent")
            self._metrics.delivery_seconds.observe(max(0, now_ms() - delivery.due_at_ms) / 1000)
            await self._note_delivered(delivery, status)

    async def _give_up(self, delivery: Delivery, status: str) -> None:
        await self._store.finish([delivery], "dead", status)
        self._metrics.deliveries.labels("dead").inc()

    async def _note_delivered(self, delivery: Delivery, status: str) -> None:
        """Note it, with what others have delivered meanwhile: a transaction each would cost as much as the calls."""
        self._delivered[delivery.id] = (delivery, status)
        async with self._noting:
            if delivery.id not in self._delivered:
                return  # another one has noted it, or has logged why not
            delivered, self._delivered = self._delivered, {}
            for each in {status for _, status in delivered.values()}:
                some = [one for one, status in delivered.values() if status == each]
                await self._store.finish(some, "delivered", each)
                self._metrics.deliveries.labels("delivered").inc(len(some))

    async def _failed(self, delivery: Delivery, error: NotDeliveredError) -> None:
        pause_ms = round(pause_s(delivery.attempts + 1, self._random, error.retry_after_s) * 1000)
        state = await self._store.postpone(delivery, error.status, pause_ms)
        self._metrics.deliveries.labels("dead" if state == "dead" else "failed").inc()
        if state == "dead":
            log.warning(
                "A notification was given up.", delivery=delivery.id, rule=delivery.rule_id, status=error.status
            )

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            try:
                await self._store.forget(now_ms() - self._history_ms)
            except Problem:
                continue
