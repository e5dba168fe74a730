"""GATEWAY → BROKER: gathers what all devices send into few messages, each confirmed before anyone is acknowledged.

As in Nagle's rule, while nothing is in flight, what arrived within one turn of the event loop goes out at once;
otherwise readings gather until a confirm comes back or the message is full. So a quiet gateway answers at once and a
busy one sends large messages. A confirm that answers many events is followed by a moment in which only a full message
goes: what devices send next is on its way, and a message costs as much for ten readings as for a hundred
(docs/decisions/0012).
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain

from broker.failpoints import failpoint
from broker.interface import BrokerError, BrokerUnavailable, Publisher
from broker.message import MAX_BYTES, MAX_READINGS, Message
from broker.topology import READINGS_EXCHANGE
from gateway.metrics import GatewayMetrics
from runtime.logs import logger

log = logger("gateway.to_broker")

# So many events in one message are of a busy gateway; and for so long it waits for what their devices send next.
MANY_EVENTS = 8
MOMENT_S = 0.0015


class Busy(Exception):
    """More readings wait for their confirm than the bound allows."""


Settled = Callable[[BrokerError | None], None]
"""Learns once what became of documents: None when they are confirmed, else why nothing may be promised."""


class _Parcel:
    """Documents that belong together and travel in one message; `settled` is called with that message's outcome."""

    __slots__ = ("documents", "settled", "size")

    def __init__(self, documents: Sequence[bytes], size: int, settled: Settled) -> None:
        self.documents = documents
        self.size = size
        self.settled = settled


class ToBroker:
    """Publishes documents for every session of this gateway. Enter `running` before sending."""

    def __init__(
        self,
        publisher: Publisher,
        metrics: GatewayMetrics,
        *,
        slots: int,
        max_waiting_bytes: int,
        moment_s: float = MOMENT_S,
    ) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._slots = slots
        self._max_waiting_bytes = max_waiting_bytes
        self._gathered: deque[_Parcel] = deque()
        self._gathered_bytes = 0
        self._gathered_readings = 0
        self._waiting_bytes = 0
        self._flush_planned = False
        self._moment_s = moment_s
        self._waiting_a_moment = False
        metrics.waiting_bytes.set_function(lambda: self._waiting_bytes)
        self._in_flight: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ToBroker"]:
        """Stay until the last message in flight has its outcome."""
        try:
            yield self
        finally:
            self._moment_s, self._waiting_a_moment = 0.0, False
            self._flush()
            while self._in_flight:
                await asyncio.wait(self._in_flight)

    async def send(self, documents: list[bytes]) -> None:
        """Return when every document is confirmed; Busy or BrokerError when nothing may be promised."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hand_over(documents, lambda failure: _resolve(outcome, failure))
        await outcome

    def hand_over(self, documents: list[bytes], settled: Settled) -> None:
        """Take documents and call `settled` once, later, with what became of all of them; Busy: none were taken."""
        size = sum(map(len, documents))
        if self._waiting_bytes + size > self._max_waiting_bytes:
            raise Busy
        if size <= MAX_BYTES and len(documents) <= MAX_READINGS:
            self._gathered.append(_Parcel(documents, size, settled))
        else:
            groups = _cut(documents)
            part_settled = _Parts(len(groups), settled)
            self._gathered.extend(_Parcel(group, group_size, part_settled) for group, group_size in groups)
        self._waiting_bytes += size
        self._gathered_bytes += size
        self._gathered_readings += len(documents)
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        while self._gathered and len(self._in_flight) < self._slots and (self._full() or self._quiet()):
            self._publish_next()

    def _quiet(self) -> bool:
        return not self._in_flight and not self._waiting_a_moment

    def _full(self) -> bool:
        return self._gathered_bytes >= MAX_BYTES or self._gathered_readings >= MAX_READINGS

    def _publish_next(self) -> None:
        parcels: list[_Parcel] = []
        size = readings = 0
        while self._gathered:
            parcel = self._gathered[0]
            if parcels and (size + parcel.size > MAX_BYTES or readings + len(parcel.documents) > MAX_READINGS):
                break
            self._gathered.popleft()
            parcels.append(parcel)
            size += parcel.size
            readings += len(parcel.documents)
        self._gathered_bytes -= size
        self._gathered_readings -= readings
        task = asyncio.ensure_future(self._publish(parcels))
        self._in_flight.add(task)
        task.add_done_callback(partial(self._landed, len(parcels)))

    def _landed(self, events: int, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        if events >= MANY_EVENTS and self._moment_s and not self._waiting_a_moment:
            self._waiting_a_moment = True
            asyncio.get_running_loop().call_later(self._moment_s, self._moment_is_over)
        self._go_on()

    def _moment_is_over(self) -> None:
        self._waiting_a_moment = False
        self._go_on()

    def _go_on(self) -> None:
        """Use a free slot: whatever gathered meanwhile goes next, full or not; in a moment of waiting only if full."""
        if self._gathered and len(self._in_flight) < self._slots and (self._full() or not self._waiting_a_moment):
            self._publish_next()
            self._flush()

    async def _publish(self, parcels: list[_Parcel]) -> None:
        started = time.perf_counter()
        failure: BrokerError | None = None
        try:
            failpoint("gateway.before_publish")
            await self._publisher.publish(
                Message.of(list(chain.from_iterable(parcel.documents for parcel in parcels))), READINGS_EXCHANGE
            )
            failpoint("gateway.confirmed")
        except BrokerError as error:
            failure = error
        except BaseException:
            failure = BrokerUnavailable("the gateway is ending")
            raise
        finally:
            self._metrics.confirm_seconds.observe(time.perf_counter() - started)
            self._metrics.messages.labels(type(failure).__name__ if failure else "confirmed").inc()
            self._settle(parcels, failure)

    def _settle(self, parcels: list[_Parcel], failure: BrokerError | None) -> None:
        for parcel in parcels:
            self._waiting_bytes -= parcel.size
            try:
                parcel.settled(failure)
            except Exception:  # the others of this message must learn of it all the same
                log.exception("A sender could not be told what became of its readings.")


class _Parts:
    """Waits for the outcomes of all parcels of one event; the first failure is the event's."""

    __slots__ = ("_failure", "_left", "_settled")

    def __init__(self, count: int, settled: Settled) -> None:
        self._left = count
        self._failure: BrokerError | None = None
        self._settled = settled

    def __call__(self, failure: BrokerError | None) -> None:
        self._left -= 1
        self._failure = self._failure or failure
        if not self._left:
            self._settled(self._failure)


def _resolve(outcome: "asyncio.Future[None]", failure: BrokerError | None) -> None:
    if outcome.done():  # whoever waited was cancelled
        return
    if failure is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(failure)


def _cut(documents: list[bytes]) -> list[tuple[list[bytes], int]]:
    groups: list[tuple[list[bytes], int]] = [([], 0)]
    for document in documents:
        group, size = groups[-1]
        if group and (size + len(document) > MAX_BYTES or len(group) == MAX_READINGS):
            group, size = [], 0
            groups.append((group, size))
        group.append(document)
        groups[-1] = (group, size + len(document))
    return groups
