"""One sample every few seconds: what each process, the database, the queues and the disk look like."""

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from bench.processes import cpu_of, memory_of
from tests.soak.stack import Stack

# A line of the text format without labels.
METRIC = re.compile(r"^(tidegate_\w+) (\S+)$", re.MULTILINE)
FILE = "samples.jsonl"
Sample = dict[str, Any]
"""`hours` since the start of its `run`; `processes`: name → bytes, files, threads, tasks, cpu."""


def process_sample(pids: list[int]) -> dict[str, float]:
    """Return memory, open files, threads and CPU seconds of processes together; those that ended count 0."""
    files = threads = 0
    for pid in pids:
        with suppress(OSError):
            files += sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            threads += sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
    return {"bytes": memory_of(pids), "files": files, "threads": threads, "cpu": cpu_of(pids)}


def folder_bytes(folder: Path) -> int:
    """Return what the files of a folder take on disk."""
    found = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            found += file.lstat().st_blocks * 512
    return found


def metrics_of(text: str) -> dict[str, float]:
    """Return the metrics without labels."""
    return {name: float(value) for name, value in METRIC.findall(text)}


class Sampler:
    """Writes samples of a stack to a file and keeps them."""

    def __init__(self, stack: Stack, folder: Path, run: int) -> None:
        self._stack, self._folder, self._run = stack, folder, run
        self._began = time.monotonic()
        self._file = folder / FILE
        self.last: Sample = {}
        self._client: MongoClient[dict[str, Any]] = MongoClient(stack.mongodb.url, timeoutMS=5000, connect=False)

    async def take(self, fleet: Mapping[str, float]) -> Sample:
        """Take one sample, with what the fleet tells of itself."""
        hours = (time.monotonic() - self._began) / 3600
        metrics = await self._metrics()
        processes = {name: process_sample(pids) for name, pids in self._stack.pids().items()}
        processes["fleet"] = process_sample([os.getpid()])
        for name, found in metrics.items():
            if "tidegate_tasks" in found:
                processes[name]["tasks"] = found["tidegate_tasks"]
        persisters = [found for name, found in metrics.items() if name.startswith("persister")]
        gateway = metrics.get("gateway", {})
        sample: Sample = {"run": self._run, "hours": round(hours, 5), "processes": processes}
        sample |= await asyncio.to_thread(self._database) | dict(fleet)
        sample |= {
            "queue": max((one.get("tidegate_persister_queue_depth", 0) for one in persisters), default=0),
            "lag": max((one.get("tidegate_persister_lag_seconds", 0) for one in persisters), default=0),
            "sealed": max((one.get("tidegate_persister_sealed_waiting", 0) for one in persisters), default=0),
            "sessions": gateway.get("tidegate_gateway_connections", 0),
            "given_up": metrics.get("compactor", {}).get("tidegate_compactor_given_up", 0),
        }
        with self._file.open("a") as file:
            file.write(json.dumps(sample) + "\n")
        self.last = sample
        return sample

    def close(self) -> None:
        """Close the connection to MongoDB."""
        self._client.close()

    async def _metrics(self) -> dict[str, dict[str, float]]:
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:

            async def scrape(port: int) -> dict[str, float]:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                        return metrics_of(await response.text())
                return {}

            services = self._stack.services
            found = await asyncio.gather(*(scrape(service.ops_port) for service in services.values()))
        return dict(zip(services, found, strict=True))

    def _database(self) -> Sample:
        found: Sample = {
            "disk": {name: folder_bytes(self._folder / name) for name in ("mongodb", "rabbitmq", "mariadb", "nginx")}
        }
        with suppress(PyMongoError):
            database = self._client["tidegate"]
            stats = database.command("dbStats")
            found |= {"collections": stats["collections"], "stored_bytes": stats["storageSize"] + stats["indexSize"]}
        return found


def read_samples(folder: Path) -> list[Sample]:
    """Return the samples of all runs on a folder, in order."""
    return list(_lines(folder / FILE))


def _lines(file: Path) -> Iterator[Sample]:
    if file.exists():
        for line in file.read_text().splitlines():
            with suppress(ValueError):  # a run that was killed may leave half a line
                yield json.loads(line)
