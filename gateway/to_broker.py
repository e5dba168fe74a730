"""GATEWAY → BROKER: gathers what all devices send into few messages, each confirmed before anyone is acknowledged.

No timer decides when a message is full enough, as in Nagle's rule: while nothing is in flight, what arrived within one
turn of the event loop goes out at once; otherwise readings gather until a confirm comes back or the message is full.
So a quiet gateway answers at once and a busy one sends large messages.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from broker.interface import BrokerError, BrokerUnavailable, Publisher
from broker.message import MAX_BYTES, MAX_READINGS, Message
from broker.topology import READINGS_EXCHANGE
from gateway.metrics import GatewayMetrics


class Busy(Exception):
    """More readings wait for their confirm than the bound allows."""


class _Parcel:
    """Documents that belong together and travel in one message; `sent` resolves when that message is confirmed."""

    __slots__ = ("documents", "sent", "size")

    def __init__(self, documents: Sequence[bytes], size: int, sent: "asyncio.Future[None]") -> None:
        self.documents = documents
        self.size = size
        self.sent = sent


class ToBroker:
    """Publishes documents for every session of this gateway. Enter `running` before sending."""

    def __init__(self, publisher: Publisher, metrics: GatewayMetrics, *, slots: int, max_waiting_bytes: int) -> None:
        self._publisher = publisher
        self._metrics = metrics
        self._slots = slots
        self._max_waiting_bytes = max_waiting_bytes
        self._gathered: deque[_Parcel] = deque()
        self._gathered_bytes = 0
        self._gathered_readings = 0
        self._waiting_bytes = 0
        self._flush_planned = False
        self._in_flight: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ToBroker"]:
        """Stay until the last message in flight has its outcome."""
        try:
            yield self
        finally:
            self._flush()
            while self._in_flight:
                await asyncio.wait(self._in_flight)

    async def send(self, documents: list[bytes]) -> None:
        """Return when every document is confirmed; Busy or BrokerError when nothing may be promised."""
        size = sum(map(len, documents))
        if self._waiting_bytes + size > self._max_waiting_bytes:
            raise Busy
        self._waiting_bytes += size
        self._metrics.waiting_bytes.set(self._waiting_bytes)
        try:
            parcels = self._wrap(documents, size)
            outcomes = await asyncio.gather(*(parcel.sent for parcel in parcels), return_exceptions=True)
        finally:
            self._waiting_bytes -= size
            self._metrics.waiting_bytes.set(self._waiting_bytes)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    def _wrap(self, documents: list[bytes], size: int) -> list[_Parcel]:
        """Queue the documents, in several parcels when one message cannot hold them."""
        groups = [(documents, size)] if size <= MAX_BYTES and len(documents) <= MAX_READINGS else _cut(documents)
        loop = asyncio.get_running_loop()
        parcels = [_Parcel(group, group_size, loop.create_future()) for group, group_size in groups]
        self._gathered.extend(parcels)
        self._gathered_bytes += size
        self._gathered_readings += len(documents)
        if not self._flush_planned:
            self._flush_planned = True
            loop.call_soon(self._flush)
        return parcels

    def _flush(self) -> None:
        self._flush_planned = False
        while self._gathered and len(self._in_flight) < self._slots and (not self._in_flight or self._full()):
            self._publish_next()

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
        task.add_done_callback(self._landed)

    def _landed(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        # A confirm frees a slot: whatever gathered meanwhile goes next, full or not.
        if self._gathered and len(self._in_flight) < self._slots:
            self._publish_next()
            self._flush()

    async def _publish(self, parcels: list[_Parcel]) -> None:
        started = time.perf_counter()
        failure: BrokerError | None = None
        try:
            await self._publisher.publish(
                Message.of([document for parcel in parcels for document in parcel.documents]), READINGS_EXCHANGE
            )
        except BrokerError as error:
            failure = error
        except BaseException:
            failure = BrokerUnavailable("the gateway is ending")
            raise
        finally:
            self._metrics.confirm_seconds.observe(time.perf_counter() - started)
            self._metrics.messages.labels(type(failure).__name__ if failure else "confirmed").inc()
            for parcel in parcels:
                _settle(parcel, failure)


def _settle(parcel: _Parcel, failure: BrokerError | None) -> None:
    if parcel.sent.done():  # its session was cancelled
        return
    if failure is None:
        parcel.sent.set_result(None)
    else:
        parcel.sent.set_exception(failure)


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
