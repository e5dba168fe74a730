"""A onebox for a bench that looks at its dashboard, and the series in it: registered and sent as devices would.

Half as many devices as series, all registered and named, each of two sensors. Over HTTP, with the owner's token, many
requests at once: through `POST /devices` and `POST /readings`, so that everything that a real installation writes for a
series is written.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from bench.processes import BenchError, Started
from onebox.demo import DEMO_EMAIL

AT_ONCE = 8
MOST_RETRIES = 20
READY_WITHIN_S = 60.0
STORED_WITHIN_S = 120.0
SENSORS = (("temperature", "C"), ("humidity", "%"))
PLACES = ("hall 1", "hall 2", "yard", "roof")


class Site:
    """A onebox on a port, its data in a folder; started as often as one likes."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it without simulated devices; BenchError when its user cannot log in."""
        command = [sys.executable, "-m", "onebox", "--json", "--devices", "0"]
        command += ["--port", str(self.port), "--data", str(self.folder / "data")]
        with Started(command, log=self.folder / "onebox.log", environment={"LOG_LEVEL": "error"}) as onebox:
            onebox.wait_for_port(self.port)
            deadline = time.monotonic() + READY_WITHIN_S
            while not (ready := asyncio.run(self._ready())) and time.monotonic() < deadline:
                onebox.must_run()
                time.sleep(0.1)
            if not ready:
                raise BenchError(f"nobody can log in\n{onebox.log_end()}")
            yield

    @property
    def person(self) -> dict[str, str]:
        """E-mail and password of its user."""
        secrets: dict[str, str] = json.loads((self.folder / "data" / "secrets.json").read_text())
        return {"email": DEMO_EMAIL, "password": secrets["demoPassword"]}

    async def _ready(self) -> bool:
        with suppress(aiohttp.ClientError, OSError, BenchError):
            async with self.session():
                return True
        return False

    def token(self) -> str:
        """Return an access token of its user."""

        async def logged_in() -> str:
            async with self.session() as session:
                return session.token

        return asyncio.run(logged_in())

    def session(self) -> "Session":
        """Return a session of its user, as an async context manager."""
        return Session(self)

    def fill(self, series: int, told: Callable[[str], None]) -> None:
        """Register devices for so many series and send a first reading of each; return when all are stored."""
        asyncio.run(self._fill(series, told))

    async def _fill(self, series: int, told: Callable[[str], None]) -> None:
        async with self.session() as session:
            devices: list[str] = []

            async def register(number: int) -> None:
                body = {"name": f"sim-{number}", "sensorType": "temperature", "location": PLACES[number % len(PLACES)]}
                made = await session.send("/devices", body, 201)
                devices.append(made["id"])

            async def report(number: int) -> None:
                await session.send("/readings", report_of(number), 202, device=devices[number])

            count = series // len(SENSORS)
            await _each(register, count)
            told(f"  {count:,} devices are registered")
            await _each(report, count)
            await session.all_stored(series)
            told(f"  {series:,} series have sent")


def report_of(number: int) -> list[dict[str, Any]]:
    """Return what a device sends of its sensors."""
    return [{"sensorType": sensor, "unit": unit, "value": 20 + number % 97 / 10} for sensor, unit in SENSORS]


async def _each(call: Callable[[int], Awaitable[None]], count: int) -> None:
    """Call with 0 … count - 1, so many at once."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    except* BenchError as errors:
        raise errors.exceptions[0] from None


class Session:
    """Calls of the owner's."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._http: aiohttp.ClientSession
        self.token = ""

    async def __aenter__(self) -> "Session":
        self._http = aiohttp.ClientSession(self._site.url, timeout=aiohttp.ClientTimeout(total=60))
        try:
            self.token = (await self.send("/user/login", self._site.person, 200))["accessToken"]
        except BaseException:
            await self._http.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def send(self, path: str, body: Any, status: int, *, device: str = "") -> dict[str, Any]:
        """POST; BenchError where the answer is another one, or says that something was rejected."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if device:
            headers["X-Device-Id"] = device
        for _ in range(MOST_RETRIES):
            async with self._http.post(path, json=body, headers=headers) as answer:
                said: dict[str, Any] = await answer.json()
            if answer.status not in (429, 503):
                break
            await asyncio.sleep(float(answer.headers.get("Retry-After", "0.5")))
        if answer.status != status or said.get("rejected"):
            raise BenchError(f"POST {path}: {answer.status} {said}")
        return said

    async def all_stored(self, series: int) -> None:
        """Return when so many series have a newest reading."""
        deadline = time.monotonic() + STORED_WITHIN_S
        while (found := await self._stored()) < series:
            if time.monotonic() > deadline:
                raise BenchError(f"only {found} of {series} series are there")
            await asyncio.sleep(0.5)

    async def _stored(self) -> int:
        """Return how many series there are."""
        headers = {"Authorization": f"Bearer {self.token}"}
        found, query = 0, {"limit": "1000"}
        while True:
            async with self._http.get("/series", params=query, headers=headers) as answer:
                said = await answer.json()
            found += len(said["items"])
            if "nextCursor" not in said:
                return found
            query["cursor"] = said["nextCursor"]
