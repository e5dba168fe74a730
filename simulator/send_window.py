"""The readings that a device holds: waiting, in flight, sent again, settled. Knows wires, not how they are made.

At most `window` events are in flight. Only `accepted`, `partial` and `rejected` settle a reading; whatever else
happens to its event, it goes back to the front of those that wait, with the same identity.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from readings.reading import MAX_READINGS
from simulator.backoff import jitter
from simulator.point import Identity, OnSettled, Outcome, SentPoint
from simulator.wire import Answer, Wire

# A gateway refuses events above 1 MiB; some room is left for the event's name.
MAX_EVENT_BYTES = 1_000_000
# Bounds of what a `retry` may ask for, and what an answer that cannot be understood gets.
LEAST_RETRY_S = 0.05
MOST_RETRY_S = 30.0
NOT_UNDERSTOOD_RETRY_S = 1.0


class _Parcel:
    """The readings of one event; `first_sent_at` is 0 until then."""

    __slots__ = ("first_sent_at", "points", "sent_at")

    def __init__(self, points: Sequence[SentPoint], first_sent_at: float = 0.0) -> None:
        self.points = points
        self.first_sent_at = first_sent_at
        self.sent_at = 0.0


class Outbox:
    """Sends on one wire at a time: `attach` it when it is open, `detach` when it is lost."""

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
        self._waiting: deque[_Parcel] = deque()
        self._in_flight: dict[int, _Parcel] = {}
        self._wire: Wire | None = None
        self._paused_until = 0.0
        self._resume_timer: asyncio.TimerHandle | None = None
        self._late_timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self.held = 0
        self.heard_at = 0.0

    async def put(self, readings: Sequence[SentPoint]) -> None:
        """Queue readings, as one event up to 1,000; waits while there is no room."""
        size = min(MAX_READINGS, self._max_unacked)
        for start in range(0, len(readings), size):
            points = readings[start : start + size]
            await self._held_at_most(self._max_unacked - len(points))
            self.held += len(points)
            self._waiting.append(_Parcel(points))
            self._pump()

    async def empty(self) -> None:
        """Return when everything is settled."""
        await self._held_at_most(0)

    def fail(self, error: BaseException) -> None:
        """Let everybody who puts or waits have the error, now and later."""
        self._failure = error
        self._room.set()

    def attach(self, wire: Wire) -> None:
        """Send on this wire from now on."""
        self._wire = wire
        self._pump()

    def detach(self) -> None:
        """Stop sending; what is in flight waits again, in front."""
        self._wire = None
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def close(self) -> None:
        """Stop every timer."""
        for timer in (self._resume_timer, self._late_timer):
            if timer is not None:
                timer.cancel()

    def on_answer(self, number: int, answer: Answer) -> None:
        """Take the acknowledgement of event `number` of the wire."""
        self.heard_at = now = time.monotonic()
        parcel = self._in_flight.pop(number, None)
        if parcel is None:  # given up as late, and sent again under another number
            return
        if answer.status == "accepted":
            self._settle(parcel, frozenset(), now)
        elif answer.status == "partial":
            self._settle(parcel, frozenset(item.index for item in answer.rejected), now)
        elif answer.status == "rejected":
            self._settle(parcel, frozenset(range(len(parcel.points))), now)
        else:
            asked_s = answer.retry_after_ms / 1000 if answer.status == "retry" else NOT_UNDERSTOOD_RETRY_S
            pause_s = min(max(asked_s, LEAST_RETRY_S), MOST_RETRY_S)
            self._paused_until = max(self._paused_until, now + jitter(pause_s, pause_s * 1.5))
            self._waiting.appendleft(parcel)
        self._pump()

    async def _held_at_most(self, most: int) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            if self.held <= most:
                return
            self._room.clear()
            await self._room.wait()

    def _pump(self) -> None:
        """Send what waits, as far as wire, window and pauses allow."""
        wire = self._wire
        if wire is None or wire.lost or not self._waiting:
            return
        now = time.monotonic()
        if now < self._paused_until:
            if self._resume_timer is None:
                self._resume_timer = asyncio.get_running_loop().call_later(self._paused_until - now, self._resume)
            return
        while self._waiting and len(self._in_flight) < self._window:
            self._emit(wire, self._waiting.popleft(), now)
        self._watch(now)

    def _emit(self, wire: Wire, parcel: _Parcel, now: float) -> None:
        points = parcel.points
        payload = msgspec.json.encode(points[0] if len(points) == 1 else points)
        if len(payload) > MAX_EVENT_BYTES and len(points) > 1:
            half = len(points) // 2
            self._waiting.appendleft(_Parcel(points[half:], parcel.first_sent_at))
            self._waiting.appendleft(_Parcel(points[:half], parcel.first_sent_at))
            return
        if parcel.first_sent_at:
            self._on_retried(len(points))
        else:
            parcel.first_sent_at = now
            self._on_sent(len(points))
        parcel.sent_at = now
        self._in_flight[wire.emit("reading" if len(points) == 1 else "readings", payload)] = parcel

    def _resume(self) -> None:
        self._resume_timer = None
        self._pump()

    def _look_for_late(self) -> None:
        self._late_timer = None
        due = time.monotonic() - self._timeout_s
        late = [number for number, parcel in self._in_flight.items() if parcel.sent_at <= due]
        wire = self._wire
        if wire is not None and late and self.heard_at < self._in_flight[late[0]].sent_at:
            # Nothing was heard since: the other side is gone without a word. A new connection sends everything again.
            wire.give_up()
            return
        for number in reversed(late):
            self._waiting.appendleft(self._in_flight.pop(number))
        self._pump()
        self._watch(time.monotonic())

    def _watch(self, now: float) -> None:
        """Look for late acknowledgements when the oldest event in flight may be late; one timer serves them all."""
        if self._late_timer is None and self._in_flight:
            oldest = next(iter(self._in_flight.values()))  # they are in the order in which they were sent
            delay_s = max(oldest.sent_at + self._timeout_s - now, 0.01)
            self._late_timer = asyncio.get_running_loop().call_later(delay_s, self._look_for_late)

    def _settle(self, parcel: _Parcel, rejected: frozenset[int], now: float) -> None:
        self.held -= len(parcel.points)
        self._room.set()
        groups: dict[tuple[str, bool], list[Identity]] = {}
        for index, point in enumerate(parcel.points):
            groups.setdefault((point.sensor_type, index in rejected), []).append((point.ts, point.seq))
        latency_s = now - parcel.first_sent_at
        for (sensor_type, refused), identities in groups.items():
            outcome = Outcome.REJECTED if refused else Outcome.ACCEPTED
            self._on_settled(self._device, sensor_type, identities, outcome, latency_s)
