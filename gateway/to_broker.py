"""LANE → BROKER: batches the readings of all devices into few messages, each confirmed before any acknowledgement.

As in Nagle's algorithm, while nothing is in flight, whatever arrived within one turn of the event loop is published at
once; otherwise readings are buffered until a confirm arrives or the message is full. So a quiet gateway answers at once
and a busy one sends large messages. After a confirm that acknowledges many events the gateway lingers: only a full
message is sent for a while, because the devices' next readings are on their way, and a message costs as much for ten
readings as for a hundred (docs/decisions/0012). With many sessions it lingers after any message, and for longer after a
small one (docs/decisions/0035).

If the gateway dies before it has acknowledged a message's readings, confirmed or not, devices send them again: those
that the broker already holds end as duplicates of the key (docs/decisions/0001). Only a reading sent without `ts` may
be stored twice.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

from broker.failpoints import failpoint
from broker.interface import BrokerError, BrokerUnavailable, Publisher
from broker.message import MAX_BYTES, MAX_READINGS, Message
from broker.receipts import header_of
from broker.topology import READINGS_EXCHANGE, Exchange
from gateway.metrics import GatewayMetrics
from runtime.logs import logger

log = logger("gateway.to_broker")

# A message of at least MANY_EVENTS marks the gateway as busy: it then lingers LINGER_S before sending a message that is
# not full.
MANY_EVENTS = 8
LINGER_S = 0.0015
# With FLEET sessions it lingers after every message, FLEET_LINGER_S after one of less than FLEET_EVENTS: what so many
# devices send one by one would else cost a message each.
FLEET = 500
FLEET_EVENTS = 64
FLEET_LINGER_S = 0.02


class Busy(Exception):
    """The bound on unconfirmed readings is reached."""


OnOutcome = Callable[[BrokerError | None], None]
"""Called once with the outcome of documents: None when they are confirmed, else why nothing may be promised."""


class _Entry:
    """Documents that belong together and travel in one message; `on_outcome` is called with that message's outcome."""

    __slots__ = ("documents", "on_outcome", "receipts", "size")

    def __init__(self, documents: Sequence[bytes], size: int, on_outcome: OnOutcome, receipts: bool) -> None:
        self.documents = documents
        self.size = size
        self.on_outcome = on_outcome
        self.receipts = receipts


class ToBroker:
    """Publishes documents of every session of this gateway to one exchange. Enter `running` before calling `submit`."""

    def __init__(
        self,
        publisher: Publisher,
        metrics: GatewayMetrics,
        *,
        slots: int,
        max_waiting_bytes: int,
        linger_s: float = LINGER_S,
        fleet_linger_s: float = FLEET_LINGER_S,
        exchange: Exchange = READINGS_EXCHANGE,
    ) -> None:
        self._publisher = publisher
        self._exchange = exchange
        self._metrics = metrics
        self._slots = slots
        self._max_waiting_bytes = max_waiting_bytes
        self._buffer: deque[_Entry] = deque()
        self._buffered_bytes = 0
        self._buffered_readings = 0
        # Bytes buffered or in flight.
        self.waiting_bytes = 0
        self._flush_scheduled = False
        self._linger_s = linger_s
        self._fleet_linger_s = fleet_linger_s
        self._lingering = False
        self._in_flight: set[asyncio.Task[None]] = set()

    def running(self) -> "Running":
        """Return a context; on leaving it, what is buffered is published, and the outcome of every message awaited."""
        return Running(self)

    async def finish(self) -> None:
        """Publish what is buffered and wait for the outcome of every message in flight."""
        self._linger_s, self._lingering = 0.0, False
        self._flush()
        while self._in_flight:
            await asyncio.wait(self._in_flight)

    def submit(self, documents: list[bytes], on_outcome: OnOutcome, *, receipts: bool = False) -> None:
        """Queue documents; `on_outcome` is called once, later, with the outcome of all. Busy: none are queued.

        `receipts`: their device gets a receipt when they are stored.
        """
        size = len(documents[0]) if len(documents) == 1 else sum(map(len, documents))
        if self.waiting_bytes + size > self._max_waiting_bytes:
            raise Busy
        if size <= MAX_BYTES and len(documents) <= MAX_READINGS:
            self._buffer.append(_Entry(documents, size, on_outcome, receipts))
        else:
            groups = _split(documents)
            joined = JoinedOutcome(len(groups), on_outcome)
            self._buffer.extend(_Entry(group, group_size, joined, receipts) for group, group_size in groups)
        self.waiting_bytes += size
        self._buffered_bytes += size
        self._buffered_readings += len(documents)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def has_room(self, documents: list[bytes]) -> bool:
        """Return whether `submit` would queue these now."""
        return self.waiting_bytes + sum(map(len, documents)) <= self._max_waiting_bytes

    def _flush(self) -> None:
        self._flush_scheduled = False
        while self._buffer and len(self._in_flight) < self._slots and (self._is_full() or self._is_idle()):
            self._publish_next()

    def _is_idle(self) -> bool:
        return not self._in_flight and not self._lingering

    def _is_full(self) -> bool:
        return self._buffered_bytes >= MAX_BYTES or self._buffered_readings >= MAX_READINGS

    def _publish_next(self) -> None:
        entries: list[_Entry] = []
        size = readings = 0
        while self._buffer:
            entry = self._buffer[0]
            if entries and (size + entry.size > MAX_BYTES or readings + len(entry.documents) > MAX_READINGS):
                break
            self._buffer.popleft()
            entries.append(entry)
            size += entry.size
            readings += len(entry.documents)
        self._buffered_bytes -= size
        self._buffered_readings -= readings
        task = asyncio.ensure_future(self._publish(entries))
        self._in_flight.add(task)
        task.add_done_callback(partial(self._on_publish_done, len(entries)))

    def _on_publish_done(self, events: int, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        linger_s = self._linger_after(events)
        if linger_s and not self._lingering:
            self._lingering = True
            asyncio.get_running_loop().call_later(linger_s, self._end_linger)
        self._publish_if_ready()

    def _linger_after(self, events: int) -> float:
        if self._linger_s and events < FLEET_EVENTS and self._metrics.open_sessions >= FLEET:
            return self._fleet_linger_s
        return self._linger_s if events >= MANY_EVENTS else 0.0

    def _end_linger(self) -> None:
        self._lingering = False
        self._publish_if_ready()

    def _publish_if_ready(self) -> None:
        """Use a free slot: publish what is buffered, full or not; while lingering only a full message."""
        if self._buffer and len(self._in_flight) < self._slots and (self._is_full() or not self._lingering):
            self._publish_next()
            self._flush()

    async def _publish(self, entries: list[_Entry]) -> None:
        started = time.perf_counter()
        failure: BrokerError | None = None
        try:
            failpoint("gateway.before_publish")
            documents = list(chain.from_iterable([entry.documents for entry in entries]))
            await self._publisher.publish(Message.of(documents, _receipts_of(entries)), self._exchange)
            failpoint("gateway.confirmed")
        except BrokerError as error:
            failure = error
        except BaseException:
            failure = BrokerUnavailable("the gateway is stopping")
            raise
        finally:
            self._metrics.confirm_seconds.observe(time.perf_counter() - started)
            self._metrics.messages.labels(type(failure).__name__ if failure else "confirmed").inc()
            self._report(entries, failure)

    def _report(self, entries: list[_Entry], failure: BrokerError | None) -> None:
        for entry in entries:
            self.waiting_bytes -= entry.size
            try:
                entry.on_outcome(failure)
            except Exception:  # the other entries of this message must get their outcome all the same
                log.exception("The outcome of a publish could not be reported to its sender.")


class Running:
    """The context in which a lane publishes."""

    __slots__ = ("_lane",)

    def __init__(self, lane: ToBroker) -> None:
        self._lane = lane

    async def __aenter__(self) -> ToBroker:
        """Return the lane."""
        return self._lane

    async def __aexit__(self, *_: object) -> None:
        """Publish the rest."""
        await self._lane.finish()


class JoinedOutcome:
    """Waits for `count` outcomes of one event, and reports one; the first failure is the event's."""

    __slots__ = ("_failure", "_on_outcome", "_remaining")

    def __init__(self, count: int, on_outcome: OnOutcome) -> None:
        self._remaining = count
        self._failure: BrokerError | None = None
        self._on_outcome = on_outcome

    def __call__(self, failure: BrokerError | None) -> None:
        """Take one outcome; the last one is followed by the report."""
        self._remaining -= 1
        self._failure = self._failure or failure
        if not self._remaining:
            self._on_outcome(self._failure)


def _receipts_of(entries: list[_Entry]) -> str:
    """Return which documents of a message need a receipt, as its header; nearly always none."""
    ranges, start = [], 0
    for entry in entries:
        end = start + len(entry.documents)
        if entry.receipts:
            ranges.append((start, end))
        start = end
    return header_of(ranges) if ranges else ""


def _split(documents: list[bytes]) -> list[tuple[list[bytes], int]]:
    """Split documents into groups that each fit into one message; return each group with its size in bytes."""
    groups: list[tuple[list[bytes], int]] = [([], 0)]
    for document in documents:
        group, size = groups[-1]
        if group and (size + len(document) > MAX_BYTES or len(group) == MAX_READINGS):
            group, size = [], 0
            groups.append((group, size))
        group.append(document)
        groups[-1] = (group, size + len(document))
    return groups
