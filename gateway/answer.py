"""One event in, one acknowledgement out: decode, check, publish, and say `accepted` only after the confirm."""

import time
from typing import Any

from broker.document import encode_document
from broker.interface import BrokerError, QueueFull
from broker.reading import MAX_READINGS, Checked, ReadingError, check_many, check_one, count
from gateway.metrics import GatewayMetrics
from gateway.packets import Event
from gateway.session import Session
from gateway.to_broker import Busy, ToBroker

Answer = dict[str, Any]

# How soon a device should send the same again: when the gateway is full, and when the broker is away.
BUSY_RETRY_MS = 500
UNAVAILABLE_RETRY_MS = 2000


def rejected(code: str, detail: str) -> Answer:
    """Nothing was taken; sending it again would not help."""
    return {"status": "rejected", "code": code, "detail": detail}


def retry(code: str, retry_after_ms: int) -> Answer:
    """Nothing is promised; the device sends the same again."""
    return {"status": "retry", "code": code, "retryAfterMs": retry_after_ms}


class Answerer:
    """Answers the events of every session; the plain path and any faster one end here."""

    def __init__(self, to_broker: ToBroker, metrics: GatewayMetrics, max_event_bytes: int) -> None:
        self._to_broker = to_broker
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes

    async def answer(self, session: Session, event: Event) -> Answer:
        """Return the acknowledgement of one event, whatever its form."""
        started = time.perf_counter()
        try:
            checked = self._checked(session, event)
        except _NotTaken as error:
            self._metrics.readings.labels("rejected").inc()
            return rejected(error.code, str(error))
        if checked.rejected:
            self._metrics.readings.labels("rejected").inc(len(checked.rejected))
        failure = await self._publish(session, checked) if checked.readings else None
        self._metrics.answer_seconds.observe(time.perf_counter() - started)
        if failure is not None:
            return failure
        if event.name == "reading" or not checked.rejected:
            return {"status": "accepted", "accepted": len(checked.readings)}
        return {"status": "partial", "accepted": len(checked.readings), "rejected": checked.rejected}

    def _checked(self, session: Session, event: Event) -> Checked:
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
                return Checked([check_one(payload, session.defaults, now_ms)], [])
            checked = check_many(payload, session.defaults, now_ms)
        except ReadingError as error:
            raise _NotTaken(error.code, error.detail) from error
        if not 1 <= len(checked.readings) + len(checked.rejected) <= MAX_READINGS:
            raise _NotTaken("batch_size", f"readings takes 1 to {MAX_READINGS} readings, {count(payload)} were sent")
        return checked

    async def _publish(self, session: Session, checked: Checked) -> Answer | None:
        documents = [encode_document(session.owner, session.device, reading) for reading in checked.readings]
        try:
            await self._to_broker.send(documents)
        except (Busy, QueueFull):
            self._metrics.readings.labels("retry").inc(len(documents))
            return retry("busy", BUSY_RETRY_MS)
        except BrokerError:
            self._metrics.readings.labels("retry").inc(len(documents))
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        self._metrics.readings.labels("accepted").inc(len(documents))
        return None


class _NotTaken(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
