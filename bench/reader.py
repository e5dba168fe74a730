"""The reader over millions of stored readings, and under 200 live browsers while readings flow.

Latencies are those of one client, one request after the other, over one connection. The export is measured beside a
bare pymongo cursor that writes the same CSV. The browsers follow one device each, through the whole pipeline.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bson
from pymongo import MongoClient, WriteConcern

from bench.load import percentile
from bench.processes import BenchError, Speaking, Started
from bench.report import Figure, progress, show
from bench.stage import Stage, stage
from readings.document import encode_document
from readings.filters import in_time_range
from readings.keys import series_key
from readings.reading import Reading
from testing.issuer import ISSUER
from testing.servers.mongodb import MongoDBServer
from testing.servers.ports import free_port

OWNER = "owner-0"
SERIES = 1000
# A day of each series, whatever its number of readings.
DAY_MS = 86_400_000
BEGIN_MS = 1_700_006_400_000  # a midnight
OPTIONS: dict[str, Any] = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}
REQUESTS = 1000
EXPORTED_SERIES = 100
MIB = 1024 * 1024
BROWSERS = 200
DEVICES = 20
READINGS_A_SECOND = 5000
EVENT = 10
HEARTBEAT_S = 10
WATCH_S = 32.0


class Place:
    """A reader and what it reads."""

    def __init__(self, on: Stage, mongodb: MongoDBServer) -> None:
        self.on = on
        self.mongodb = mongodb
        self.token = on.user_token(OWNER)

    @contextmanager
    def service(self, name: str, **settings: str) -> Iterator[tuple[Started, int]]:
        """Run one of our services; gives it and its port."""
        port, ops_port = free_port(), free_port()
        environment = {
            "BROKER_URL": self.on.broker_url,
            "READINGS_URL": self.mongodb.url,
            "READINGS_DATABASE": "bench",
            "AUTH_URL": self.on.auth_url,
            "TOKEN_ISSUER": ISSUER,
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "OPS_HOST": "127.0.0.1",
            "OPS_PORT": str(ops_port),
            **settings,
        }
        log = self.on.folder / f"{name}.log"
        with Started([sys.executable, "-m", name], log=log, environment=environment) as started:
            started.wait_for_port(ops_port)
            yield started, port

    def fill(self, readings: int) -> None:
        """Store readings of 1,000 series, as a persister does."""
        each = readings // SERIES
        step_ms = DAY_MS // each
        with MongoClient[dict[str, Any]](self.mongodb.url) as client:
            database = client["bench"]
            collection = database.create_collection("readings", **OPTIONS)
            fast = collection.with_options(write_concern=WriteConcern(1))
            rng = random.Random(1)
            for number in range(SERIES):
                device, sensor_type = f"device-{number // 2}", ("temperature", "humidity")[number % 2]
                database["series"].insert_one({"_id": series_key(OWNER, device, sensor_type)})
                batch = [
                    bson.raw_bson.RawBSONDocument(
                        encode_document(
                            OWNER,
                            device,
                            Reading(sensor_type, round(rng.gauss(20, 3), 3), ts, 0, ts + 40, unit="celsius"),
                        )
                    )
                    for ts in range(BEGIN_MS, BEGIN_MS + each * step_ms, step_ms)
                ]
                for start in range(0, each, 4000):
                    fast.insert_many(batch[start : start + 4000], ordered=False)
                if number % 100 == 99:
                    progress(f"  {(number + 1) * each:,} readings are stored")


def one_of(rng: random.Random) -> dict[str, str]:
    return {"device": f"device-{rng.randrange(SERIES // 2)}", "sensorType": rng.choice(("temperature", "humidity"))}


async def timed(ask: Callable[[], Awaitable[int]], requests: int) -> tuple[float, float, float]:
    """Return p50 and p99 in ms, and the mean number of items of an answer."""
    taken, items = [], 0
    for _ in range(requests):
        started = time.perf_counter()
        items += await ask()
        taken.append(time.perf_counter() - started)
    return percentile(taken, 0.5) * 1000, percentile(taken, 0.99) * 1000, items / requests


async def latencies(url: str, token: str, requests: int) -> list[Figure]:
    """Measure the calls that a page makes."""
    rng = random.Random(2)
    figures = []
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {token}"}) as session:

        async def get(path: str, **query: str) -> int:
            async with session.get(path, params=query) as answer:
                if answer.status != 200:
                    raise BenchError(await answer.text())
                return len((await answer.json())["items"])

        def device() -> str:
            return one_of(rng)["device"]

        def somewhere() -> str:
            return str(BEGIN_MS + rng.randrange(DAY_MS // 2))

        asked: dict[str, tuple[Callable[[], Awaitable[int]], float]] = {
            "latest of a device": (lambda: get("/readings/latest", device=device()), 10),
            "page of 1,000": (lambda: get("/readings", **one_of(rng), limit="1000", **{"from": somewhere()}), 40),
            "a day's buckets (1 m)": (
                lambda: get(
                    "/readings/buckets", **one_of(rng), every="1m", to=str(BEGIN_MS + DAY_MS), **{"from": str(BEGIN_MS)}
                ),
                60,
            ),
            "series of a device": (lambda: get("/series", device=device()), 0),
        }
        for what, (ask, limit) in asked.items():
            await timed(ask, 20)
            p50, p99, items = await timed(ask, requests)
            progress(f"  {what}: p50 {p50:.1f}, p99 {p99:.1f} ms, {items:.1f} items")
            figures += [
                Figure(f"{what}: p50", p50, "ms"),
                Figure(f"{what}: p99", p99, "ms", limit or None),
            ]
    return figures


async def exported(url: str, token: str, series: int) -> float:
    """Export series one after the other; return rows a second."""
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


def bare_export(mongodb: MongoDBServer, series: int) -> float:
    """Write the same CSV from a bare cursor; return rows a second."""
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


def history(place: Place, readings: int, requests: int) -> list[Figure]:
    """Measure the calls for history."""
    progress(f"{readings:,} readings of {SERIES:,} series")
    place.fill(readings)
    with place.service("reader") as (reader, port):
        url = f"http://127.0.0.1:{port}"
        figures = asyncio.run(latencies(url, place.token, requests))
        ours, bare = [], []
        for _ in range(3):
            ours.append(asyncio.run(exported(url, place.token, EXPORTED_SERIES)))
            bare.append(bare_export(place.mongodb, EXPORTED_SERIES))
            progress(f"  export {ours[-1]:,.0f} rows a second, a bare cursor {bare[-1]:,.0f}")
        rate, beside = sorted(ours)[1], sorted(bare)[1]
        return [
            *figures,
            Figure("CSV export", rate, "rows/s"),
            Figure("  a bare cursor's", beside, "rows/s"),
            # Asked: 100,000 rows a second, or half of the bare cursor's.
            Figure("  time a row: of 10 µs, or of twice the bare cursor's", min(1e5 / rate, beside / 2 / rate), "x", 1),
            Figure("memory of the reader at most", reader.peak_memory_bytes() / MIB, "MiB", 150e6 / MIB),
        ]


def live(place: Place, browsers: int, watch_s: float) -> list[Figure]:
    """Measure ingestion with and without browsers that follow it."""
    progress(f"{READINGS_A_SECOND:,} readings a second through the pipeline, and {browsers} browsers")
    with ExitStack() as stack:
        gateway = stack.enter_context(place.on.peer("gateway", DEVICES))
        persister, _ = stack.enter_context(place.service("persister"))
        reader, port = stack.enter_context(place.service("reader", HEARTBEAT_SECONDS=str(HEARTBEAT_S)))
        speaking = Speaking([sys.executable, "-m", "bench.browsers", str(port)], log=place.on.folder / "browsers.log")
        watching = stack.enter_context(speaking)
        watching.say({"token": place.token, "devices": [f"device-{number}" for number in range(DEVICES)]})
        gateway.load.ask({"connect": DEVICES})

        def run(seconds: float) -> tuple[float, float, dict[str, Any]]:
            before = gateway.server.cpu_s() + persister.cpu_s()
            ran = gateway.load.ask({"run": seconds, "size": EVENT, "inFlight": 0, "rate": READINGS_A_SECOND / EVENT})
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
        watching.ask({"open": browsers})
        watching.say({"watch": watch_s})
        reader_before = reader.cpu_s()
        rate, cpu, with_them = run(watch_s)
        seen = watching.hear()
        reader_cores = (reader.cpu_s() - reader_before) / watch_s
        progress(f"  alone p99 {alone['p99Ms']:.1f} ms, with browsers {with_them['p99Ms']:.1f} ms; {seen}")
        if seen["ended"]:
            raise BenchError(f"{seen['ended']} feeds have ended\n{reader.log_end()}")
        return [
            # Both are paced alike, so their rates say only that all was taken, which is required above. What browsers
            # take from ingestion's capacity is what a reading costs with them.
            Figure("readings a second offered and taken without browsers", rate_alone, "readings/s"),
            Figure(f"readings a second offered and taken with {browsers}", rate, "readings/s"),
            Figure("  acknowledgement p99 without browsers", alone["p99Ms"], "ms"),
            Figure(f"  acknowledgement p99 with {browsers}", with_them["p99Ms"], "ms"),
            Figure("  CPU a reading (gateway, persister): with, of without", cpu / cpu_alone, "x", 1.1),
            Figure("  events that each browser saw a second", seen["events"] / browsers / watch_s, "events/s"),
            Figure("  longest time between two heartbeats", seen["longestSilenceS"], "s", HEARTBEAT_S * 1.2),
            Figure("  cores that the reader took", reader_cores, "cores"),
            Figure("  memory of the reader at most", reader.peak_memory_bytes() / MIB, "MiB", 150e6 / MIB),
        ]


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench reader", description=__doc__)
    parser.add_argument("--readings", type=int, default=5_000_000, help="how many are stored (default: %(default)s)")
    parser.add_argument("--only", choices=("history", "live"), help="one half of it")
    parser.add_argument("--smoke", action="store_true", help="a moment of each: only to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    asked = parser.parse_args()
    readings, requests, browsers, watch_s = asked.readings, REQUESTS, BROWSERS, WATCH_S
    if asked.smoke:
        readings, requests, browsers, watch_s = 100_000, 20, 20, 2.0
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        try:
            with stage(Path(folder)) as on, MongoDBServer(Path(folder) / "mongodb", cache_gb=1) as mongodb:
                place = Place(on, mongodb)
                if asked.only != "live":
                    figures += history(place, readings, requests)
                if asked.only != "history":
                    figures += live(place, browsers, watch_s)
        except BenchError as error:
            print(error, file=sys.stderr)
            return 2
    return show("Reading what is stored, and what flows", figures, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
