"""10,000 devices with their tokens: `POST /devices/batch` beside one `POST /devices` and one for the token each.

In turns, on a real `python -m auth` with a SQLite database, each round with users of their own. The single requests
come over several connections at once, each of which sends the next as soon as it has its answer.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.auth_logins import PASSWORD, Connection, Service, service
from bench.processes import cpu_of
from bench.report import Figure, progress
from bench.results import Details, finish

MIN_RATIO = 20.0
CONNECTIONS = 8
BCRYPT_COST = 4


@dataclass(frozen=True)
class Effort:
    """Devices by single requests and by one import, and rounds."""

    single: int
    imported: int
    rounds: int


FULL = Effort(500, 10_000, 3)
SMOKE = Effort(20, 400, 1)


@dataclass(frozen=True)
class Turn:
    """Devices with tokens a second, and the service's CPU in µs for each."""

    per_second: float
    cpu_us: float


async def token_of(auth: Service, email: str) -> str:
    """Sign a user up and return a token."""
    connection = Connection(auth.port)
    user = {"name": "Bench", "email": email, "password": PASSWORD}
    assert await connection.request("POST", "/user/signup", user) == 201, connection.body
    del user["name"]
    assert await connection.request("POST", "/user/login", user) == 200, connection.body
    connection.close()
    return str(json.loads(connection.body)["accessToken"])


async def single_requests(auth: Service, token: str, count: int) -> int:
    """Register devices one by one, each with a token; return how many there are."""
    numbers = iter(range(count))
    tokens: list[str] = []

    async def client() -> None:
        connection = Connection(auth.port)
        for number in numbers:
            assert await connection.request("POST", "/devices", row(number), token=token) == 201, connection.body
            device = json.loads(connection.body)["id"]
            assert await connection.request("POST", f"/devices/{device}/token", token=token) == 201, connection.body
            tokens.append(json.loads(connection.body)["token"])
        connection.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return len(set(tokens))


async def one_import(auth: Service, token: str, count: int) -> int:
    """Register devices by one request; return how many have a token."""
    connection = Connection(auth.port)
    rows = [row(number) for number in range(count)]
    assert await connection.request("POST", "/devices/batch?tokens=true", rows, token=token) == 200, connection.body
    connection.close()
    return len({item["token"] for item in json.loads(connection.body)["items"]})


def row(number: int) -> dict[str, str]:
    """Return the fields of a device."""
    return {"name": f"device-{number:05}", "sensorType": "temperature", "location": f"hall {number % 40}"}


async def measure(folder: Path, effort: Effort) -> dict[str, list[Turn]]:
    """Return the turns by name."""
    ways = {"single": (single_requests, effort.single), "batch": (one_import, effort.imported)}
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    async with service(f"sqlite+aiosqlite:///{folder / 'users.db'}", folder, BCRYPT_COST) as auth:
        for number in range(effort.rounds):
            progress(f"round {number + 1} of {effort.rounds}")
            for name in ways if number % 2 == 0 else reversed(ways):
                register, count = ways[name]
                token = await token_of(auth, f"{name}-{number}@example.org")
                began, cpu = time.perf_counter(), cpu_of([auth.pid])
                registered = await register(auth, token, count)
                took, cpu = time.perf_counter() - began, cpu_of([auth.pid]) - cpu
                assert registered == count, f"{registered} of {count} devices have a token"
                turns[name].append(Turn(count / took, cpu / count * 1e6))
    return turns


def figures_of(turns: dict[str, list[Turn]]) -> list[Figure]:
    """Return the medians, and that of the ratios of each round."""
    pairs = list(zip(turns["single"], turns["batch"], strict=True))

    def middle(name: str, field: str) -> float:
        values: list[float] = [getattr(turn, field) for turn in turns[name]]
        return median(values)

    return [
        Figure("devices with tokens, single requests", middle("single", "per_second"), "a second"),
        Figure("  CPU of auth", middle("single", "cpu_us"), "µs a device"),
        Figure("devices with tokens, one import", middle("batch", "per_second"), "a second"),
        Figure("  CPU of auth", middle("batch", "cpu_us"), "µs a device"),
        Figure(
            "import beside single requests: rate",
            median(batch.per_second / single.per_second for single, batch in pairs),
            "x",
            at_least=MIN_RATIO,
        ),
        Figure(
            "import beside single requests: CPU of auth",
            median(single.cpu_us / max(batch.cpu_us, 1) for single, batch in pairs),
            "x less",
        ),
    ]


def main() -> int:
    """Parse the command line, measure, print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench provisioning", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a minimal run that only shows that it works")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    effort = SMOKE if options.smoke else FULL
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        figures = figures_of(asyncio.run(measure(Path(folder), effort)))
    details = Details(about={"single": effort.single, "imported": effort.imported, "rounds": effort.rounds})
    title = "Devices with tokens, by one import and one by one"
    return finish("provisioning", title, figures, details, as_json=options.json, save=not options.smoke)


if __name__ == "__main__":
    sys.exit(main())
