"""One event in, one acknowledgement out: decode, check, publish, and say `accepted` only after the confirm.

Both lanes, the fast one and the plain one through python-socketio, end here, so a device cannot tell them apart.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from broker.interface import BrokerError, QueueFull
from gateway.limits.rates import Limited
from gateway.metrics import GatewayMetrics
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.packets import Event
from gateway.to_broker import Busy, ToBroker
from readings.encoder import EncodedEvent
from readings.reading import MAX_READINGS, ReadingError
from runtime.log_throttle import LogThrottle
from runtime.logs import logger

log = logger("gateway.ingest")

Answer = dict[str, Any]
Done = Callable[[Answer], None]
"""Takes the acknowledgement of one event; called once."""

# What most events are answered with.
ACCEPTED_ONE: Answer = {"status": "accepted", "accepted": 1}
# How soon a device should send the same again: when the gateway is full, and when the broker is away.
BUSY_RETRY_MS = 500
UNAVAILABLE_RETRY_MS = 2000
FAULT_LOG_EVERY_S = 1.0


def rejected(code: str, detail: str) -> Answer:
    """Nothing was taken; sending it again would not help."""
    return {"status": "rejected", "code": code, "detail": detail}


def retry(code: str, retry_after_ms: int) -> Answer:
    """Nothing is promised; the device sends the same again."""
    return {"status": "retry", "code": code, "retryAfterMs": retry_after_ms}


def _retry_limited(limited: Limited) -> Answer:
    wait = retry("rate_limited", limited.retry_after_ms)
    return {**wait, "limit": limited.limit, "scope": limited.scope}


class Answerer:
    """Answers the events of every session."""

    def __init__(
        self, to_broker: ToBroker, metrics: GatewayMetrics, settings: GatewaySettings, accepted: defaultdict[str, int]
    ) -> None:
        """Answer with these parts; `accepted` counts the readings of each owner."""
        self._to_broker = to_broker
        self._accepted = accepted
        self._metrics = metrics
        self._max_event_bytes = settings.max_event_bytes
        self._max_in_flight_events = settings.max_in_flight_events
        self._max_in_flight_bytes = settings.max_in_flight_bytes
        self._fault_log = LogThrottle(FAULT_LOG_EVERY_S)
        self._draining = False
        self._in_flight = 0
        self._landed = asyncio.Event()

    def answer(self, session: Session, event: Event, done: Done) -> None:
        """Call `done` once with the acknowledgement of the event, whatever its form: now, or after its confirm."""
        try:
            answer = self._begin(session, event, done)
        except Exception as error:  # noqa: BLE001 - a fault of ours: without an answer the device would wait for ever
            self._tell_fault(session, error)
            answer = retry("unavailable", UNAVAILABLE_RETRY_MS)
        if answer is not None:
            done(answer)

    async def answered(self, session: Session, event: Event) -> Answer:
        """Return the acknowledgement of the event."""
        outcome: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.answer(session, event, lambda answer: None if outcome.done() else outcome.set_result(answer))
        return await outcome

    async def drain(self, timeout_s: float) -> int:
        """Take nothing new and wait for what is in flight; return how many events stay unanswered."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout_s):
                while self._in_flight:
                    self._landed.clear()
                    await self._landed.wait()
        except TimeoutError:
            pass
        return self._in_flight

    def _begin(self, session: Session, event: Event, done: Done) -> Answer | None:
        """Return the answer, or None when it comes with the confirm."""
        started = time.perf_counter()
        if (refusal := self._refusal(session, event, started)) is not None:
            return refusal
        allowance = session.allowance
        try:
            taken = self._taken(session, event)
        except _NotTaken as error:
            allowance.admit(1, event.size, started)  # what is wrong counts too, but is told first
            self._metrics.readings.rejected += 1
            return rejected(error.code, str(error))
        count = len(taken.documents) + len(taken.rejected)
        if (limited := allowance.admit(count, event.size, started)) is not None:
            return self._limit(limited, count)
        if taken.rejected:
            self._metrics.readings.rejected += len(taken.rejected)
        if not taken.documents:
            self._metrics.answer_seconds.observe(time.perf_counter() - started)
            return _taken_answer(taken)
        try:
            self._to_broker.hand_over(taken.documents, _InFlight(self, session, event.size, taken, started, done))
        except Busy:
            allowance.requeue(count, event.size)
            self._metrics.readings.retry += len(taken.documents)
            return retry("busy", BUSY_RETRY_MS)
        session.in_flight_events += 1
        session.in_flight_bytes += event.size
        self._in_flight += 1
        return None

    def _refusal(self, session: Session, event: Event, now: float) -> Answer | None:
        """Return the answer of an event that is not even looked at."""
        if self._draining:
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        if (
            session.in_flight_events >= self._max_in_flight_events
            or session.in_flight_bytes >= self._max_in_flight_bytes
        ):
            return retry("busy", BUSY_RETRY_MS)
        # Whoever was just limited is asked first: to decode what cannot be taken would be its way to cost time.
        if session.allowance.limited and (limited := session.allowance.closed(event.size, now)) is not None:
            return self._limit(limited, 1)
        return None

    def _limit(self, limited: Limited, count: int) -> Answer:
        self._metrics.limited.labels(limited.scope).inc()
        self._metrics.readings.retry += count
        return _retry_limited(limited)

    def _taken(self, session: Session, event: Event) -> EncodedEvent:
        if event.size > self._max_event_bytes:
            raise _NotTaken("too_large", f"an event may have at most {self._max_event_bytes} bytes")
        if event.name is None:
            raise _NotTaken("invalid_reading", "the event is not a JSON array that starts with its name")
        if event.name not in ("reading", "readings"):
            raise _NotTaken("unknown_event", f"there is no event {event.name[:64]!r}")
        if len(event.arguments) != 1:
            raise _NotTaken("invalid_reading", f"{event.name} takes one payload, {len(event.arguments)} were sent")
        payload, now_ms = event.arguments[0], time.time_ns() // 1_000_000
        try:
            if event.name == "reading":
                return EncodedEvent([session.intake.encode_one(payload, now_ms)], [])
            taken = session.intake.encode_many(payload, now_ms)
        except ReadingError as error:
            if (again := event.second_look()) is not None:
                return self._taken(session, again)
            raise _NotTaken(error.code, error.detail) from error
        count = len(taken.documents) + len(taken.rejected)
        if not 1 <= count <= MAX_READINGS:
            raise _NotTaken("batch_size", f"readings takes 1 to {MAX_READINGS} readings, {count} were sent")
        return taken

    def landed(self, flight: "_InFlight", failure: BrokerError | None) -> Answer:
        """Return the answer to an event whose publish has its outcome."""
        flight.session.in_flight_events -= 1
        flight.session.in_flight_bytes -= flight.size
        self._in_flight -= 1
        if not self._in_flight:
            self._landed.set()
        metrics, count = self._metrics, len(flight.taken.documents)
        metrics.answer_seconds.observe(time.perf_counter() - flight.started)
        if failure is None:
            metrics.readings.accepted += count
            self._accepted[flight.session.owner] += count
            return _taken_answer(flight.taken)
        metrics.readings.retry += count
        if isinstance(failure, QueueFull):
            return retry("busy", BUSY_RETRY_MS)
        return retry("unavailable", UNAVAILABLE_RETRY_MS)

    def _tell_fault(self, session: Session, error: Exception) -> None:
        self._metrics.faults.inc()
        if (left_out := self._fault_log.due()) is not None:
            found = {"fault": uuid4().hex, "device": session.device, "left_out": left_out}
            log.error("An event could not be answered.", **found, exc_info=error)


def _taken_answer(taken: EncodedEvent) -> Answer:
    count = len(taken.documents)
    if taken.rejected:
        return {"status": "partial", "accepted": count, "rejected": taken.rejected}
    return ACCEPTED_ONE if count == 1 else {"status": "accepted", "accepted": count}


class _InFlight:
    """An event between its publish and its confirm."""

    __slots__ = ("_answerer", "_done", "session", "size", "started", "taken")

    def __init__(
        self, answerer: Answerer, session: Session, size: int, taken: EncodedEvent, started: float, done: Done
    ) -> None:
        self._answerer = answerer
        self._done = done
        self.session = session
        self.size = size
        self.started = started
        self.taken = taken

    def __call__(self, failure: BrokerError | None) -> None:
        """Answer; called by ToBroker with what became of the documents."""
        self._done(self._answerer.landed(self, failure))


class _NotTaken(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
