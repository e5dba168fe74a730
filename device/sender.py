"""FILE → GATEWAY: at most four events in flight, each as large as what waits; only an answer that settles frees.

`accepted`, `partial` and `rejected` settle readings; after every other answer, and without one, the same readings are
sent again. A whole event that is rejected is halved until the reading at fault is alone.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from device.buffer import Buffer
from device.outbox import Outbox
from device.reading import Row
from device.transport import Connection

WINDOW = 4
MAX_READINGS = 1000
# The gateway takes 1 MiB; the rest is room for the event's name.
MAX_EVENT_BYTES = 1_000_000
# A gateway answers within 5 s, even while its broker is away.
ACK_TIMEOUT_S = 10.0
# Bounds on the wait that `retry` may ask for, and the wait after an answer that says nothing.
MIN_RETRY_S, MAX_RETRY_S, UNKNOWN_RETRY_S = 0.05, 300.0, 1.0

_log = logging.getLogger("device")

OnRejected = Callable[[Row, str, str], None]


@dataclass(slots=True, eq=False)
class _Event:
    rows: list[Row]
    sent_at: float


class Sender:
    """Sends on one connection at a time; `on_accepted` gets what was accepted, and `on_rejected` each other reading."""

    def __init__(
        self, buffer: Buffer, outbox: Outbox, on_accepted: Callable[[list[Row]], None], on_rejected: OnRejected
    ) -> None:
        self._outbox = outbox
        self._buffer = buffer
        self._on_accepted = on_accepted
        self._on_rejected = on_rejected
        self._in_flight: dict[int, _Event] = {}
        self._discarded: set[int] = set()
        # Ended by timers alone: one may fire before a clock that is read then has reached its time.
        self._paused_until = 0.0
        self._most = MAX_READINGS
        self._most_bytes = MAX_EVENT_BYTES
        self.wake = asyncio.Event()
        self.last_ack_at = 0.0

    async def run(self, connection: Connection) -> None:
        """Send on this connection until it is lost; then put back what is in flight."""
        try:
            while not connection.lost.is_set():
                self.wake.clear()
                while self._may_send() and (rows := self._outbox.take(self._most, self._most_bytes)):
                    await self._send(connection, rows)
                await self.wake.wait()
        finally:
            for event in self._in_flight.values():
                self._outbox.put_back(self._kept(event))
            self._in_flight.clear()
            self._discarded.clear()

    @property
    def oldest_id(self) -> int | None:
        """The id of the oldest reading in flight."""
        row = self.oldest_in_flight()
        return None if row is None else row.id

    def oldest_in_flight(self) -> Row | None:
        """Return the oldest reading in flight."""
        rows = [row for event in self._in_flight.values() for row in self._kept(event)[:1]]
        return min(rows, default=None)

    def in_flight(self) -> Iterator[Row]:
        """Return all readings in flight."""
        return (row for event in self._in_flight.values() for row in self._kept(event))

    def discard(self, row: Row) -> None:
        """Neither send a reading in flight again nor wait for its answer."""
        self._discarded.add(row.id)

    def check_timeouts(self, connection: Connection) -> bool:
        """Put events back that got no answer in time; returns False if the peer seems to be gone."""
        now = time.monotonic()
        late = [number for number, event in self._in_flight.items() if event.sent_at <= now - ACK_TIMEOUT_S]
        if late and self.last_ack_at < self._in_flight[late[0]].sent_at:
            return False
        for number in late:
            self._outbox.put_back(self._kept(self._in_flight.pop(number)))
        if late:
            self.wake.set()
        return not connection.lost.is_set()

    def on_ack(self, number: int, ack: Any) -> None:
        """Take the answer to event `number`."""
        self.last_ack_at = time.monotonic()
        event = self._in_flight.pop(number, None)
        if event is None:  # too late: it was sent again
            return
        self.wake.set()
        answer = ack if isinstance(ack, dict) else {}
        match answer.get("status"):
            case "accepted":
                self._on_accepted(self._kept(event))
            case "partial" if isinstance(answer.get("rejected"), list):
                self._take_partial(event, answer["rejected"])
            case "rejected":
                self._take_rejected(event, str(answer.get("code", "")), str(answer.get("detail", "")))
            case status:
                self._take_retry(event, answer if status == "retry" else {})
        self._discarded -= {row.id for row in event.rows} if self._discarded else set()

    def _kept(self, event: _Event) -> list[Row]:
        if not self._discarded:
            return event.rows
        return [row for row in event.rows if row.id not in self._discarded]

    def _may_send(self) -> bool:
        return len(self._in_flight) < WINDOW and not self._paused_until

    async def _send(self, connection: Connection, rows: list[Row]) -> None:
        if len(rows) == 1:
            event, payload = "reading", rows[0].body
        else:
            event, payload = "readings", f"[{','.join([row.body for row in rows])}]"
        number = connection.next_number()
        self._in_flight[number] = _Event(rows, time.monotonic())  # before it may be cancelled
        await connection.emit(number, event, payload)

    def _take_partial(self, event: _Event, rejected: list[Any]) -> None:
        why = {one["index"]: one for one in rejected if isinstance(one, dict) and isinstance(one.get("index"), int)}
        kept = {row.id for row in self._kept(event)}
        self._on_accepted([row for at, row in enumerate(event.rows) if at not in why and row.id in kept])
        for at, row in enumerate(event.rows):
            if at in why and row.id in kept:
                self._on_rejected(row, str(why[at].get("code", "")), str(why[at].get("detail", "")))

    def _take_rejected(self, event: _Event, code: str, detail: str) -> None:
        rows = self._kept(event)
        if len(rows) > 1:
            half = len(rows) // 2
            if code == "too_large":
                self._most_bytes = max(sum(len(row.body) + 1 for row in rows) // 2, 1)
            elif code == "batch_size":
                self._most = half
            self._outbox.put_back(rows[:half])
            self._outbox.put_back(rows[half:])
        elif rows:
            self._on_rejected(rows[0], code, detail)

    def _take_retry(self, event: _Event, answer: dict[str, Any]) -> None:
        rows = self._kept(event)
        self._outbox.put_back(rows)
        limit, asked = answer.get("limit"), answer.get("retryAfterMs")
        if answer.get("code") == "rate_limited" and isinstance(limit, int) and 0 < limit < len(rows):
            self._most = limit  # a larger event passes only where the whole limit is free
        wait_s = asked / 1000 if isinstance(asked, int | float) else UNKNOWN_RETRY_S
        wait_s = min(max(wait_s, MIN_RETRY_S), MAX_RETRY_S) * random.uniform(1.0, 1.25)
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        if until > self._paused_until:
            self._paused_until = until
            loop.call_at(until, self._end_pause, until)

    def _end_pause(self, until: float) -> None:
        if until == self._paused_until:  # nothing has made it longer
            self._paused_until = 0.0
            self.wake.set()
