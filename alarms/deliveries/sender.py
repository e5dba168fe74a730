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


@dataclass(frozen=True, slots=True)
class Lane:
    """How one kind of delivery is sent, and how many at once by one process.

    `max_of_owner`: of one owner, whose receiver may hang, so that others are not held up.
    """

    kind: Kind
    channel: Channel
    max_sending: int
    max_of_owner: int
    due: asyncio.Event = field(default_factory=asyncio.Event)
    sending: Counter[str] = field(default_factory=Counter)

    @property
    def room(self) -> int:
        """How many more may be sent now."""
        return min(self.max_sending - self.sending.total(), self.max_of_owner)

    @property
    def busy(self) -> list[str]:
        """The owners of whom as many are being sent as may be."""
        return [owner for owner, count in self.sending.items() if count >= self.max_of_owner]


def lanes(webhooks: Channel, emails: Channel) -> list[Lane]:
    """Return the lanes of a process: each kind has its own, so that an SMTP server that hangs stops no webhook.

    SMTP servers take some dozens of connections of one client; a webhook's receiver is mostly another one each.
    """
    return [Lane("webhook", webhooks, 200, 20), Lane("email", emails, 20, 5)]


class DeliverySender:
    """Sends deliveries while its context is open."""

    def __init__(self, store: DeliveryStore, lanes: Sequence[Lane], metrics: AlarmsMetrics, *, history_ms: int) -> None:
        self._store = store
        self._lanes = lanes
        self._metrics = metrics
        self._history_ms = history_ms
        self._random = random.Random()

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
                        leased = await self._store.lease(lane.kind, lane.room, lane.busy)
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
            await self._attempt(lane.channel, delivery, sealed)
        except Problem:  # its lease ends: it is sent again, under the same id
            log.warning("What became of a delivery could not be noted; it is sent again.", delivery=delivery.id)
        finally:
            lane.sending[delivery.owner] -= 1
            if not lane.sending[delivery.owner]:
                del lane.sending[delivery.owner]
            lane.due.set()

    async def _attempt(self, channel: Channel, delivery: Delivery, sealed: tuple[str, ...]) -> None:
        failpoint("alarms.before_send")
        try:
            status = await channel.send(delivery, sealed)
        except NotDeliveredError as error:
            if error.is_final:
                await self._give_up(delivery, error.status)
            else:
                await self._failed(delivery, error.status)
        else:
            failpoint("alarms.sent")
            await self._store.finish(delivery, "delivered", status)
            self._metrics.deliveries.labels("delivered").inc()
            self._metrics.delivery_seconds.observe(max(0, now_ms() - delivery.due_at_ms) / 1000)

    async def _give_up(self, delivery: Delivery, status: str) -> None:
        await self._store.finish(delivery, "dead", status)
        self._metrics.deliveries.labels("dead").inc()

    async def _failed(self, delivery: Delivery, status: str) -> None:
        pause_ms = round(pause_s(delivery.attempts + 1, self._random) * 1000)
        state = await self._store.postpone(delivery, status, pause_ms)
        self._metrics.deliveries.labels("dead" if state == "dead" else "failed").inc()
        if state == "dead":
            log.warning("A notification was given up.", delivery=delivery.id, rule=delivery.rule_id, status=status)

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            try:
                await self._store.forget(now_ms() - self._history_ms)
            except Problem:
                continue
