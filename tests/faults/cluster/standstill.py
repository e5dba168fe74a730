"""How long nothing was accepted, and how long nothing was stored, while a fault lasted."""

import asyncio
import re
import time
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from tests.faults.fleet import Fleet
from tests.faults.stack import Service

EVERY_S = 0.25
STORED = re.compile(r'^tidegate_persister_readings_total\{outcome="stored"\} (\S+)$', re.MULTILINE)


@dataclass
class Standstill:
    """The longest times in seconds, so far."""

    # No device at all got an `accepted`.
    accepting_s: float = 0.0
    # One device got none, while others may have.
    one_device_s: float = 0.0
    # No worker had stored anything more.
    storing_s: float = 0.0

    async def watch(self, fleet: Fleet, workers: list[Service]) -> None:
        """Measure until cancelled."""
        began = stored_at = time.monotonic()
        stored: dict[Service, float] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=EVERY_S)) as session:
            while True:
                for worker in workers:
                    count = await _stored(session, worker)
                    if count > stored.get(worker, count):
                        stored_at = time.monotonic()
                    stored[worker] = max(count, stored.get(worker, 0.0))
                now = time.monotonic()
                accepted = [max(began, sender.last_accepted_at) for sender in fleet.senders]
                self.accepting_s = max(self.accepting_s, now - max(accepted))
                self.one_device_s = max(self.one_device_s, now - min(accepted))
                self.storing_s = max(self.storing_s, now - stored_at)
                await asyncio.sleep(EVERY_S)


async def _stored(session: aiohttp.ClientSession, worker: Service) -> float:
    with suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(f"{worker.ops_url}/metrics") as answer:
            if found := STORED.search(await answer.text()):
                return float(found[1])
    return 0.0
