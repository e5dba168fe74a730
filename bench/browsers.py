"""Simulated browsers that follow the live feed, in their own process: controlled by JSON lines on standard input.

`{"open": n}` opens feeds, each of one device in turn; `{"watch": seconds}` counts events and returns the longest
silence of any feed. Started as `python -m bench.browsers PORT`, with `{"token": …, "devices": […]}` first.
"""

import asyncio
import json
import sys
import time
from itertools import pairwise
from typing import Any

OPEN_AT_ONCE = 20
HEARTBEAT = b": heartbeat\n"


class Browser:
    """One feed."""

    def __init__(self) -> None:
        self.events = 0
        self.heartbeats: list[float] = []
        self.ended = False
        self._writer: asyncio.StreamWriter

    async def follow(self, port: int, token: str, device: str) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /live?device={device} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._writer.write(head.encode())
        status = await reader.readline()
        if b" 200 " not in status:
            raise ConnectionError(status.decode())
        asyncio.ensure_future(self._read(reader))  # noqa: RUF006 - it ends with its connection

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            self.events += data.count(b"event: reading\n")
            if HEARTBEAT in data:
                self.heartbeats.append(time.perf_counter())
        self.ended = True

    def longest_silence(self, since: float, until: float) -> float:
        """Return the longest time without a heartbeat."""
        times = [since, *(at for at in self.heartbeats if at >= since), until]
        return max(after - before for before, after in pairwise(times))


async def serve(port: int) -> None:
    """Execute the commands of standard input until it ends."""
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    setup = json.loads(await reader.readline())
    devices: list[str] = setup["devices"]
    browsers: list[Browser] = []
    while line := await reader.readline():
        command: dict[str, Any] = json.loads(line)
        if "open" in command:
            while len(browsers) < command["open"]:
                fresh = [Browser() for _ in range(min(OPEN_AT_ONCE, command["open"] - len(browsers)))]
                await asyncio.gather(
                    *(
                        browser.follow(port, setup["token"], devices[(len(browsers) + at) % len(devices)])
                        for at, browser in enumerate(fresh)
                    )
                )
                browsers += fresh
            answer: dict[str, Any] = {"browsers": len(browsers)}
        else:
            since, before = time.perf_counter(), sum(browser.events for browser in browsers)
            await asyncio.sleep(command["watch"])
            now = time.perf_counter()
            answer = {
                "events": sum(browser.events for browser in browsers) - before,
                "longestSilenceS": max(browser.longest_silence(since, now) for browser in browsers),
                "ended": sum(browser.ended for browser in browsers),
            }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
