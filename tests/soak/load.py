"""Devices that send at any rate, in a process of their own; at what they cannot send they drop, as buffers are bounded.

Reads JSON lines: first `{"url", "devices", "folder"}`, then `{"rate": readings a second}`, with null for as fast as
acknowledgements come, and at last `{"end": true}`. Writes `{"ready": devices}`, then a `Second` each second, and
`{"ended": …}` when nothing is pending. The accounts are then in the folder, as a soak's are.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.load import percentile
from runtime.process import raise_fd_limit
from simulator.device import DeviceClient, device_session
from simulator.errors import SimulatorError
from simulator.reading import DeviceReading, Identity, ReadingOutcome
from tests.soak.fleet import STATE, Device, Fleet
from tests.soak.oracle import check_of, value_of

EVENT = 20
MAX_UNACKED = 25 * EVENT
TICK_S = 0.02
FLUSH_S = 120.0


@dataclass
class Second:
    """What happened in one second: readings, but for `connects` and the 99th percentile of answers in seconds."""

    offered: int = 0
    dropped: int = 0
    acknowledged: int = 0
    retried: int = 0
    connects: int = 0
    p99: float = 0.0


class Load:
    """All devices, sending at `rate`."""

    def __init__(self, fleet: Fleet) -> None:
        self.rate: float | None = 0.0
        self.failures: list[str] = []
        self._fleet = fleet
        self._clients: list[DeviceClient] = []
        self._second = Second()
        self._answers: list[float] = []
        self._next = 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connect every device."""
        async with AsyncExitStack() as stack:
            for device in self._fleet.devices:
                client = DeviceClient(
                    self._fleet.url,
                    device.token,
                    device.account.device,
                    http=self._fleet.http,
                    max_unacked=MAX_UNACKED,
                    on_settled=partial(self._settled, device),
                    on_retried=self._retried,
                    on_connection=self._connection,
                )
                self._clients.append(await stack.enter_async_context(client))
            await asyncio.gather(*(client.first_connected() for client in self._clients))
            yield

    async def send(self) -> None:
        """Send at the rate until cancelled."""
        owed, before = 0.0, time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            if self.rate is None:
                owed = 0.0
                for number, client in enumerate(self._clients):
                    while client.unacked + EVENT <= MAX_UNACKED:
                        await self._send(number)
            else:
                owed += self.rate * (now - before)
                while owed >= EVENT:
                    owed -= EVENT
                    self._next = (self._next + 1) % len(self._clients)
                    await self._send(self._next)
            before = now

    async def report(self) -> None:
        """Write a line each second until cancelled."""
        while True:
            await asyncio.sleep(1)
            done, self._second = self._second, Second()
            done.p99, self._answers = percentile(self._answers, 0.99), []
            say(asdict(done))

    async def flush(self) -> None:
        """Send what is pending."""
        self.rate = 0.0
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await asyncio.gather(*(client.flush() for client in self._clients))

    async def _send(self, number: int) -> None:
        client, device = self._clients[number], self._fleet.devices[number]
        self._second.offered += EVENT
        if client.unacked + EVENT > MAX_UNACKED:
            self._second.dropped += EVENT
            return
        account, now = device.account, time.time_ns() // 1_000_000
        check, first = check_of(account.owner, account.device, "load", now), account.begin(EVENT)
        made = [DeviceReading("load", value_of(n, check), now, n, unit="C") for n in range(first, first + EVENT)]
        try:
            await client.send(made)
        except SimulatorError as error:
            self.failures.append(str(error))

    def _settled(
        self, device: Device, _: str, __: str, identities: list[Identity], outcome: ReadingOutcome, seconds: float
    ) -> None:
        if outcome is ReadingOutcome.REJECTED:
            self.failures.append("a good reading was rejected")
            return
        device.account.acknowledge(seq for _, seq in identities)
        self._second.acknowledged += len(identities)
        self._answers.append(seconds)

    def _retried(self, readings: int) -> None:
        self._second.retried += readings

    def _connection(self, opened: bool) -> None:
        self._second.connects += opened


def say(line: dict[str, Any]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def serve() -> None:
    """Execute the commands of standard input until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    plan = json.loads(await reader.readline())
    async with device_session() as http:
        fleet = Fleet(plan["url"], http, random.SystemRandom().randrange(1 << 30))
        file = Path(plan["folder"]) / STATE
        await fleet.begin(plan["devices"], file)
        load = Load(fleet)
        async with load.connected():
            say({"ready": len(fleet.devices)})
            tasks = [asyncio.create_task(load.send()), asyncio.create_task(load.report())]
            while line := await reader.readline():
                command = json.loads(line)
                if "end" in command:
                    break
                load.rate = command["rate"]
            await load.flush()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            load.failures += [repr(one) for one in results if not isinstance(one, asyncio.CancelledError)]
        fleet.save(file)
        say({"ended": True, "failures": sorted(set(load.failures))[:10]})


if __name__ == "__main__":
    raise_fd_limit()
    asyncio.run(serve())
