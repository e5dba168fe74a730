"""A device that sends at a pace, in a process of its own: told over standard input, a JSON line each.

`{"before": seconds}` sends what it would have measured in the time before, at once. `{"run": seconds}` sends at the
pace; it answers with `{"fromMs"}` when that begins, and with `{"acknowledged": [[ts, ms]…], "retried": n}` at its end:
the time of each reading, and when its acknowledgement was here, both in milliseconds since 1970. Started as
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
    """Return what is measured at a time: something that goes up and down within a minute."""
    return round(20 + 5 * math.sin(ts / 10_000) + math.sin(ts / 700), 4)


class Paced:
    """One connected device."""

    def __init__(self, client: socketio.AsyncClient, told: dict[str, Any]) -> None:
        self._client = client
        self._sensor_type = told["sensorType"]
        self._rate = float(told["rate"])
        self._acknowledged: list[tuple[int, float]] = []
        self._retried = 0

    def _reading(self, ts: int) -> dict[str, Any]:
        return {"sensorType": self._sensor_type, "value": value_at(ts), "unit": "bar", "ts": ts, "seq": 0}

    async def before(self, seconds: float) -> dict[str, Any]:
        """Send what lies before now, in large events."""
        count, end = round(seconds * self._rate), int(now_ms())
        times = [end - round((count - at) * 1000 / self._rate) for at in range(count)]
        for start in range(0, count, EVENT):
            await self._accepted("readings", [self._reading(ts) for ts in times[start : start + EVENT]])
        return {"sent": count}

    async def run(self, seconds: float) -> dict[str, Any]:
        """Send one reading after the other, each at its time, whether those before are acknowledged or not."""
        self._acknowledged, self._retried = [], 0
        began, count = time.perf_counter(), round(seconds * self._rate)
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(began + number / self._rate - time.perf_counter())
                group.create_task(self._send(int(now_ms())))
        return {"acknowledged": self._acknowledged, "retried": self._retried}

    async def _send(self, ts: int) -> None:
        await self._accepted("reading", self._reading(ts))
        self._acknowledged.append((ts, now_ms()))

    async def _accepted(self, event: str, payload: Any) -> None:
        while True:
            answer = await self._client.call(event, payload, timeout=WAIT_S)
            if answer["status"] == "accepted":
                return
            if answer["status"] != "retry":
                raise SystemExit(f"{event}: {answer}")
            self._retried += 1
            await asyncio.sleep(answer["retryAfterMs"] / 1000)


async def serve(url: str) -> None:
    """Do what the lines of standard input say until they end."""
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    told = json.loads(await reader.readline())
    client = socketio.AsyncClient()
    auth = {"token": told["token"], "device": told["device"]}
    await client.connect(url, auth=auth, transports=["websocket"], retry=True)
    paced = Paced(client, told)
    while line := await reader.readline():
        asked: dict[str, Any] = json.loads(line)
        if "before" in asked:
            say(await paced.before(asked["before"]))
        else:
            say({"fromMs": int(now_ms())})
            say(await paced.run(asked["run"]))
    await client.disconnect()


def say(answer: dict[str, Any]) -> None:
    """Write a line that the bench reads."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
