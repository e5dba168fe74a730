"""Bare confirmed publishing: `python -m bench.bare_publish URL`, controlled by JSON lines on standard input.

`{"run": seconds, "rate": messages a second, "bytes": size}` returns the latencies of the confirms. Any
latency of a gateway beyond them is its own.
"""

import asyncio
import json
import sys
import time
from typing import Any

import aio_pika
import uvloop
from aio_pika.abc import AbstractExchange

from bench.load import TICK_S, percentile

QUEUE = "bench.bare"
ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length-bytes": 2**30}


async def run(exchange: AbstractExchange, seconds: float, rate: float, size: int) -> dict[str, Any]:
    """Publish at `rate` regardless of confirms, then wait for every confirm."""
    latencies: list[float] = []
    body = bytes(size)

    async def publish() -> None:
        started = time.perf_counter()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await exchange.publish(message, QUEUE, mandatory=True)
        latencies.append(time.perf_counter() - started)

    started, sent = time.perf_counter(), 0
    async with asyncio.TaskGroup() as tasks:
        while (passed := time.perf_counter() - started) < seconds:
            while sent < rate * passed:
                tasks.create_task(publish())
                sent += 1
            await asyncio.sleep(TICK_S)
    return {
        "confirmed": len(latencies),
        "p50Ms": percentile(latencies, 0.5) * 1000,
        "p99Ms": percentile(latencies, 0.99) * 1000,
    }


async def serve(url: str) -> None:
    """Execute the commands of standard input until it ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments=ARGUMENTS)
        while line := await reader.readline():
            command = json.loads(line)
            answer = await run(channel.default_exchange, command["run"], command["rate"], command["bytes"])
            await queue.purge()
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
