"""The walk through a running system, all of it through its proxy: from sign-up to the deletion of the account.

Devices of both libraries and a client over HTTP send readings; what was acknowledged is read back, live and from
history, before and after it was compacted, each reading once. A command reaches a device through another gateway.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pymongo

from testing.waiting import eventually
from tests.device.javascript_process import javascript_device
from tests.device.python_process import sensor
from tests.matrix.stack import Stack

PERSON = {"name": "Ada", "email": "ada@example.com", "password": "correct horse battery"}
SENSOR = "temperature"
WITHIN_S = 60.0
PYTHON_READINGS, JAVASCRIPT_READINGS, HTTP_READINGS = 200, 500, 1000
# Where MongoDB keeps readings: one by one, in pieces, in blocks.
PLACES = ("readings", "readings.pieces", "readings.columns")
Stored = Counter[tuple[str, int]]


class Client:
    """A person over HTTP."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._bearer: dict[str, str] = {}

    async def ask(self, method: str, path: str, status: int, body: Any = None, **query: str) -> Any:
        """Send a request and return the decoded response; AssertionError if its status is another."""
        async with self._http.request(method, path, json=body, params=query, headers=self._bearer) as answer:
            text = await answer.text()
            assert answer.status == status, f"{method} {path}: {answer.status} {text[:300]}"
            return json.loads(text) if text else None

    async def log_in(self) -> None:
        body = {name: PERSON[name] for name in ("email", "password")}
        token = (await self.ask("POST", "/user/login", 200, body))["accessToken"]
        self._bearer = {"Authorization": f"Bearer {token}"}

    async def register(self) -> tuple[str, str]:
        """Register a device; return its id and token."""
        asked = {"sensorType": SENSOR, "location": "roof"}
        device = (await self.ask("POST", "/devices", 201, asked))["id"]
        return device, (await self.ask("POST", f"/devices/{device}/token", 201))["token"]

    async def history(self) -> Stored:
        """Return how often each value of each device is stored, by an export of everything."""
        query = {"format": "ndjson", "end": "true", "from": "2000-01-01T00:00:00Z"}
        async with self._http.get("/readings", params=query, headers=self._bearer) as answer:
            assert answer.status == 200, await answer.text()
            *lines, end = (await answer.text()).splitlines()
        assert json.loads(end) == {"end": True, "count": len(lines)}
        return Counter((one["device"], one["value"]) for one in map(json.loads, lines))

    @asynccontextmanager
    async def live(self) -> AsyncIterator[set[str]]:
        """Yield the devices of which the live feed has shown a reading so far."""
        shown: set[str] = set()
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._http.get("/live", headers=self._bearer, timeout=timeout) as feed:
            assert feed.status == 200, await feed.text()
            following = asyncio.create_task(_follow(feed, shown))
            try:
                yield shown
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following


async def _follow(feed: aiohttp.ClientResponse, shown: set[str]) -> None:
    event = b""
    async for line in feed.content:
        name, _, value = line.strip().partition(b":")
        if name == b"event":
            event = value.strip()
        elif name == b"data" and event == b"reading":
            shown.add(json.loads(value)["device"])


async def walk(stack: Stack, folder: Path) -> None:
    """AssertionError or TimeoutError if anything is not as it must be."""
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    async with aiohttp.ClientSession(stack.url, timeout=timeout) as http:
        client = Client(http)
        owner = (await client.ask("POST", "/user/signup", 201, PERSON))["id"]
        await client.log_in()
        (python, python_token), (javascript, javascript_token) = [await client.register() for _ in range(2)]
        http_device, http_token = await client.register()
        async with client.live() as shown:
            sent = await asyncio.gather(
                _from_python(stack, folder, python, python_token),
                _from_javascript(stack, client, javascript, javascript_token),
                _over_http(http, http_device, http_token),
            )
            expected = sum(sent, Stored())

            async def all_stored() -> bool:
                return (await client.history()) == expected

            async def all_shown() -> bool:
                return shown == {python, javascript, http_device}

            await eventually(all_stored, "everything acknowledged is stored, once, and nothing else", WITHIN_S)
            await eventually(all_shown, "the live feed has shown every device", WITHIN_S)
        await stack.command("persister", "compact", "--all", READINGS_URL=stack.mongodb.url_of("persister"))
        assert await client.history() == expected, "compacted readings are others than the ones before"
        await _speaks_http_2(stack)
        await client.ask("DELETE", "/user/me", 204)
        await _is_erased(stack, owner)
    await _is_drained(stack)
    for service in reversed(stack.services):
        assert await service.stop() == 0, f"{service.name} exits with {service.process.returncode}"


async def _from_python(stack: Stack, folder: Path, device: str, token: str) -> Stored:
    settings = {"TOKEN": token, "RATE": "200", "RECEIPTS": "1"}
    async with sensor(stack.url, folder / "readings.db", python=stack.python, **settings) as running:
        await running.until("sent", PYTHON_READINGS, WITHIN_S)
        await running.finish(WITHIN_S)
    sent, rejected = set(running.numbers("sent")), set(running.numbers("rejected"))
    assert rejected == {number for number in sent if number % 10 == 0}, "others than the wrong readings are rejected"
    assert running.numbers("flushed") == [0], "the Python device has not heard that all is stored"
    return Counter((device, number) for number in sent - rejected)


async def _from_javascript(stack: Stack, client: Client, device: str, token: str) -> Stored:
    async with javascript_device(stack.url, token, node=stack.node, sensor_type=SENSOR, receipts=True) as running:
        await running.until("ready", within_s=WITHIN_S)
        await running.call("send", count=JAVASCRIPT_READINGS)
        await running.call("flush", ms=int(WITHIN_S * 1000))
        await running.call("commands")
        command = {"name": "calibrate", "payload": {"offset": 0.5}}
        done = await client.ask("POST", f"/devices/{device}/commands", 200, command)
        assert (done["status"], done["result"]) == ("done", command), done
        assert not running.told, f"readings were rejected: {running.lines[-5:]}"
        await running.call("close")
        assert await running.exit_code() == 0
    return Counter((device, value) for value in running.kept)


async def _over_http(http: aiohttp.ClientSession, device: str, token: str) -> Stored:
    first = int(time.time() * 1000) - HTTP_READINGS
    readings = [{"sensorType": SENSOR, "ts": first + number, "value": number} for number in range(HTTP_READINGS)]
    for start in range(0, HTTP_READINGS, 100):
        body, headers = readings[start : start + 100], {"Authorization": f"Bearer {token}"}
        async with http.post("/readings", json=body, headers=headers) as answer:
            assert (answer.status, (await answer.json())["accepted"]) == (202, len(body)), await answer.text()
    return Counter((device, number) for number in range(HTTP_READINGS))


async def _speaks_http_2(stack: Stack) -> None:
    """A request over TLS."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--http2", "--cacert", str(stack.certificate), "-o", "/dev/null"),
        *("-w", "%{http_version} %{http_code}", f"{stack.tls_url}/.well-known/jwks.json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert output.decode() == "2 200", f"over TLS: {output.decode()}"


async def _is_erased(stack: Stack, owner: str) -> None:
    """Nothing is left where readings are kept; the account was the only one."""
    with pymongo.MongoClient[dict[str, Any]](stack.mongodb.url_of("root")) as mongodb:
        database = mongodb["tidegate"]

        async def erased() -> bool:
            kept = [await asyncio.to_thread(database[name].count_documents, {}) for name in PLACES]
            series = await asyncio.to_thread(database["series"].count_documents, {"_id.owner": owner})
            return not any(kept) and not series

        await eventually(erased, "the readings of a deleted account are erased", WITHIN_S)


async def _is_drained(stack: Stack) -> None:
    async def drained() -> bool:
        output = await asyncio.to_thread(stack.rabbitmq.rabbitmqctl, "list_queues", "name", "messages")
        queues = dict(line.split() for line in output.splitlines() if line.startswith("tidegate."))
        assert queues.get("tidegate.readings.dead") == "0", f"there are dead letters: {queues}"
        return set(queues.values()) == {"0"}

    await eventually(drained, "all queues are empty", WITHIN_S)
