"""One device of the chaos fleet that uses the library, as a process: it streams, and is killed at any time.

Environment: URL, AUTH_URL, EMAIL and DEVICE, BUFFER, KEEP_STORED and ASK_AFTER (s), FIRST, the value of the first
reading, and BEGIN, the sensorType to begin with. It prints a JSON line per fact: `offered` and `sent` around each call
of `send`, `[sensorType, value]`; `told`, of a reading that was rejected or dropped. Each line of standard input is
another sensorType, or empty: then it sends nothing, and prints `idle` once nothing is pending.
"""

import asyncio
import json
import os
import random
import sys
from typing import Any

from device import Device, DeviceRefused, receipts, recheck
from tests.integration.device import new_token

REFUSED = 3
PAUSE_S = 0.1


def say(**fact: Any) -> None:
    print(json.dumps(fact), flush=True)


class Program:
    """Sends under the present sensorType, if there is one."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._value = int(os.environ["FIRST"])
        self.sensor_type = os.environ["BEGIN"]
        self.changed = asyncio.Event()
        device.on_rejected(lambda reading, code, _: say(told=[reading["sensorType"], reading["value"], code]))
        device.on_dropped(lambda reading: say(told=[reading["sensorType"], reading["value"], "dropped"]))

    async def follow(self) -> None:
        """Take orders from standard input."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self.sensor_type = line.decode().strip()
            self.changed.set()
        os._exit(0)  # the fleet has ended

    async def stream(self) -> None:
        """Send, or flush."""
        while True:
            self.changed.clear()
            if self.sensor_type:
                await self._send(self.sensor_type)
                await asyncio.sleep(random.uniform(0, PAUSE_S))
            else:
                await self._device.flush(None)
                if not self.sensor_type:
                    say(idle=True)
                    await self.changed.wait()

    async def watch(self) -> None:
        """Raise DeviceRefused once the server refuses the device for good: whatever starts it does so again."""
        while True:
            await asyncio.sleep(1)
            if self._device.pending:
                await self._device.flush(None)

    async def _send(self, sensor_type: str) -> None:
        for _ in range(random.randint(1, 3)):
            say(offered=[sensor_type, self._value])
            await self._device.send({"sensorType": sensor_type, "value": self._value})
            say(sent=[sensor_type, self._value])
            self._value += 1


async def token() -> str:
    return await new_token(os.environ["AUTH_URL"], os.environ["EMAIL"], os.environ["DEVICE"])


async def main() -> int:
    refused = False
    keep_s = float(os.environ["KEEP_STORED"])
    receipts.ASK_AFTER_S = float(os.environ["ASK_AFTER"])
    receipts.NO_ANSWER_S = recheck.NO_ANSWER_S = recheck.FIRST_AFTER_S = 2.0
    async with Device(
        os.environ["URL"], token=token, buffer=os.environ["BUFFER"], receipts=True, keep_stored=keep_s
    ) as device:
        program = Program(device)
        try:
            async with asyncio.TaskGroup() as tasks:
                for run in (program.follow, program.stream, program.watch):
                    tasks.create_task(run())
        except* DeviceRefused:
            refused = True
    return REFUSED if refused else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
