"""What operators and owners do while the fleet runs: keys rotate, tokens are revoked, devices replaced, charts read."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from simulator.errors import SimulatorError, UnavailableError
from tests.soak.fleet import DEVICES_PER_OWNER, PASSWORD, Fleet
from tests.soak.stack import Stack

# Of the whole fleet of a thousand; fewer devices are revoked less often.
REVOKED_EVERY_S, REPLACED_EVERY_S = 5.0, 20.0
ROTATED_EVERY_S = 600.0
# The first of so many rotations is that of a key that has leaked: it is retired at once, and with the tokens that it
# signed every connection ends. The others' tokens just expire.
LEAKS_EVERY = 3
READ_EVERY_S = 2.0
LIVE_FOR_S = 5.0
THOUSAND = 1000


class Churn:
    """Runs until it is cancelled; what it did is counted."""

    def __init__(self, stack: Stack, fleet: Fleet, seconds: float) -> None:
        """`seconds`: how long the run will last; even in a short one keys rotate twice."""
        self.rotations = 0
        self.retired = 0
        self.reads = 0
        self.failed_reads = 0
        # Log-ins that had to wait for others' passwords.
        self.refused_reads = 0
        self._stack, self._fleet = stack, fleet
        self._rng = random.Random(fleet.rng.random())
        self._rotated_every_s = min(ROTATED_EVERY_S, seconds / 3)
        self._scale = max(1.0, THOUSAND / len(fleet.devices))

    async def run(self) -> None:
        """Do all of it."""
        scale = self._scale
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(REVOKED_EVERY_S * min(scale, 2), self._revoke))
            tasks.create_task(self._every(REPLACED_EVERY_S * min(scale, 2), self._replace))
            tasks.create_task(self._every(self._rotated_every_s, self._rotate))
            tasks.create_task(self._every(READ_EVERY_S, self._read))

    async def _every(self, seconds: float, do: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await do()
            except UnavailableError:
                self._fleet.counts.unavailable += 1
            except SimulatorError as error:
                self._fleet.failures.append(str(error))

    async def _revoke(self) -> None:
        await self._rng.choice(self._fleet.devices).revoke()

    async def _replace(self) -> None:
        await self._fleet.replace(self._rng.randrange(len(self._fleet.devices)))

    async def _rotate(self) -> None:
        has_leaked = self.rotations % LEAKS_EVERY == 0
        await self._stack.auth_keys("rotate", *(("--now",) if has_leaked else ()))
        self.rotations += 1
        if has_leaked:
            while not (past := await self._past_keys()):  # the next one signs within a second
                await asyncio.sleep(0.5)
            await self._stack.auth_keys("retire", "--", past[0])
            self.retired += 1

    async def _past_keys(self) -> list[str]:
        keys = json.loads(await self._stack.auth_keys("list", "--json"))
        return [key["kid"] for key in keys if key["state"] == "verifying"]

    async def _read(self) -> None:
        """Log in, read a chart and follow what is live for a while, as a browser does."""
        number = self._rng.randrange(len(self._fleet.devices))
        device, owner = self._fleet.devices[number], number // DEVICES_PER_OWNER
        call, started = "/user/login", time.monotonic()
        timeout = aiohttp.ClientTimeout(total=30)
        try:
            async with aiohttp.ClientSession(self._fleet.url, timeout=timeout) as session:
                body = {"email": f"soak-{owner}@example.com", "password": PASSWORD}
                async with session.post("/user/login", json=body) as response:
                    if response.status == 503:
                        self.refused_reads += 1
                        return
                    assert response.status == 200, f"a log-in is answered with {response.status}"
                    token = (await response.json())["accessToken"]
                session.headers["Authorization"] = f"Bearer {token}"
                query = {"device": device.account.device, "sensorType": f"sensor-{device.sensor}", "limit": "1000"}
                for call, asked in (("/series", {"limit": "100"}), ("/readings", query), ("/readings/latest", {})):
                    async with session.get(call, params=asked) as response:
                        await response.read()
                        # 404: a sensor that has sent nothing yet.
                        assert response.status in (200, 404), f"{call} is answered with {response.status}"
                call = "/live"
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIVE_FOR_S), session.get(call) as response:
                        assert response.status == 200, f"{call} is answered with {response.status}"
                        async for _ in response.content.iter_any():
                            pass
            self.reads += 1
        except (aiohttp.ClientError, TimeoutError, AssertionError) as error:
            self.failed_reads += 1
            after_s, now = time.monotonic() - started, time.strftime("%H:%M:%S")
            self._fleet.failures.append(f"a chart at {now}, {after_s:.1f} s after its begin, {call}: {error!r}")
