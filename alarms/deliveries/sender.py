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
# Sent at once by one process; and of one owner, whose receiver may hang, so that others are not held up.
MAX_SENDING = 200
MAX_SENDING_OF_OWNER = 20
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
                room = MAX_SENDING - self._sending.total()
                busy = [owner for owner, count in self._sending.items() if count >= MAX_SENDING_OF_OWNER]
                leased = []
                if room > 0:
                    try:
                        leased = await self._store.lease(min(room, MAX_SENDING_OF_OWNER), busy)
                    except Problem as problem:
                        log.debug("What is due cannot be read; trying again.", why=problem.detail)
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

    async def _deliver(self, delivery: Delivery, sealed: tuple[str, ...]) -> None:
        try:
            await self._attempt(delivery, sealed)
        except Problem:  # its lease ends: it is sent again, under the same id
            log.warning("What became of a delivery could not be noted; it is sent again.", delivery=delivery.id)
        finally:
            self._sending[delivery.owner] -= 1
            if not self._sending[delivery.owner]:
                del self._sending[delivery.owner]
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
            if error.is_gone:
                await self._give_up(delivery, error.status)
            else:
                await self._failed(delivery, error.status)
        else:
            failpoint("alarms.sent")
            await self._store.finish(delivery, "delivered", str(status))
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
