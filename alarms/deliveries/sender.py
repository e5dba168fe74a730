"""Ledger → receivers: sends what is due, again and again for a day, in any number of processes."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from alarms.deliveries.store import Delivery, DeliveryStore
from alarms.metrics import AlarmsMetrics
from alarms.webhooks.http_client import CallFailedError, WebhookClient
from alarms.webhooks.retries import pause_s
from alarms.webhooks.secrets import SecretError, Secrets
from alarms.webhooks.signature import headers
from broker.failpoints import failpoint
from runtime.background import background
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.times import now_ms

log = logger("alarms")

LOOK_EVERY_S = 1.0
# Sent at once by one process; and of one owner, whose receiver may hang, so that others are not held up: fewer while
# what was last sent has failed, so that it takes fifty such owners to hold up the others.
MAX_SENDING = 200
MAX_SENDING_OF_OWNER = 20
MAX_SENDING_OF_FAILING = 4
# Owners who are remembered as failing, some 100 bytes each.
MAX_FAILING = 10_000
FORGET_EVERY_S = 60.0


class DeliverySender:
    """Sends deliveries while its context is open."""

    def __init__(
        self,
        store: DeliveryStore,
        client: WebhookClient,
        secrets: Secrets,
        metrics: AlarmsMetrics,
        *,
        history_ms: int,
    ) -> None:
        self._store = store
        self._client = client
        self._secrets = secrets
        self._metrics = metrics
        self._history_ms = history_ms
        self._random = random.Random()
        self._due = asyncio.Event()
        self._sending: Counter[str] = Counter()
        self._failing: set[str] = set()
        # Delivered, with their statuses, and not noted yet.
        self._delivered: dict[str, tuple[Delivery, str]] = {}
        self._noting = asyncio.Lock()

    def wake(self) -> None:
        """Look at once: something is due."""
        self._due.set()

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send while the context is open; what is being sent at its end is finished, or due again after its lease."""
        async with background(self._run(), self._forget(), name="deliveries"):
            yield

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._due.clear()
                leased = await self._lease()
                for delivery, sealed in leased:
                    self._sending[delivery.owner] += 1
                    tasks.create_task(self._deliver(delivery, sealed), name="delivery")
                if leased:
                    continue
                try:
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._due.wait()
                except TimeoutError:
                    pass

    async def _lease(self) -> list[tuple[Delivery, tuple[str, ...]]]:
        room = min(MAX_SENDING - self._sending.total(), MAX_SENDING_OF_OWNER)
        if room <= 0:
            return []
        some = self._sending.keys() | self._failing
        try:
            return await self._store.lease(room, {owner: self._room_of(owner) for owner in some}, MAX_SENDING_OF_OWNER)
        except Problem as problem:
            log.debug("What is due cannot be read; trying again.", why=problem.detail)
            return []

    def _room_of(self, owner: str) -> int:
        most = MAX_SENDING_OF_FAILING if owner in self._failing else MAX_SENDING_OF_OWNER
        return max(0, most - self._sending[owner])

    async def _deliver(self, delivery: Delivery, sealed: tuple[str, ...]) -> None:
        try:
            await self._attempt(delivery, sealed)
        except Problem:  # its lease ends: it is sent again, under the same id
            log.warning("What became of deliveries could not be noted; they are sent again.", delivery=delivery.id)
        finally:
            held_up = self._room_of(delivery.owner) == 0 or self._sending.total() >= MAX_SENDING
            self._sending[delivery.owner] -= 1
            if not self._sending[delivery.owner]:
                del self._sending[delivery.owner]
            if held_up:
                self._due.set()

    async def _attempt(self, delivery: Delivery, sealed: tuple[str, ...]) -> None:
        if not sealed:  # its rule was removed long ago
            await self._give_up(delivery, "no_secret")
            return
        body = delivery.body.encode()
        try:
            secrets = [self._secrets.open(delivery.owner, one) for one in sealed]
            failpoint("alarms.before_send")
            signed = headers(delivery.id, int(time.time()), body, secrets)
            status = await self._client.post(delivery.target, signed, body)
        except SecretError as error:
            log.error("A webhook cannot be signed.", error=str(error), rule=delivery.rule_id)
            await self._failed(delivery, "secret")
        except CallFailedError as error:
            self._note_failing(delivery.owner)
            if error.is_gone:
                await self._give_up(delivery, error.status)
            else:
                await self._failed(delivery, error.status, error.retry_after_s)
        else:
            self._failing.discard(delivery.owner)
            failpoint("alarms.sent")
            self._metrics.delivery_seconds.observe(max(0, now_ms() - delivery.due_at_ms) / 1000)
            await self._note_delivered(delivery, str(status))

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

    def _note_failing(self, owner: str) -> None:
        if len(self._failing) >= MAX_FAILING:
            self._failing.clear()
        self._failing.add(owner)

    async def _failed(self, delivery: Delivery, status: str, retry_after_s: float = 0.0) -> None:
        pause_ms = round(pause_s(delivery.attempts + 1, self._random, retry_after_s) * 1000)
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
