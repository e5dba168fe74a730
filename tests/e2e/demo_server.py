"""A onebox and its demo user, for tests of the dashboard and the HTTP calls it makes."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.onebox_process import READY_WITHIN_S, demo_credentials, running_onebox

STORED_WITHIN_S = 60.0


class DemoServer:
    """A onebox and its demo user."""

    def __init__(self, url: str, data: Path) -> None:
        self.url = url
        self.data = data
        self.person = demo_credentials(data)

    @classmethod
    @contextmanager
    def opened(cls, data: Path, *arguments: str) -> Iterator["DemoServer"]:
        """Start a onebox and yield it once its demo user can log in."""
        with asyncio.Runner() as runner:
            context = running_onebox(*arguments, data=data)
            _, url = runner.run(context.__aenter__())
            try:
                runner.run(wait_for_demo_user(url, data))
                yield cls(url, data)
            finally:
                runner.run(context.__aexit__(None, None, None))

    def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Call the HTTP API as the demo user."""
        return asyncio.run(self._call(method, path, **options))

    async def _call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with aiohttp.ClientSession(self.url) as session:
            async with session.post("/user/login", json=self.person) as answer:
                bearer = {"Authorization": f"Bearer {(await answer.json())['accessToken']}"}
            headers = bearer | options.pop("headers", {})
            async with session.request(method, path, headers=headers, **options) as answer:
                return answer.status, await answer.json() if answer.status != 204 else None

    def send(self, device: str, readings: list[dict[str, Any]]) -> None:
        """Send readings of a device, and wait until the last of each of its sensors is stored."""
        for start in range(0, len(readings), 1000):
            part = readings[start : start + 1000]
            status, answer = self.call("POST", "/readings", json=part, headers={"X-Device-Id": device})
            assert (status, answer) == (202, {"accepted": len(part), "rejected": []})
        for last in {one["sensorType"]: one for one in readings}.values():
            self._stored(device, last)

    def _stored(self, device: str, reading: dict[str, Any]) -> None:
        query = {"device": device, "sensorType": reading["sensorType"], "from": str(reading["ts"]), "limit": "1000"}
        deadline = time.monotonic() + STORED_WITHIN_S
        while True:
            _, answer = self.call("GET", "/readings", params=query)
            if any(item["value"] == reading["value"] for item in answer.get("items", ())):
                return
            assert time.monotonic() < deadline, "the readings are not stored"


async def wait_for_demo_user(url: str, data: Path) -> None:
    """Wait until the demo user can log in, which is when the simulated fleet has registered."""
    async with aiohttp.ClientSession(url) as session, asyncio.timeout(READY_WITHIN_S):
        while True:
            async with session.post("/user/login", json=demo_credentials(data)) as answer:
                if answer.status == 200:
                    return
            await asyncio.sleep(0.1)
