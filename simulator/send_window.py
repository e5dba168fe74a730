"""A device's unacknowledged readings: queued, in flight, resent, settled. Independent of how connections are made.

At most `window` events are in flight. Only `accepted`, `partial` and `rejected` settle a reading; after any other
outcome its event returns to the front of the queue, with the same identities.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from readings.reading import MAX_READINGS
from simulator.backoff import jitter
from simulator.reading import DeviceReading, Identity, OnSettled, ReadingOutcome
from simulator.socket_connection import Ack, SocketConnection

# A gateway refuses events above 1 MiB; the rest is room for the event's name.
MAX_EVENT_BYTES = 1_000_000
# Bounds on the wait that a `retry` may request, and the wait after an acknowledgement that cannot be read.
MIN_RETRY_S = 0.05
MAX_RETRY_S = 30.0
UNKNOWN_ACK_RETRY_S = 1.0


class _Event:
    """The readings of one event; `first_sent_at` is 0 until it is sent."""

    __slots__ = ("first_sent_at", "readings", "sent_at")

    def __init__(self, readings: Sequence[DeviceReading], first_sent_at: float = 0.0) -> None:
        self.readings = readings
        self.first_sent_at = first_sent_at
        self.sent_at = 0.0


class SendWindow:
    """Sends on one connection at a time: `attach` it when it is open, `detach` when it is lost."""

    def __init__(
        self,
        device: str,
        *,
        window: int,
        max_unacked: int,
        timeout_s: float,
        on_settled: OnSettled,
        on_sent: Callable[[int], None],
        on_retried: Callable[[int], None],
    ) -> None:
        self._device = device
        self._window = window
        self._max_unacked = max_unacked
        self._timeout_s = timeout_s
        self._on_settled = on_settled
        self._on_sent = on_sent
        self._on_retried = on_retried
        self._queue: deque[_Event] = deque()
        self._in_flight: dict[int, _Event] = {}
        self._connection: SocketConnection | None = None
        self._paused_until = 0.0
        self._resume_timer: asyncio.TimerHandle | None = None
        self._timeout_timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self.unacked = 0
        self.last_ack_at = 0.0

    async def enqueue(self, readings: Sequence[DeviceReading]) -> None:
        """Queue readings in events of at most 1,000; wait while there is no room."""
        size = min(MAX_READINGS, self._max_unacked)
        for start in range(0, len(readings), size):
            batch = readings[start : start + size]
            await self._until_at_most(self._max_unacked - len(batch))
            self.unacked += len(batch)
            self._queue.append(_Event(batch))
            self._send_queued()

    async def drain(self) -> None:
        """Return when every reading is settled."""
        await self._until_at_most(0)

    def fail(self, error: BaseException) -> None:
        """Raise the error in every call that waits, and in every later one."""
        self._failure = error
        self._changed.set()

    def attach(self, connection: SocketConnection) -> None:
        """Send on this connection from now on."""
        self._connection = connection
        self._send_queued()

    def detach(self) -> None:
        """Stop sending; return the events in flight to the front of the queue."""
        self._connection = None
        self._queue.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._resume_timer, self._timeout_timer):
            if timer is not None:
                timer.cancel()

    def on_ack(self, number: int, ack: Ack) -> None:
        """Process the acknowledgement of the connection's event `number`."""
        self.last_ack_at = now = time.monotonic()
        event = self._in_flight.pop(number, None)
        if event is None:  # it timed out, and was resent under another number
            return
        if ack.status == "accepted":
            self._settle(event, frozenset(), now)
        elif ack.status == "partial":
            self._settle(event, frozenset(item.index for item in ack.rejected), now)
        elif ack.status == "rejected":
            self._settle(event, frozenset(range(len(event.readings))), now)
        else:
            requested_s = ack.retry_after_ms / 1000 if ack.status == "retry" else UNKNOWN_ACK_RETRY_S
            pause_s = min(max(requested_s, MIN_RETRY_S), MAX_RETRY_S)
            self._paused_until = max(self._paused_until, now + jitter(pause_s, pause_s * 1.5))
            self._queue.appendleft(event)
        self._send_queued()

    async def _until_at_most(self, count: int) -> None:
        """Return when at most `count` readings are unacknowledged; raises what `fail` was given."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self.unacked <= count:
                return
            self._changed.clear()
            await self._changed.wait()

    def _send_queued(self) -> None:
        """Send queued events as far as the connection, the window and pauses allow."""
        connection = self._connection
        if connection is None or connection.lost or not self._queue:
            return
        now = time.monotonic()
        if now < self._paused_until:
            if self._resume_timer is None:
                self._resume_timer = asyncio.get_running_loop().call_later(self._paused_until - now, self._resume)
            return
        while self._queue and len(self._in_flight) < self._window:
            self._send(connection, self._queue.popleft(), now)
        self._schedule_timeout_check(now)

    def _send(self, connection: SocketConnection, event: _Event, now: float) -> None:
        readings = event.readings
        payload = msgspec.json.encode(readings[0] if len(readings) == 1 else readings)
        if len(payload) > MAX_EVENT_BYTES and len(readings) > 1:
            half = len(readings) // 2
            self._queue.appendleft(_Event(readings[half:], event.first_sent_at))
            self._queue.appendleft(_Event(readings[:half], event.first_sent_at))
            return
        if event.first_sent_at:
            self._on_retried(len(readings))
        else:
            event.first_sent_at = now
            self._on_sent(len(readings))
        event.sent_at = now
        self._in_flight[connection.emit("reading" if len(readings) == 1 else "readings", payload)] = event

    def _resume(self) -> None:
        self._resume_timer = None
        self._send_queued()

    def _check_timeouts(self) -> None:
        self._timeout_timer = None
        due = time.monotonic() - self._timeout_s
        late = [number for number, event in self._in_flight.items() if event.sent_at <= due]
        connection = self._connection
        if connection is not None and late and self.last_ack_at < self._in_flight[late[0]].sent_at:
            # No acknowledgement since: the peer is gone without a close. A new connection resends everything.
            connection.mark_lost()
            return
        for number in reversed(late):
            self._queue.appendleft(self._in_flight.pop(number))
        self._send_queued()
        self._schedule_timeout_check(time.monotonic())

    def _schedule_timeout_check(self, now: float) -> None:
        """Schedule the timeout of the oldest event in flight; one timer serves them all."""
        if self._timeout_timer is None and self._in_flight:
            oldest = next(iter(self._in_flight.values()))  # in the order in which they were sent
            delay_s = max(oldest.sent_at + self._timeout_s - now, 0.01)
            self._timeout_timer = asyncio.get_running_loop().call_later(delay_s, self._check_timeouts)

    def _settle(self, event: _Event, rejected: frozenset[int], now: float) -> None:
        self.unacked -= len(event.readings)
        self._changed.set()
        groups: dict[tuple[str, bool], list[Identity]] = {}
        for index, reading in enumerate(event.readings):
            groups.setdefault((reading.sensor_type, index in rejected), []).append((reading.ts, reading.seq))
        latency_s = now - event.first_sent_at
        for (sensor_type, is_rejected), identities in groups.items():
            outcome = ReadingOutcome.REJECTED if is_rejected else ReadingOutcome.ACCEPTED
            self._on_settled(self._device, sensor_type, identities, outcome, latency_s)
