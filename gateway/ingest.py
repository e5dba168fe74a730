"""One event in, one acknowledgement out: decode, check, publish, and acknowledge only after the broker's confirm.

The fast path and the plain path through python-socketio both end here, so a device sees no difference.
"""

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from broker.interface import BrokerError, QueueFull
from gateway.lanes import Lanes
from gateway.limits.rates import LimitExceeded
from gateway.metrics import GatewayMetrics
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.events import Event
from gateway.to_broker import Busy
from readings.encoder import EncodedEvent
from readings.reading import EARLIEST_MS, MAX_READINGS, ReadingError, Rejection
from runtime.log_throttle import LogThrottle
from runtime.logs import logger

log = logger("gateway.ingest")

Ack = dict[str, Any]
"""The acknowledgement of one event, as the device receives it."""
OnAck = Callable[[Ack], None]
"""Called once with the acknowledgement of one event."""

# The acknowledgement of most events.
ACCEPTED_ONE: Ack = {"status": "accepted", "accepted": 1}
# When a device should send the same again: the gateway is full, or the broker is unavailable.
BUSY_RETRY_MS = 500
UNAVAILABLE_RETRY_MS = 2000
ERROR_LOG_EVERY_S = 1.0


def rejected(code: str, detail: str) -> Ack:
    """Return the acknowledgement of an event of which nothing was accepted; sending it again would not help."""
    return {"status": "rejected", "code": code, "detail": detail}


def retry(code: str, retry_after_ms: int) -> Ack:
    """Return the acknowledgement that promises nothing; the device sends the same again."""
    return {"status": "retry", "code": code, "retryAfterMs": retry_after_ms}


class EventHandler:
    """Handles the events of every session."""

    def __init__(
        self, lanes: Lanes, metrics: GatewayMetrics, settings: GatewaySettings, accepted: defaultdict[str, int]
    ) -> None:
        """Handle events with these parts; `accepted` counts the accepted readings of each owner."""
        self._lanes = lanes
        self._accepted = accepted
        self._metrics = metrics
        self._readings = metrics.readings
        self._answer_seconds = metrics.answer_seconds
        # Without a backfill lane no reading is late.
        self._backfill_after_ms = settings.backfill_after_seconds * 1000 or sys.maxsize
        self._max_event_bytes = settings.max_event_bytes
        self._max_in_flight_events = settings.max_in_flight_events
        self._max_in_flight_bytes = settings.max_in_flight_bytes
        self._error_log = LogThrottle(ERROR_LOG_EVERY_S)
        self._draining = False
        self._in_flight = 0
        self._none_in_flight = asyncio.Event()

    def handle(self, session: Session, event: Event, on_ack: OnAck) -> None:
        """Call `on_ack` once with the acknowledgement of the event, valid or not: now, or after its confirm."""
        try:
            ack = self._submit(session, event, on_ack)
        except Exception as error:  # noqa: BLE001 - a bug: without an acknowledgement the device would wait forever
            self._log_error(session, error)
            ack = retry("unavailable", UNAVAILABLE_RETRY_MS)
        if ack is not None:
            on_ack(ack)

    async def handle_async(self, session: Session, event: Event) -> Ack:
        """Return the acknowledgement of the event."""
        outcome: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self.handle(session, event, lambda ack: None if outcome.done() else outcome.set_result(ack))
        return await outcome

    async def drain(self, timeout_s: float) -> int:
        """Accept nothing new and wait for the events in flight; return how many are still unacknowledged."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout_s):
                while self._in_flight:
                    self._none_in_flight.clear()
                    await self._none_in_flight.wait()
        except TimeoutError:
            pass
        return self._in_flight

    def _submit(self, session: Session, event: Event, on_ack: OnAck) -> Ack | None:
        """Return the acknowledgement, or None when it comes with the confirm."""
        started = time.perf_counter()
        if (refusal := self._refuse_undecoded(session, event, started)) is not None:
            return refusal
        quota = session.quota
        try:
            now_ms = time.time_ns() // 1_000_000
            late_before_ms = max(EARLIEST_MS, now_ms - self._backfill_after_ms)
            encoded = self._encode(session, event, now_ms, late_before_ms)
        except _Rejected as error:
            quota.acquire(1, event.size, started)  # a rejected event counts too, but the rejection comes first
            self._readings.rejected += 1
            return rejected(error.code, str(error))
        documents, rejections, size = encoded.documents, encoded.rejected, event.size
        accepted = len(documents)
        count = accepted + len(rejections)
        if (exceeded := quota.acquire(count, size, started)) is not None:
            return self._rate_limited(exceeded, count)
        if rejections:
            self._readings.rejected += len(rejections)
        if not documents:
            self._answer_seconds.observe(time.perf_counter() - started)
            return _accepted_ack(0, rejections)
        try:
            self._lanes.submit(
                documents,
                _PendingEvent(self, session, size, accepted, rejections, started, on_ack),
                receipts=session.receipts,
                late_before_ms=late_before_ms if encoded.late else None,
            )
        except Busy:
            quota.refund(count, size)
            self._readings.retry += accepted
            return retry("busy", BUSY_RETRY_MS)
        session.in_flight_events += 1
        session.in_flight_bytes += size
        self._in_flight += 1
        return None

    def _refuse_undecoded(self, session: Session, event: Event, now: float) -> Ack | None:
        """Return the acknowledgement of an event that is refused before it is decoded."""
        if self._draining:
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        if (
            session.in_flight_events >= self._max_in_flight_events
            or session.in_flight_bytes >= self._max_in_flight_bytes
        ):
            return retry("busy", BUSY_RETRY_MS)
        # A session over its quota is checked first: it must not cost decoding time for events that are refused.
        if session.quota.limited and (exceeded := session.quota.check(event.size, now)) is not None:
            return self._rate_limited(exceeded, 1)
        return None

    def _rate_limited(self, exceeded: LimitExceeded, count: int) -> Ack:
        self._metrics.limited.labels(exceeded.scope).inc()
        self._readings.retry += count
        ack = retry("rate_limited", exceeded.retry_after_ms)
        return {**ack, "limit": exceeded.limit, "scope": exceeded.scope}

    def _encode(self, session: Session, event: Event, now_ms: int, late_before_ms: int) -> EncodedEvent:
        if event.size > self._max_event_bytes:
            raise _Rejected("too_large", f"an event may have at most {self._max_event_bytes} bytes")
        if event.name is None:
            raise _Rejected("invalid_reading", "the event is not a JSON array that starts with its name")
        if event.name not in ("reading", "readings"):
            raise _Rejected("unknown_event", f"there is no event {event.name[:64]!r}")
        if len(event.arguments) != 1:
            raise _Rejected("invalid_reading", f"{event.name} takes one payload, {len(event.arguments)} were sent")
        payload = event.arguments[0]
        try:
            if event.name == "reading":
                return session.encoder.encode_single(payload, now_ms, late_before_ms)
            encoded = session.encoder.encode_many(payload, now_ms, late_before_ms)
        except ReadingError as error:
            if (reparsed := event.reparsed()) is not None:
                return self._encode(session, reparsed, now_ms, late_before_ms)
            raise _Rejected(error.code, error.detail) from error
        count = len(encoded.documents) + len(encoded.rejected)
        if not 1 <= count <= MAX_READINGS:
            raise _Rejected("batch_size", f"readings takes 1 to {MAX_READINGS} readings, {count} were sent")
        return encoded

    def on_confirm(self, pending: "_PendingEvent", failure: BrokerError | None) -> Ack:
        """Return the acknowledgement of an event whose publish was confirmed, or has failed."""
        session = pending.session
        session.in_flight_events -= 1
        session.in_flight_bytes -= pending.size
        self._in_flight -= 1
        if not self._in_flight:
            self._none_in_flight.set()
        self._answer_seconds.observe(time.perf_counter() - pending.started)
        if failure is None:
            self._readings.accepted += pending.accepted
            self._accepted[session.owner] += pending.accepted
            return _accepted_ack(pending.accepted, pending.rejected)
        self._readings.retry += pending.accepted
        if isinstance(failure, QueueFull):
            return retry("busy", BUSY_RETRY_MS)
        return retry("unavailable", UNAVAILABLE_RETRY_MS)

    def _log_error(self, session: Session, error: Exception) -> None:
        self._metrics.faults.inc()
        if (suppressed := self._error_log.should_emit()) is not None:
            fields = {"fault": uuid4().hex, "device": session.device, "suppressed": suppressed}
            log.error("An event could not be handled.", **fields, exc_info=error)


def _accepted_ack(count: int, rejected: list[Rejection]) -> Ack:
    if rejected:
        return {"status": "partial", "accepted": count, "rejected": rejected}
    return ACCEPTED_ONE if count == 1 else {"status": "accepted", "accepted": count}


class _PendingEvent:
    """An event between its publish and its confirm."""

    __slots__ = ("_handler", "_on_ack", "accepted", "rejected", "session", "size", "started")

    def __init__(
        self,
        handler: EventHandler,
        session: Session,
        size: int,
        accepted: int,
        rejected: list[Rejection],
        started: float,
        on_ack: OnAck,
    ) -> None:
        self._handler = handler
        self._on_ack = on_ack
        self.session = session
        self.size = size
        self.started = started
        # How many of its readings are accepted with the confirm, and those that are not.
        self.accepted = accepted
        self.rejected = rejected

    def __call__(self, failure: BrokerError | None) -> None:
        """Acknowledge the event; called by Lanes with the outcome of its documents."""
        self._on_ack(self._handler.on_confirm(self, failure))


class _Rejected(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
