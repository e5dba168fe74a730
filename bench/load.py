"""The load generator: simulates devices in its own process, controlled by JSON lines on standard input.

`{"connect": n, "atOnce": m}` opens connections until there are n, m at a time.
`{"run": seconds, "size": readings per event, "inFlight": n}` sends as fast as acknowledgements come. With `"rate"` it
sends that many events per second instead, regardless of acknowledgements; with `"placed"` readings have a location;
with `"sensors"` they alternate between that many sensors; with `"of"` only the first `of` connections send; with
`"behindMs"` readings are that old; with `"crossing"`, that share of them is the first above or below a bound. Each
response is a JSON line. Started by `bench.environment` as `python -m bench.load PORT`, with a line of tokens first.
"""

import asyncio
import json
import math
import sys
import time
from bisect import bisect_left
from collections import Counter
from functools import partial
from typing import Any, cast

from bench.frames import CLOSE, TEXT, server_frames, text_frame, upgrade
from bench.readings import crossing, event

CONNECT_AT_ONCE = 50
TIMEOUT_S = 20
PREPARED = 256  # events of one reading, encoded once and sent in turn; 16 of many readings
CROSSING_LAPS = 100
TICK_S = 0.002
HISTOGRAM_MS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 500, 1000)
POLL_S = 0.005
# Placeholder in prepared events for the timestamp, which is set when each is sent, so that no reading repeats.
STAMP_MS = 1_111_111_111_111
STAMP = str(STAMP_MS).encode()


class Device(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: "Load", auth: bytes) -> None:
        self.run = run
        self.auth = auth
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self.rest = b""
        self.upgraded = False
        self.sent_at: dict[int, float] = {}
        self.number = 0
        self.place = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(upgrade(self.run.port))

    def connection_lost(self, _: Exception | None) -> None:
        self.run.lost += 1
        if not self.connected.done():
            self.connected.set_exception(ConnectionError("closed before it was connected"))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if not self.upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.rest = head
                return
            if b" 101 " not in head[:20]:
                raise ConnectionError(head[:200])
            self.upgraded = True
        end, acknowledged = 0, 0
        for kind, payload, end in server_frames(data):  # noqa: B007 - the last `end` is used
            if payload.startswith(b"43"):
                acknowledged += self.acknowledged(payload)
            elif kind == TEXT:
                self.control(payload)
            elif kind == CLOSE:
                self.transport.close()
        self.rest = data[end:]
        if acknowledged and self.run.closed_loop:
            self.send(acknowledged)

    def control(self, payload: bytes) -> None:
        if payload == b"2":
            self.transport.write(text_frame(b"3"))
        elif payload.startswith(b"0"):
            self.transport.write(text_frame(b"40" + self.auth))
        elif payload.startswith(b"40") and not self.connected.done():
            self.connected.set_result(None)
        elif payload.startswith(b"44") and not self.connected.done():
            self.connected.set_exception(ConnectionError(payload[:200].decode()))

    def acknowledged(self, payload: bytes) -> int:
        at = payload.index(b"[")
        sent_at = self.sent_at.pop(int(payload[2:at]), None)
        if sent_at is None:
            return 0
        if b'"accepted"' not in payload[:40]:
            self.run.refused.append(payload[:200].decode())
        self.run.latencies.append(time.perf_counter() - sent_at)
        return 1

    def send(self, events: int) -> None:
        """Send each event in a separate write, as devices do: batched writes would be cheaper for the server."""
        prepared = self.run.prepared
        for _ in range(events):
            self.number += 1
            self.run.ts_ms += 1
            event = prepared[(self.number + self.place) % len(prepared)].replace(STAMP, b"%d" % self.run.ts_ms)
            self.sent_at[self.number] = time.perf_counter()
            self.transport.write(text_frame(b"42%d%b" % (self.number, event)))


class Load:
    """All devices of this process, and the counters of the current run."""

    def __init__(self, port: int, auths: list[bytes]) -> None:
        self.port = port
        self.auths = auths
        self.devices: list[Device] = []
        self.prepared: list[bytes] = []
        self.latencies: list[float] = []
        self.refused: list[str] = []
        self.late: list[float] = []
        self.closed_loop = False
        self.lost = 0
        # The timestamp of the last event; it advances by a millisecond per event of any device.
        self.ts_ms = time.time_ns() // 1_000_000

    async def connect(self, number: int, at_once: int = CONNECT_AT_ONCE) -> None:
        loop = asyncio.get_running_loop()
        while len(self.devices) < number:
            first = len(self.devices)
            auths = self.auths[first : min(first + at_once, number)]
            made = [loop.create_connection(partial(Device, self, auth), "127.0.0.1", self.port) for auth in auths]
            devices = [device for _, device in await asyncio.gather(*made)]
            await asyncio.wait_for(asyncio.gather(*(device.connected for device in devices)), TIMEOUT_S)
            self.devices += devices

    async def run(self, command: dict[str, Any]) -> dict[str, Any]:
        size, rate, seconds = command["size"], command.get("rate"), command["run"]
        devices = self.devices[: command.get("of", len(self.devices))]
        options = {"placed": command.get("placed", False), "sensors": command.get("sensors", 1)}
        # Enough for every sensor to send.
        prepared = range(max(PREPARED if size == 1 else 16, options["sensors"] // size))
        self.prepared = [event(size, number, STAMP_MS, **options) for number in prepared]
        if share := command.get("crossing"):
            self.prepared = crossing(options["sensors"], CROSSING_LAPS, share, STAMP_MS)
        for at, device in enumerate(devices):
            # Each device is at another place, so that they do not cross a bound together.
            device.place = at * len(self.prepared) // len(devices) if share else 0
        self.latencies, self.refused, self.late, self.lost = [], [], [], 0
        self.closed_loop = rate is None
        if behind_ms := command.get("behindMs"):
            self.ts_ms = time.time_ns() // 1_000_000 - behind_ms
        started, cpu = time.perf_counter(), time.process_time()
        if rate is None:
            for device in devices:
                device.send(command["inFlight"])
            await asyncio.sleep(seconds)
            self.closed_loop = False
        else:
            await self.at_rate(devices, rate, seconds)
        late = await self.settled()
        elapsed = time.perf_counter() - started
        return {
            "acknowledged": len(self.latencies),
            "unanswered": late,
            "refused": len(self.refused),
            "firstRefused": self.refused[:1],
            "lost": self.lost,
            "seconds": elapsed,
            "cpuS": time.process_time() - cpu,
            "p50Ms": percentile(self.latencies, 0.5) * 1000,
            "p99Ms": percentile(self.latencies, 0.99) * 1000,
            # Latency starts when an event is sent, so delays of this process are reported separately.
            "lateP99Ms": percentile(self.late, 0.99) * 1000,
            "histogram": histogram(self.latencies),
        }

    async def at_rate(self, devices: list[Device], rate: float, seconds: float) -> None:
        started, sent = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds:
            while sent < rate * passed:
                devices[sent % len(devices)].send(1)
                self.late.append(time.perf_counter() - started - sent / rate)
                sent += 1
            await asyncio.sleep(TICK_S)

    async def settled(self) -> int:
        """Wait for the last acknowledgements; return how many are missing."""
        # Polled: acknowledgements are too frequent to signal each one.
        for _ in range(round(TIMEOUT_S / POLL_S)):
            if self.lost or not any(device.sent_at for device in self.devices):
                break
            await asyncio.sleep(POLL_S)
        return sum(len(device.sent_at) for device in self.devices)


def percentile(values: list[float], part: float) -> float:
    """Return the smallest value that at least `part` of them do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)] if ordered else 0.0


def histogram(values: list[float]) -> dict[str, int]:
    """Return the number of these values (seconds) in each bucket of HISTOGRAM_MS."""
    found = Counter(bisect_left(HISTOGRAM_MS, value * 1000) for value in values)
    names = [*(f"<= {bound:g} ms" for bound in HISTOGRAM_MS), "more"]
    return {name: found[index] for index, name in enumerate(names) if found[index]}


async def serve(port: int) -> None:
    """Execute the commands of standard input until it ends."""
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load(port, [json.dumps(auth).encode() for auth in json.loads(await reader.readline())])
    while line := await reader.readline():
        command = json.loads(line)
        if "connect" in command:
            await load.connect(command["connect"], command.get("atOnce", CONNECT_AT_ONCE))
            answer = {"connections": len(load.devices)}
        else:
            answer = await load.run(command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    # Not uvloop: it merges the writes of one loop iteration.
    asyncio.run(serve(int(sys.argv[1])))
