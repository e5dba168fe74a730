"""Log-ins per second compared to bare bcrypt on this machine, and `/healthz` latency meanwhile.

    python -m bench.auth_logins [--seconds 20] [--rounds 3] [--clients 50] [--database-url URL] [--json]

Starts a real `python -m auth` (on a migrated SQLite database in a temporary folder unless a URL is given), signs up one
user per client, and then alternates in each round:

- the limit: bare `bcrypt.checkpw` of the same cost in one thread per core, while the service is idle;
- log-ins: every client logs in again as soon as it has its response, while `/healthz` is requested every 20 ms.

The load generator shares the cores, unlike during the limit. So there are two ratios: as measured, and with the CPU
time of this process subtracted from the limit. A third is independent of other load on the machine: the CPU time of a
bare bcrypt hash divided by the service's CPU time of a log-in.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt

from bench.processes import cpu_of
from runtime.command_line import positive_number, whole_number

PASSWORD = "a password that is only for benches"
HEALTH_EVERY_S = 0.02
WARM_UP_S = 2.0
TARGET_RATIO, MAX_HEALTH_P99_MS = 0.9, 50.0


@dataclass(frozen=True)
class Round:
    """The figures of one round; times in seconds unless the name has another unit."""

    limit: float
    hash_cpu_s: float
    log_ins: float
    client_cpu: float  # cores
    server_cpu: float  # cores
    health_ms: list[float]

    @property
    def ratio(self) -> float:
        return self.log_ins / self.limit

    @property
    def ratio_without_client(self) -> float:
        cores = os.cpu_count() or 1
        return self.log_ins / (self.limit * (1 - self.client_cpu / cores))

    @property
    def ratio_of_cpu(self) -> float:
        return self.hash_cpu_s / (self.server_cpu / self.log_ins)


@dataclass(frozen=True)
class Service:
    pid: int
    port: int
    ops_port: int


class Connection:
    """One keep-alive HTTP/1.1 connection with minimal overhead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.body = b""  # of the last response

    async def request(self, method: str, path: str, body: Any = None, *, token: str = "") -> int:
        """Return the status of the response, after reading its body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        payload = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{authorization}{kind}\r\n".encode() + payload)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.body = await reader.readexactly(int(head.partition("content-length: ")[2].partition("\r\n")[0]))
        return int(head.split(" ", 2)[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@asynccontextmanager
async def service(url: str, folder: Path, cost: int) -> AsyncIterator[Service]:
    """Run `python -m auth` on a migrated database; it logs to a file, which costs no CPU to read."""
    environment = os.environ | {
        "AUTH_DATABASE_URL": url,
        "SIGNING_KEY_SECRET": "only for benches, not secret",
        "BCRYPT_COST": str(cost),
        # A disk that is busy with something else for some seconds ends no measurement.
        "DATABASE_TIMEOUT_SECONDS": "30",
        "HOST": "127.0.0.1",
        "OPS_HOST": "127.0.0.1",
        "PORT": "0",
        "OPS_PORT": "0",
        "LOG_FORMAT": "json",
    }
    migration = await asyncio.create_subprocess_exec(sys.executable, "-m", "auth", "migrate", env=environment)
    assert await migration.wait() == 0, "the database could not be migrated"
    path = folder / "auth.log"
    with path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "auth", env=environment, stdout=log, stderr=log
        )
    try:
        ops_port = await logged_port(process, path, "Health and metrics are served.")
        port = await logged_port(process, path, "Accounts, devices and tokens are served.")
        yield Service(process.pid, port, ops_port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def logged_port(process: asyncio.subprocess.Process, path: Path, message: str) -> int:
    for _ in range(300):
        log_text = await asyncio.to_thread(path.read_text)
        for line in log_text.splitlines():
            if message in line:
                return int(json.loads(line)["port"])
        assert process.returncode is None, log_text
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the service did not log: {message}")


def bcrypt_limit(seconds: float, cost: int) -> tuple[float, float]:
    """Return hashes per second of all cores, and the CPU seconds of one."""
    threads = os.cpu_count() or 1
    stored = bcrypt.hashpw(b"x" * 64, bcrypt.gensalt(cost))
    together = threading.Barrier(threads)

    def work(_: int) -> tuple[float, float]:
        together.wait()
        began, cpu_before, done = time.perf_counter(), time.thread_time(), 0
        while time.perf_counter() - began < seconds:
            bcrypt.checkpw(b"y" * 64, stored)
            done += 1
        return done / (time.perf_counter() - began), (time.thread_time() - cpu_before) / done

    with ThreadPoolExecutor(threads) as pool:
        each = list(pool.map(work, range(threads)))
    return sum(rate for rate, _ in each), statistics.mean(cpu for _, cpu in each)


async def sign_up(service_process: Service, n: int) -> None:
    connection = Connection(service_process.port)
    body = {"name": "Bench", "email": f"user-{n}@example.org", "password": PASSWORD}
    status = await connection.request("POST", "/user/signup", body)
    assert status in (201, 409), f"a sign-up failed with {status}"
    connection.close()


async def log_ins(service_process: Service, clients: int, seconds: float) -> tuple[float, float, float, list[float]]:
    """Return log-ins per second, cores used by this process and by the service, and `/healthz` latencies in ms."""
    done: list[float] = []
    latencies_ms: list[float] = []
    stopped = asyncio.Event()

    async def client(n: int) -> None:
        connection = Connection(service_process.port)
        while not stopped.is_set():
            body = {"email": f"user-{n}@example.org", "password": PASSWORD}
            status = await connection.request("POST", "/user/login", body)
            assert status == 200, f"a log-in failed with {status}"
            done.append(time.perf_counter())
        connection.close()

    async def health() -> None:
        connection = Connection(service_process.ops_port)
        while not stopped.is_set():
            began = time.perf_counter()
            assert await connection.request("GET", "/healthz") == 200
            latencies_ms.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(HEALTH_EVERY_S)
        connection.close()

    async with asyncio.TaskGroup() as tasks:
        for n in range(clients):
            tasks.create_task(client(n))
        tasks.create_task(health())
        await asyncio.sleep(WARM_UP_S)
        latencies_ms.clear()
        began, mine, theirs = time.perf_counter(), time.process_time(), cpu_of([service_process.pid])
        await asyncio.sleep(seconds)
        ended, mine, theirs = time.perf_counter(), time.process_time() - mine, cpu_of([service_process.pid]) - theirs
        measured_ms = list(latencies_ms)
        stopped.set()
    took = ended - began
    return sum(began <= at < ended for at in done) / took, mine / took, theirs / took, measured_ms


async def measure(arguments: argparse.Namespace, folder: Path) -> list[Round]:
    url = arguments.database_url or f"sqlite+aiosqlite:///{folder / 'users.db'}"
    rounds = []
    async with service(url, folder, arguments.cost) as service_process:
        await asyncio.gather(*(sign_up(service_process, n) for n in range(arguments.clients)))
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            limit, hash_cpu_s = await asyncio.to_thread(bcrypt_limit, arguments.seconds / 2, arguments.cost)
            measured = await log_ins(service_process, arguments.clients, arguments.seconds)
            rounds.append(Round(limit, hash_cpu_s, *measured))
    return rounds


def summary(rounds: list[Round]) -> dict[str, float]:
    """Return medians over the rounds; latencies over all rounds together."""
    health_ms = sorted(latency for each in rounds for latency in each.health_ms)

    def median(name: str) -> float:
        values: list[float] = [getattr(each, name) for each in rounds]
        return round(statistics.median(values), 3)

    return {
        "cores": os.cpu_count() or 1,
        "limitPerSecond": median("limit"),
        "logInsPerSecond": median("log_ins"),
        "ratio": median("ratio"),
        "ratioWithoutClient": median("ratio_without_client"),
        "ratioOfCpu": median("ratio_of_cpu"),
        "clientCores": median("client_cpu"),
        "serviceCores": median("server_cpu"),
        "healthzP50Ms": round(health_ms[len(health_ms) // 2], 2),
        "healthzP99Ms": round(health_ms[len(health_ms) * 99 // 100], 2),
        "healthzMaxMs": round(health_ms[-1], 2),
        "healthzAsked": len(health_ms),
    }


ROWS = {
    "limitPerSecond": "bcrypt alone, hashes a second",
    "logInsPerSecond": "log-ins a second",
    "ratio": f"ratio, as measured (target: {TARGET_RATIO})",
    "ratioWithoutClient": "ratio, minus the load generator's CPU",
    "ratioOfCpu": "CPU of a bare hash / CPU of a log-in",
    "clientCores": "cores used by the load",
    "serviceCores": "cores used by the service",
    "healthzP50Ms": "/healthz meanwhile, p50 in ms",
    "healthzP99Ms": f"/healthz meanwhile, p99 in ms (target: {MAX_HEALTH_P99_MS:g})",
    "healthzMaxMs": "/healthz meanwhile, longest in ms",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench auth_logins", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--seconds", type=positive_number, default=20.0, help="of log-ins per round; the limit takes half as long"
    )
    parser.add_argument("--rounds", type=whole_number(1), default=3)
    parser.add_argument("--clients", type=whole_number(1), default=50)
    parser.add_argument("--cost", type=whole_number(4, 31), default=12, help="bcrypt's cost")
    parser.add_argument("--database-url", help="an empty database, or one that an earlier run used")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        figures = summary(asyncio.run(measure(arguments, Path(folder))))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, about in ROWS.items():
        print(f"{about:<52}{figures[name]:>10g}")


if __name__ == "__main__":
    main()
