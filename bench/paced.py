"""A device that sends at a fixed rate, in its own process: controlled by JSON lines on standard input.

`{"before": seconds}` sends the readings of the time before at once. `{"run": seconds}` sends at the rate; it responds
with `{"fromMs"}` when it starts, and with `{"acknowledged": [[ts, ms]…], "retried": n}` when it ends: the timestamp of
each reading and the arrival of its acknowledgement, both in milliseconds since 1970. Started as
`python -m bench.paced URL`, with `{"token", "device", "sensorType", "rate"}` first.
"""

import asyncio
import json
import math
import sys
import time
from typing import Any

import socketio

EVENT = 500
WAIT_S = 10.0


def now_ms() -> float:
    return time.time_ns() / 1e6


def value_at(ts: int) -> float:
    """Return the value at a time: a signal that oscillates within a minute."""
    return round(20 + 5 * math.sin(ts / 10_000) + math.sin(ts / 700), 4)


class Paced:
    """One connected device."""

    def __init__(self, client: socketio.AsyncClient, setup: dict[str, Any]) -> None:
        self._client = client
        self._sensor_type = setup["sensorType"]
        self._rate = float(setup["rate"])
        self._acknowledged: list[tuple[int, float]] = []
        self._retried = 0

    def _reading(self, ts: int) -> dict[str, Any]:
        return {"sensorType": self._sensor_type, "value": value_at(ts), "unit": "bar", "ts": ts, "seq": 0}

    async def before(self, seconds: float) -> dict[str, Any]:
        """Send the readings of the `seconds` before now, in large events."""
        count, end = round(seconds * self._rate), int(now_ms())
        times = [end - round((count - at) * 1000 / self._rate) for at in range(count)]
        for start in range(0, count, EVENT):
            await self._send_until_accepted("readings", [self._reading(ts) for ts in times[start : start + EVENT]])
        return {"sent": count}

    async def run(self, seconds: float) -> dict[str, Any]:
        """Send each reading at its time, without waiting for acknowledgements."""
        self._acknowledged, self._retried = [], 0
        began, count = time.perf_counter(), round(seconds * self._rate)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(began + number / self._rate - time.perf_counter())
                group.create_task(self._send(int(now_ms())))
        return {"acknowledged": self._acknowledged, "retried": self._retried}

    async def _send(self, ts: int) -> None:
        await self._send_until_accepted("reading", self._reading(ts))
        self._acknowledged.append((ts, now_ms()))

    async def _send_until_accepted(self, event: str, payload: Any) -> None:
        while True:
            try:
                ack = await self._client.call(event, payload, timeout=WAIT_S)
            except socketio.exceptions.TimeoutError:
                self._retried += 1
                continue
            if ack["status"] == "accepted":
                return
            if ack["status"] != "retry":
                raise SystemExit(f"{event}: {ack}")
            self._retried += 1
            await asyncio.sleep(ack["retryAfterMs"] / 1000)


async def serve(url: str) -> None:
    """Execute the commands of standard input until it ends."""
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    setup = json.loads(await reader.readline())
    client = socketio.AsyncClient()
    auth = {"token": setup["token"], "device": setup["device"]}
    await client.connect(url, auth=auth, transports=["websocket"], retry=True)
    paced = Paced(client, setup)
    while line := await reader.readline():
        command: dict[str, Any] = json.loads(line)
        if "before" in command:
            reply(await paced.before(command["before"]))
        else:
            reply({"fromMs": int(now_ms())})
            reply(await paced.run(command["run"]))
    await client.disconnect()


def reply(ack: dict[str, Any]) -> None:
    """Write one JSON line to the bench."""
    sys.stdout.write(json.dumps(ack) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
