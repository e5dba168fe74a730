"""A minimal device: sends until it gets `accepted`, and records what was acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import socketio

Identity = tuple[str, str, int, int]


class Device:
    """One connection and what was acknowledged over it."""

    def __init__(self, client: Any, device: str) -> None:
        self.client = client
        self.device = device
        self.acknowledged: set[Identity] = set()

    async def send(self, readings: list[dict[str, Any]]) -> dict[str, Any]:
        """Send once, and record what was accepted."""
        answer: dict[str, Any] = await self.client.call("readings", readings, timeout=10)
        if answer["status"] == "accepted":
            assert answer["accepted"] == len(readings)
            self.acknowledged |= {(self.device, r["sensorType"], r["ts"], r["seq"]) for r in readings}
        return answer

    async def send_until_accepted(self, readings: list[dict[str, Any]]) -> None:
        """Send again after every `retry`, as the protocol asks."""
        while (answer := await self.send(readings))["status"] == "retry":
            await asyncio.sleep(answer["retryAfterMs"] / 1000)
        assert answer["status"] == "accepted", answer


def readings(start: int, count: int, sensor_type: str = "temperature") -> list[dict[str, Any]]:
    """Return readings that differ in time and value."""
    return [
        {"sensorType": sensor_type, "ts": 1_700_000_000_000 + number, "seq": number % 3, "value": number / 4}
        for number in range(start, start + count)
    ]


@asynccontextmanager
async def connected(url: str, token: str, device: str, *, receipts: bool = False) -> AsyncIterator[Device]:
    """Connect with a token."""
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(url, auth={"token": token, "receipts": receipts}, transports=["websocket"])
    try:
        yield Device(client, device)
    finally:
        await client.disconnect()


async def registered_device(auth_url: str, email: str = "ada@example.com") -> tuple[str, str, str]:
    """Sign up, log in, register a device; return owner, device and the device's token."""
    async with aiohttp.ClientSession(auth_url, raise_for_status=True) as session:
        person = {"name": "Ada", "email": email, "password": "correct horse battery"}
        async with session.post("/user/signup", json=person) as response:
            owner = (await response.json())["id"]
        async with session.post("/user/login", json={key: person[key] for key in ("email", "password")}) as response:
            bearer = {"Authorization": f"Bearer {(await response.json())['accessToken']}"}
        asked = {"sensorType": "temperature", "location": "roof", "name": "d1"}
        async with session.post("/devices", json=asked, headers=bearer) as response:
            device = (await response.json())["id"]
        async with session.post(f"/devices/{device}/token", headers=bearer) as response:
            return owner, device, (await response.json())["token"]


async def logged_in(session: aiohttp.ClientSession, email: str) -> str:
    """Log in a user who was registered as above; return the access token."""
    person = {"email": email, "password": "correct horse battery"}
    async with session.post("/user/login", json=person) as response:
        return str((await response.json())["accessToken"])


async def new_token(auth_url: str, email: str, device: str) -> str:
    """Log in, and return a new token of a device."""
    async with aiohttp.ClientSession(auth_url, raise_for_status=True) as session:
        bearer = {"Authorization": f"Bearer {await logged_in(session, email)}"}
        async with session.post(f"/devices/{device}/token", headers=bearer) as response:
            return str((await response.json())["token"])
