"""RabbitMQ → alarms: takes what persisters announce, in rounds, evaluates it, stores what changes, acknowledges.

Where this process can die: before a change is stored, nothing of it is known, and the messages are delivered again.
Behind that, the messages are delivered again as well, and change nothing: an alarm's row says up to which reading it is
evaluated. A notification is due from the transaction on that stored its change (alarms/deliveries/ledger.py).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import msgspec

from alarms.deliveries.notification import Recorded
from alarms.evaluation.evaluator import Change, Evaluator
from alarms.evaluation.reorder import Reorder
from alarms.evaluation.silence import Silences
from alarms.evaluation.store import SAVE_ROWS, AlarmStore
from alarms.metrics import AlarmsMetrics
from alarms.rules.book import RuleBook
from alarms.rules.rule import Series
from broker.alarms import decode_announcement
from broker.failpoints import failpoint
from broker.interface import Broker, BrokerError, Consumer, Delivery
from broker.topology import ALARMS
from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.process import freeze_startup_objects
from runtime.times import now_ms

log = logger("alarms")

# A reading is evaluated one to two rounds after it was announced.
ROUND_S = 0.2
# Messages of up to 5,000 readings that are held at once.
PREFETCH = 200
RULES_EVERY_S = 1.0
SAVE_EVERY_S = 5.0
# Newest readings that are stored although nobody waits for it: at most so many a second, so that many series cost no
# more: a transaction takes a millisecond or two, and a row 17 us of this process.
MOVED_AT_ONCE, MOVED_EVERY_S = 100, 1.0
# A reading that was received before its silence counts is on its way through the pipeline for at most about so long.
ON_ITS_WAY_MS = 2000
RETRY_S = 1.0
# RabbitMQ gives up a connection that was silent for two heartbeats of 10 s, and looks in intervals.
ALONE_WITHIN_S = 60.0
ALONE_EVERY_S = 0.5
FORGET_EVERY_S = 10.0
FORGET_ALL_EVERY_S = 3600.0

Result = TypeVar("Result")

OnRecorded = Callable[[Sequence[Recorded]], None]
"""Called with what was stored."""


class Evaluation:
    """Evaluates while this process leads."""

    def __init__(
        self,
        broker: Broker,
        book: RuleBook,
        store: AlarmStore,
        metrics: AlarmsMetrics,
        on_recorded: OnRecorded,
        *,
        history_ms: int,
    ) -> None:
        self._broker = broker
        self._book = book
        self._store = store
        self._metrics = metrics
        self._on_recorded = on_recorded
        self._history_ms = history_ms
        self._forget_at = self._forget_all_at = 0.0

    async def run(self) -> None:
        """Evaluate until cancelled; NotLeaderError when another process does."""
        run = _Run(self._book, self._store, self._metrics, self._on_recorded)
        await self._until_alone()
        await run.load()
        async with self._broker.consumer(ALARMS, prefetch=PREFETCH) as consumer:
            while True:
                await run.round(consumer)
                with suppress(Problem):  # another time
                    await self._forget(run)

    async def _forget(self, run: "_Run") -> None:
        """Delete what nobody needs any more, some of it now and then."""
        now_s, before_ms = time.monotonic(), now_ms() - self._history_ms
        if now_s >= self._forget_at:
            self._forget_at = now_s + FORGET_EVERY_S
            await self._store.forget(before_ms)
        if now_s >= self._forget_all_at:
            self._forget_all_at = now_s + FORGET_ALL_EVERY_S
            run.forget_unwatched()
            await self._store.forget_alarms(before_ms)
            await self._store.forget_series(lambda series: bool(self._book.of_series(series)))

    async def _until_alone(self) -> None:
        """Return once nobody consumes: who has led before may have messages that come before those that wait.

        A process that hangs keeps them until it goes on and finds that it leads no more, or RabbitMQ gives it up.
        """
        deadline = time.monotonic() + ALONE_WITHIN_S
        while time.monotonic() < deadline:
            with suppress(BrokerError):
                if not await self._broker.consumers(ALARMS):
                    return
            await asyncio.sleep(ALONE_EVERY_S)
        log.warning("The queue has another consumer; what that has may be late.", queue=ALARMS.name)


class _Run:
    """One time of leading."""

    def __init__(self, book: RuleBook, store: AlarmStore, metrics: AlarmsMetrics, on_recorded: OnRecorded) -> None:
        self._book = book
        self._store = store
        self._metrics = metrics
        self._on_recorded = on_recorded
        self._evaluator = Evaluator(book)
        self._silences = Silences(self._evaluator)
        self._reorder = Reorder()
        # Of the round before: all of their readings are evaluated at the end of this one.
        self._last: Delivery | None = None
        # All of its readings are evaluated; acknowledged once what rules compare with is stored.
        self._evaluated: Delivery | None = None
        self._unacknowledged = 0
        self._rules_at = self._save_at = self._save_some_at = 0.0
        # Of the book, whose silences are watched.
        self._revision = self._devices_revision = -1
        self._began_ms = now_ms()
        self._has_seen_new = self._is_caught_up = False

    async def load(self) -> None:
        """Read what is known of alarms, and end those whose rules have changed while nobody evaluated."""
        evaluator = self._evaluator
        await self.retried(self._book.refresh)
        await self._commit(await self.retried(self._store.outdated))
        evaluator.alarms, evaluator.newest = await self.retried(self._store.load)
        # 100,000 rules are millions of objects, which stay.
        freeze_startup_objects()

    def forget_unwatched(self) -> None:
        """Forget what is known of series that no rule watches any more."""
        self._evaluator.forget_unwatched()

    async def round(self, consumer: Consumer) -> None:
        """Take what has been announced in a round, evaluate what the round before took, store, acknowledge."""
        changes = await self._follow_rules()
        # What waits in the queue may be what was missed: until nothing does, or something new has come.
        has_seen_new = self._has_seen_new
        taken = await self._take(consumer)
        self._is_caught_up = self._is_caught_up or taken is None or has_seen_new
        ordered = self._reorder.next_round()
        changes += self._evaluator.evaluate(ordered)
        if self._book.silences():
            for group in ordered:
                self._silences.seen(group.series, self._book.of_series(group.series))
        # Nor are those of deleted devices, whose silence is none.
        if self._is_caught_up and self._book.knows_deleted:
            changes += self._silences.due(now_ms() - ON_ITS_WAY_MS)
        await self._commit(changes)
        self._evaluated = self._last or self._evaluated
        self._last = taken
        await self._save()
        await self._save_some()
        await self._acknowledge(consumer)
        self._observe()

    async def _acknowledge(self, consumer: Consumer) -> None:
        if self._evaluated is None or self._evaluator.unsaved:
            return
        self._store.require_leading()
        await consumer.acknowledge(self._evaluated, multiple=True)
        self._evaluated, self._unacknowledged = None, 0

    async def _take(self, consumer: Consumer) -> Delivery | None:
        """Take messages until the round ends; return the last, None if there was none."""
        ends_at = asyncio.get_running_loop().time() + ROUND_S
        last: Delivery | None = None
        while True:
            try:
                async with asyncio.timeout_at(ends_at):
                    delivery = await consumer.get()
            except TimeoutError:
                return last
            if last is not None and delivery.generation != last.generation:
                # The messages before are delivered again, on this connection.
                self._last = self._evaluated = None
            last = delivery
            self._unacknowledged += 1
            try:
                for announced in decode_announcement(delivery.message.body):
                    self._reorder.add(announced)
                    newest = announced.readings[-1:]
                    self._has_seen_new = self._has_seen_new or any(one.received_ms >= self._began_ms for one in newest)
            except msgspec.DecodeError as error:
                self._metrics.undecodable.inc()
                log.error("An announcement cannot be decoded; it is dropped.", error=str(error))

    async def _follow_rules(self) -> list[Change]:
        if time.monotonic() < self._rules_at:
            return []
        self._rules_at = time.monotonic() + RULES_EVERY_S
        changed = await self.retried(self._book.refresh)
        if self._book.revision != self._revision:
            self._revision = self._book.revision
            if self._silences.watch_rules(self._book.silences()):
                for series in self._evaluator.newest:
                    self._silences.seen(series, self._book.of_series(series))
        over = [before for before, after in changed if after is None or after.version != before.version]
        ends = self._evaluator.end_of(over, now_ms())
        if self._book.devices_revision != self._devices_revision:
            self._devices_revision = self._book.devices_revision
            ends += self._evaluator.end_of_unwatched(self._book.all(), now_ms())
        return ends

    async def _commit(self, changes: list[Change]) -> None:
        if not changes:
            return
        failpoint("alarms.before_commit")
        recorded = await self.retried(lambda: self._store.commit(changes))
        failpoint("alarms.committed")
        for one in recorded:
            self._metrics.changes.labels(one.state).inc()
        self._on_recorded(recorded)

    async def _save_some(self) -> None:
        """Store some newest readings without which less is known of what is late after a restart."""
        evaluator, some = self._evaluator, list[Series]()
        if not evaluator.moved or time.monotonic() < self._save_some_at:
            return
        self._save_some_at = time.monotonic() + MOVED_EVERY_S
        while evaluator.moved and len(some) < MOVED_AT_ONCE:
            some.append(evaluator.moved.pop())
        newest = [(series, evaluator.newest[series]) for series in some if series in evaluator.newest]
        if newest:
            with suppress(Problem):  # with their next readings
                await self._store.save(newest)

    async def _save(self) -> None:
        evaluator = self._evaluator
        is_due = time.monotonic() >= self._save_at or self._unacknowledged >= PREFETCH // 4
        if not evaluator.unsaved or not is_due:
            return
        self._save_at = time.monotonic() + SAVE_EVERY_S
        unsaved, evaluator.unsaved = evaluator.unsaved, set()
        newest = [(series, evaluator.newest[series]) for series in unsaved if series in evaluator.newest]
        for start in range(0, len(newest), SAVE_ROWS):
            await self.retried(partial(self._store.save, newest[start : start + SAVE_ROWS]))

    def _observe(self) -> None:
        evaluator, metrics = self._evaluator, self._metrics
        metrics.rules.set(len(self._book))
        metrics.evaluated.inc(evaluator.evaluated)
        metrics.late.inc(evaluator.late)
        evaluator.evaluated = evaluator.late = 0

    async def retried(self, do: Callable[[], Awaitable[Result]]) -> Result:
        """Return what `do` returns, once the database answers."""
        while True:
            try:
                return await do()
            except Problem as problem:
                log.debug("The database does not answer; trying again.", why=problem.detail)
            await asyncio.sleep(RETRY_S)
