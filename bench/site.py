"""A onebox for the dashboard benchmark, and its series: registered and sent as by real devices.

Each registered device has two sensors, so there are half as many devices as series. They are created through
`POST /devices` and `POST /readings` with concurrent requests and the owner's token, so that everything is written that
a real installation writes for a series.
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

from bench.processes import BenchError, BenchProcess
from onebox.demo import DEMO_EMAIL

CONCURRENCY = 8
MAX_RETRIES = 20
READY_WITHIN_S = 60.0
STORED_WITHIN_S = 120.0
SENSORS = (("temperature", "C"), ("humidity", "%"))
PLACES = ("hall 1", "hall 2", "yard", "roof")


class Site:
    """A onebox on a port, with its data in a folder; it can be restarted."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it without simulated devices; BenchError if its user cannot log in."""
        command = [sys.executable, "-m", "onebox", "--json", "--devices", "0"]
        command += ["--port", str(self.port), "--data", str(self.folder / "data")]
        with BenchProcess(command, log=self.folder / "onebox.log", environment={"LOG_LEVEL": "error"}) as onebox:
            onebox.wait_for_port(self.port)
            deadline = time.monotonic() + READY_WITHIN_S
            while not (ready := asyncio.run(self._ready())) and time.monotonic() < deadline:
                onebox.require_running()
                time.sleep(0.1)
            if not ready:
                raise BenchError(f"the user cannot log in\n{onebox.log_tail()}")
            yield

    @property
    def credentials(self) -> dict[str, str]:
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

    def fill(self, series: int, report: Callable[[str], None]) -> None:
        """Register devices for `series` series and send a first reading of each; return when all are stored."""
        asyncio.run(self._fill(series, report))

    async def _fill(self, series: int, report: Callable[[str], None]) -> None:
        async with self.session() as session:
            devices: list[str] = []

            async def register(number: int) -> None:
                body = {"name": f"sim-{number}", "sensorType": "temperature", "location": PLACES[number % len(PLACES)]}
                made = await session.send("/devices", body, 201)
                devices.append(made["id"])

            async def send_readings(number: int) -> None:
                await session.send("/readings", readings_of(number), 202, device=devices[number])

            count = series // len(SENSORS)
            await _each(register, count)
            report(f"  {count:,} devices are registered")
            await _each(send_readings, count)
            await session.all_stored(series)
            report(f"  {series:,} series have sent")


def readings_of(number: int) -> list[dict[str, Any]]:
    """Return one reading per sensor of a device."""
    return [{"sensorType": sensor, "unit": unit, "value": 20 + number % 97 / 10} for sensor, unit in SENSORS]


async def _each(call: Callable[[int], Awaitable[None]], count: int) -> None:
    """Call with 0 … count - 1, CONCURRENCY at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(work())
    except* BenchError as errors:
        raise errors.exceptions[0] from None


class Session:
    """HTTP calls of the user."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._http: aiohttp.ClientSession
        self.token = ""

    async def __aenter__(self) -> "Session":
        self._http = aiohttp.ClientSession(self._site.url, timeout=aiohttp.ClientTimeout(total=60))
        try:
            self.token = (await self.send("/user/login", self._site.credentials, 200))["accessToken"]
        except BaseException:
            await self._http.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def send(self, path: str, body: Any, status: int, *, device: str = "") -> dict[str, Any]:
        """POST; BenchError if the response has another status or rejected readings."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if device:
            headers["X-Device-Id"] = device
        for _ in range(MAX_RETRIES):
            async with self._http.post(path, json=body, headers=headers) as answer:
                body_json: dict[str, Any] = await answer.json()
            if answer.status not in (429, 503):
                break
            await asyncio.sleep(float(answer.headers.get("Retry-After", "0.5")))
        if answer.status != status or body_json.get("rejected"):
            raise BenchError(f"POST {path}: {answer.status} {body_json}")
        return body_json

    async def all_stored(self, series: int) -> None:
        """Return when `series` series are stored."""
        deadline = time.monotonic() + STORED_WITHIN_S
        while (found := await self._stored()) < series:
            if time.monotonic() > deadline:
                raise BenchError(f"only {found} of {series} series are stored")
            await asyncio.sleep(0.5)

    async def _stored(self) -> int:
        """Return the number of stored series."""
        headers = {"Authorization": f"Bearer {self.token}"}
        found, query = 0, {"limit": "1000"}
        while True:
            async with self._http.get("/series", params=query, headers=headers) as answer:
                body_json = await answer.json()
            found += len(body_json["items"])
            if "nextCursor" not in body_json:
                return found
            query["cursor"] = body_json["nextCursor"]
