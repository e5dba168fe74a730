"""READINGS → GATEWAY without a socket: rows that name their devices, sent as the user who owns them.

So an export comes back as it was: `POST /readings` keeps the `seq` that a gateway has drawn. What is not answered is
sent again, with the same identity.
"""

import asyncio
import time
from collections.abc import Iterator
from itertools import islice

import msgspec

from readings.reading import MAX_READINGS
from runtime.logs import logger
from simulator.account import Account
from simulator.backoff import backoff
from simulator.errors import ApiError, SimulatorError, UnavailableError
from simulator.point import Identity, Outcome, SentPoint
from simulator.replay.points import ReplayRow
from simulator.send_window import MAX_EVENT_BYTES
from simulator.tally import Tally

log = logger("simulator.over_http")

Parcel = tuple[str, list[SentPoint]]
"""A device, and what one request sends of it."""


class OverHttp:
    """Sends rows, `rows_at_once` at a time, with a request for each device among them."""

    def __init__(self, account: Account, tally: Tally, *, rows_at_once: int = MAX_READINGS) -> None:
        self._account = account
        self._tally = tally
        self._rows_at_once = rows_at_once
        self._refused: set[str] = set()

    async def send(self, rows: Iterator[ReplayRow], halted: asyncio.Event, flush_seconds: float) -> None:
        """Send until the rows end, or until `halted`: what is in flight then may take `flush_seconds` longer.

        A device that is refused for good is told to the tally, and the others go on. SimulatorError when what was sent
        stays unanswered.
        """
        while not halted.is_set() and (batch := list(islice(rows, self._rows_at_once))):
            sending = asyncio.ensure_future(self._send_batch(batch))
            halting = asyncio.ensure_future(halted.wait())
            try:
                await asyncio.wait((sending, halting), return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    await asyncio.wait((sending,), timeout=flush_seconds)
                if not sending.done():
                    waiting = self._tally.sent - self._tally.acked
                    raise SimulatorError(f"{waiting} readings were not acknowledged within {flush_seconds:g} s")
                sending.result()
            finally:
                sending.cancel()
                halting.cancel()
                await asyncio.wait((sending, halting))

    async def _send_batch(self, batch: list[ReplayRow]) -> None:
        by_device: dict[str, list[SentPoint]] = {}
        for row in batch:
            by_device.setdefault(row.device, []).append(row.point)
        async with asyncio.TaskGroup() as tasks:
            for device, points in by_device.items():
                tasks.create_task(self._send_device(device, points), name=f"readings of {device}")

    async def _send_device(self, device: str, points: list[SentPoint]) -> None:
        """Send a device's readings in order, in as many requests as their size wants."""
        if len(points) > 1 and len(msgspec.json.encode(points)) > MAX_EVENT_BYTES:
            half = len(points) // 2
            await self._send_device(device, points[:half])
            await self._send_device(device, points[half:])
        elif device not in self._refused:
            try:
                await self._until_answered(device, points)
            except ApiError as error:
                log.error("A device's readings are refused.", device=device, why=str(error))
                self._refused.add(device)
                self._tally.device_failed(device, str(error))

    async def _until_answered(self, device: str, points: list[SentPoint]) -> None:
        started, attempt = time.monotonic(), 0
        self._tally.on_sent(len(points))
        while True:
            try:
                taken = await self._account.send(device, points)
                break
            except UnavailableError as error:
                attempt += 1
                await asyncio.sleep(backoff(attempt, error.retry_after_s))
                self._tally.on_retried(len(points))
        rejected = {item.index for item in taken.rejected}
        groups: dict[tuple[str, Outcome], list[Identity]] = {}
        for index, point in enumerate(points):
            outcome = Outcome.REJECTED if index in rejected else Outcome.ACCEPTED
            groups.setdefault((point.sensor_type, outcome), []).append((point.ts, point.seq))
        for (sensor_type, outcome), identities in groups.items():
            self._tally.on_settled(device, sensor_type, identities, outcome, time.monotonic() - started)
