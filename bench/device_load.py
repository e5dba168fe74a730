"""Devices of one process, for `bench devices`: the library's, or bare python-socketio clients with the same readings.

Reads one JSON object from standard input, `{url, kind, auths, each, batches}`, and prints one: the CPU of the readings,
in µs each, and the memory of a device, in kB. `kind` is `library` or `bare`; with `batches` the library may send what
waits together, otherwise each reading is awaited before the next. The bare client always awaits each.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import socketio

from bench.processes import memory_of
from device import Device
from runtime.process import raise_fd_limit

CONNECT_AT_ONCE = 50
FLUSH_TIMEOUT_S = 300.0
SETTLE_S = 1.0
BEGIN_MS = 1_767_225_600_000

Send = Callable[[], Awaitable[None]]


async def library(stack: AsyncExitStack, plan: dict[str, Any], auth: dict[str, str], number: int) -> Send:
    """Return what sends the readings of one device of the library, whose buffer is a file."""
    file = Path(plan["folder"]) / f"{number}.db"
    device = await stack.enter_async_context(Device(plan["url"], token=auth["token"], buffer=file))
    await device.send({"sensorType": "temperature", "value": 0.5})
    await device.flush(FLUSH_TIMEOUT_S)

    async def send() -> None:
        for at in range(plan["each"]):
            await device.send({"sensorType": "temperature", "value": at / 8})
            if not plan["batches"]:
                await device.flush(FLUSH_TIMEOUT_S)
        await device.flush(FLUSH_TIMEOUT_S)

    return send


async def bare(stack: AsyncExitStack, plan: dict[str, Any], auth: dict[str, str], _: int) -> Send:
    """Return what sends the readings of one plain client, which keeps and repeats nothing."""
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(plan["url"], auth=auth, transports=["websocket"], wait_timeout=60)
    stack.push_async_callback(client.disconnect)

    async def send() -> None:
        for at in range(plan["each"]):
            reading = {"sensorType": "temperature", "value": at / 8, "ts": BEGIN_MS + at, "seq": at}
            answer = await client.call("reading", reading, timeout=FLUSH_TIMEOUT_S)
            if answer["status"] != "accepted":
                raise RuntimeError(f"a reading was answered with {answer}")

    await send()
    return send


async def run(plan: dict[str, Any]) -> dict[str, float]:
    """Connect the devices, then measure."""
    begin, slots = memory_of([os.getpid()]), asyncio.Semaphore(CONNECT_AT_ONCE)
    make = library if plan["kind"] == "library" else bare

    async with AsyncExitStack() as stack:

        async def connected(number: int, auth: dict[str, str]) -> Send:
            async with slots:
                return await make(stack, plan, auth, number)

        sends = await asyncio.gather(*(connected(*one) for one in enumerate(plan["auths"])))
        await asyncio.sleep(SETTLE_S)
        kilobytes = (memory_of([os.getpid()]) - begin) / len(sends) / 1000
        cpu, started = time.process_time(), time.perf_counter()
        await asyncio.gather(*(send() for send in sends))
        readings = len(sends) * plan["each"]
        return {
            "cpuUs": (time.process_time() - cpu) / readings * 1e6,
            "kilobytes": kilobytes,
            "perSecond": readings / (time.perf_counter() - started),
        }


def main() -> None:
    """Read the plan, print the result."""
    raise_fd_limit()
    plan = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-devices-") as folder:
        print(json.dumps(asyncio.run(run(plan | {"folder": folder}))), flush=True)


if __name__ == "__main__":
    main()
