"""READINGS → GATEWAY over HTTP: rows that name their devices, sent as the user who owns them.

An export is restored unchanged this way: `POST /readings` keeps a `seq` that a gateway generated. Unanswered requests
are repeated, with the same identities.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice

import msgspec

from readings.reading import MAX_READINGS
from runtime.logs import logger
from simulator.account import Owner
from simulator.backoff import backoff
from simulator.errors import ApiError, SimulatorError, UnavailableError
from simulator.reading import Identity, ReadingOutcome
from simulator.replay.row import ReadingRow
from simulator.run_stats import RunStats
from simulator.send_window import MAX_EVENT_BYTES
from simulator.socket_connection import RejectedItem

OnRejected = Callable[[ReadingRow, RejectedItem], None]

log = logger("simulator.http_sender")


class HttpSender:
    """Sends rows in batches of `rows_at_once`, with one request per device in a batch."""

    def __init__(
        self,
        owner: Owner,
        stats: RunStats,
        *,
        rows_at_once: int = MAX_READINGS,
        on_rejected: OnRejected = lambda *_: None,
    ) -> None:
        self._owner = owner
        self._stats = stats
        self._rows_at_once = rows_at_once
        self._on_rejected = on_rejected
        self._refused: set[str] = set()

    async def send(self, rows: Iterator[ReadingRow], halted: asyncio.Event, flush_seconds: float) -> None:
        """Send until the rows end, or until `halted`; requests in flight may then take `flush_seconds` longer.

        A device that is refused permanently is recorded in the stats while the others continue. Raises SimulatorError
        if requests stay unanswered.
        """
        while not halted.is_set() and (batch := list(islice(rows, self._rows_at_once))):
            sending = asyncio.ensure_future(self._send_batch(batch))
            halting = asyncio.ensure_future(halted.wait())
            try:
                await asyncio.wait((sending, halting), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    await asyncio.wait((sending,), timeout=flush_seconds)
                if not sending.done():
                    waiting = self._stats.sent - self._stats.acked
                    raise SimulatorError(f"{waiting} readings were not acknowledged within {flush_seconds:g} s")
                sending.result()
            finally:
                sending.cancel()
                halting.cancel()
                await asyncio.wait((sending, halting))

    async def _send_batch(self, batch: list[ReadingRow]) -> None:
        by_device: dict[str, list[ReadingRow]] = {}
        for row in batch:
            by_device.setdefault(row.device, []).append(row)
        async with asyncio.TaskGroup() as tasks:
            for device, rows in by_device.items():
                tasks.create_task(self._send_device(device, rows), name=f"readings of {device}")

    async def _send_device(self, device: str, rows: list[ReadingRow]) -> None:
        """Send a device's readings in order, split into requests of at most MAX_EVENT_BYTES."""
        if len(rows) > 1 and len(msgspec.json.encode([row.reading for row in rows])) > MAX_EVENT_BYTES:
            half = len(rows) // 2
            await self._send_device(device, rows[:half])
            await self._send_device(device, rows[half:])
        elif device not in self._refused:
            try:
                await self._send_until_answered(device, rows)
            except ApiError as error:
                log.error("A device's readings are refused.", device=device, error=str(error))
                self._refused.add(device)
                self._stats.device_failed(device, str(error))

    async def _send_until_answered(self, device: str, rows: list[ReadingRow]) -> None:
        readings = [row.reading for row in rows]
        started, attempt = time.monotonic(), 0
        self._stats.on_sent(len(readings))
        while True:
            try:
                response = await self._owner.send(device, readings)
                break
            except UnavailableError as error:
                attempt += 1
                await asyncio.sleep(backoff(attempt, error.retry_after_s))
                self._stats.on_retried(len(readings))
        rejected = {item.index for item in response.rejected}
        for item in response.rejected:
            self._on_rejected(rows[item.index], item)
        groups: dict[tuple[str, ReadingOutcome], list[Identity]] = {}
        for index, reading in enumerate(readings):
            outcome = ReadingOutcome.REJECTED if index in rejected else ReadingOutcome.ACCEPTED
            groups.setdefault((reading.sensor_type, outcome), []).append((reading.ts, reading.seq))
        for (sensor_type, outcome), identities in groups.items():
            self._stats.on_settled(device, sensor_type, identities, outcome, time.monotonic() - started)
