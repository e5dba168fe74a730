"""The reader with millions of stored readings, and with 200 live browsers during ingestion.

Latencies are those of one client with sequential requests over one connection. The export is compared to a bare pymongo
cursor that writes the same CSV. Each browser follows one device, through the whole pipeline.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
from pymongo import MongoClient

from bench.environment import start_environment
from bench.load import percentile
from bench.processes import BenchError, LineProcess
from bench.reader_setup import BEGIN_MS, DAY_MS, OWNER, SERIES, ReaderSetup
from bench.report import Figure, progress, show
from readings.filters import in_time_range
from readings.keys import series_key
from runtime.command_line import whole_number
from testing.servers.mongodb import MongoDBServer

REQUESTS = 1000
EXPORTED_SERIES = 100
MIB = 1024 * 1024
BROWSERS = 200
DEVICES = 20
READINGS_A_SECOND = 5000
EVENT = 10
HEARTBEAT_S = 10
WATCH_S = 32.0


def random_series(rng: random.Random) -> dict[str, str]:
    return {"device": f"device-{rng.randrange(SERIES // 2)}", "sensorType": rng.choice(("temperature", "humidity"))}


async def timed(request: Callable[[], Awaitable[int]], requests: int) -> tuple[float, float, float]:
    """Return p50 and p99 in ms, and the mean number of items per response."""
    taken, items = [], 0
    for _ in range(requests):
        started = time.perf_counter()
        items += await request()
        taken.append(time.perf_counter() - started)
    return percentile(taken, 0.5) * 1000, percentile(taken, 0.99) * 1000, items / requests


async def measure_latencies(url: str, token: str, requests: int) -> list[Figure]:
    """Measure the calls of a page."""
    rng = random.Random(2)
    figures = []
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as session:

        async def get(path: str, **query: str) -> int:
            async with session.get(path, params=query) as answer:
                if answer.status != 200:
                    raise BenchError(await answer.text())
                return len((await answer.json())["items"])

        def device() -> str:
            return random_series(rng)["device"]

        def somewhere() -> str:
            return str(BEGIN_MS + rng.randrange(DAY_MS // 2))

        calls: dict[str, tuple[Callable[[], Awaitable[int]], float]] = {
            "latest of a device": (lambda: get("/readings/latest", device=device()), 10),
            "page of 1,000": (
                lambda: get("/readings", **random_series(rng), limit="1000", **{"from": somewhere()}),
                40,
            ),
            "a day's buckets (1 m)": (
                lambda: get(
                    "/readings/buckets",
                    **random_series(rng),
                    every="1m",
                    to=str(BEGIN_MS + DAY_MS),
                    **{"from": str(BEGIN_MS)},
                ),
                60,
            ),
            "series of a device": (lambda: get("/series", device=device()), 0),
        }
        for what, (request, limit) in calls.items():
            await timed(request, 20)
            p50, p99, items = await timed(request, requests)
            progress(f"  {what}: p50 {p50:.1f}, p99 {p99:.1f} ms, {items:.1f} items")
            figures += [
                Figure(f"{what}: p50", p50, "ms"),
                Figure(f"{what}: p99", p99, "ms", limit or None),
            ]
    return figures


async def measure_export(url: str, token: str, series: int) -> float:
    """Export series sequentially; return rows per second."""
    rows = 0
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as session:
        started = time.perf_counter()
        for number in range(series):
            query = {
                "device": f"device-{number // 2}",
                "sensorType": ("temperature", "humidity")[number % 2],
                "format": "csv",
            }
            async with session.get("/readings", params=query) as answer:
                async for piece in answer.content.iter_any():
                    rows += piece.count(b"\n")
            rows -= 1  # the head
        return rows / (time.perf_counter() - started)


def measure_bare_export(mongodb: MongoDBServer, series: int) -> float:
    """Write the same CSV from a bare cursor; return rows per second."""
    rows = 0
    with MongoClient[dict[str, Any]](mongodb.url) as client, Path("/dev/null").open("w") as file:
        collection = client["bench"]["readings"]
        started = time.perf_counter()
        for number in range(series):
            device, sensor_type = f"device-{number // 2}", ("temperature", "humidity")[number % 2]
            for document in collection.find(in_time_range(series_key(OWNER, device, sensor_type))).sort("_id", 1):
                key = document["_id"]
                ts = key["ts"].isoformat(timespec="milliseconds") + "Z"
                received = document["receivedAt"].isoformat(timespec="milliseconds") + "Z"
                file.write(
                    f"{device},{sensor_type},{ts},{key['seq']},{document['value']},{received},{document['unit']},,\r\n"
                )
                rows += 1
        return rows / (time.perf_counter() - started)


def measure_history(setup: ReaderSetup, readings: int, requests: int) -> list[Figure]:
    """Measure history queries and exports."""
    progress(f"{readings:,} readings of {SERIES:,} series")
    setup.fill(readings)
    with setup.service("reader") as (reader, port):
        url = f"http://127.0.0.1:{port}"
        figures = asyncio.run(measure_latencies(url, setup.token, requests))
        ours, bare = [], []
        for _ in range(3):
            ours.append(asyncio.run(measure_export(url, setup.token, EXPORTED_SERIES)))
            bare.append(measure_bare_export(setup.mongodb, EXPORTED_SERIES))
            progress(f"  export {ours[-1]:,.0f} rows a second, a bare cursor {bare[-1]:,.0f}")
        rate, bare_rate = sorted(ours)[1], sorted(bare)[1]
        return [
            *figures,
            Figure("CSV export", rate, "rows/s"),
            Figure("  a bare cursor's", bare_rate, "rows/s"),
            # Target: 100,000 rows per second, or half of the bare cursor's.
            Figure(
                "  time a row: of 10 µs, or of twice the bare cursor's", min(1e5 / rate, bare_rate / 2 / rate), "x", 1
            ),
            Figure("memory of the reader at most", reader.peak_memory_bytes() / MIB, "MiB", 150e6 / MIB),
        ]


def measure_live(setup: ReaderSetup, browsers: int, watch_s: float) -> list[Figure]:
    """Measure ingestion with and without live browsers."""
    progress(f"{READINGS_A_SECOND:,} readings a second through the pipeline, and {browsers} browsers")
    with ExitStack() as stack:
        gateway = stack.enter_context(setup.environment.peer("gateway", DEVICES))
        persister, _ = stack.enter_context(setup.service("persister"))
        reader, port = stack.enter_context(setup.service("reader", HEARTBEAT_SECONDS=str(HEARTBEAT_S)))
        process = LineProcess(
            [sys.executable, "-m", "bench.browsers", str(port)], log=setup.environment.folder / "browsers.log"
        )
        browser_process = stack.enter_context(process)
        browser_process.send({"token": setup.token, "devices": [f"device-{number}" for number in range(DEVICES)]})
        gateway.load.request({"connect": DEVICES})

        def run(seconds: float) -> tuple[float, float, dict[str, Any]]:
            before = gateway.server.cpu_s() + persister.cpu_s()
            ran = gateway.load.request(
                {"run": seconds, "size": EVENT, "inFlight": 0, "rate": READINGS_A_SECOND / EVENT}
            )
            if ran["refused"] or ran["unanswered"] or ran["lost"]:
                raise BenchError(f"not everything was accepted: {ran}")
            readings = ran["acknowledged"] * EVENT
            return (
                readings / ran["seconds"],
                (gateway.server.cpu_s() + persister.cpu_s() - before) / readings * 1e6,
                ran,
            )

        run(3)
        rate_alone, cpu_alone, alone = run(watch_s / 2)
        browser_process.request({"open": browsers})
        browser_process.send({"watch": watch_s})
        reader_before = reader.cpu_s()
        rate, cpu, with_browsers = run(watch_s)
        watched = browser_process.receive()
        reader_cores = (reader.cpu_s() - reader_before) / watch_s
        progress(f"  alone p99 {alone['p99Ms']:.1f} ms, with browsers {with_browsers['p99Ms']:.1f} ms; {watched}")
        if watched["ended"]:
            raise BenchError(f"{watched['ended']} feeds have ended\n{reader.log_tail()}")
        return [
            # Both runs have the same offered rate, so the rates only show that everything was accepted, as checked
            # above. The cost of browsers for ingestion shows in the CPU per reading.
            Figure("readings a second offered and taken without browsers", rate_alone, "readings/s"),
            Figure(f"readings a second offered and taken with {browsers}", rate, "readings/s"),
            Figure("  acknowledgement p99 without browsers", alone["p99Ms"], "ms"),
            Figure(f"  acknowledgement p99 with {browsers}", with_browsers["p99Ms"], "ms"),
            Figure("  CPU a reading (gateway, persister): with, of without", cpu / cpu_alone, "x", 1.1),
            Figure("  events that each browser saw a second", watched["events"] / browsers / watch_s, "events/s"),
            Figure("  longest time between two heartbeats", watched["longestSilenceS"], "s", HEARTBEAT_S * 1.2),
            Figure("  cores that the reader took", reader_cores, "cores"),
            Figure("  memory of the reader at most", reader.peak_memory_bytes() / MIB, "MiB", 150e6 / MIB),
        ]


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench reader", description=__doc__)
    parser.add_argument(
        "--readings",
        type=whole_number(SERIES),
        default=5_000_000,
        help="number of stored readings (default: %(default)s)",
    )
    parser.add_argument("--only", choices=("history", "live"), help="only this half")
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    readings, requests, browsers, watch_s = options.readings, REQUESTS, BROWSERS, WATCH_S
    if options.smoke:
        readings, requests, browsers, watch_s = 100_000, 20, 20, 2.0
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            with (
                start_environment(Path(folder)) as environment,
                MongoDBServer(Path(folder) / "mongodb", cache_gb=1) as mongodb,
            ):
                setup = ReaderSetup(environment, mongodb)
                if options.only != "live":
                    figures += measure_history(setup, readings, requests)
                if options.only != "history":
                    figures += measure_live(setup, browsers, watch_s)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    return show("Reading what is stored, and what flows", figures, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
