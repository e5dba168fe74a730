"""Records what the processes of another version write: `python -m tests.golden.record CHECKOUT`.

The files go into a folder that is named after its commit. Gateway, persister, reader and `auth` run from the checkout,
with this environment's packages, on this machine's RabbitMQ and MongoDB. Recorded are the messages in every queue and
fanout with their headers, MongoDB's documents, and the reader's answers about them.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from testing.servers.mongodb import MongoDBServer
from testing.servers.rabbitmq import RabbitMQServer
from testing.waiting import eventually
from tests.integration.device import connected, logged_in, registered_device
from tests.integration.services import SECRET, started

TS = 1_750_000_000_000
EMAIL = "ada@example.com"
VALUES: list[Any] = [
    *(0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, 1.0, -0.0, 1e22, 5e-324, 1.7976931348623157e308),
    *(True, False, "", "closed", "1.0", 'say "x"', "a,b;c", "äöü \u2028 日本"),
]
FIELDS: list[dict[str, Any]] = [
    {},
    {"unit": "°C", "location": 'hall "3", left', "tags": {"b": "1,2", "a": 'x"y'}},
    {"location": {"lat": 48.1, "lon": -11.5}},
    {"location": {"lat": 1, "lon": 2, "alt": 520.25}, "unit": "", "tags": {}},
]
UNDECODABLE = b"\x05\x00\x00\x00"
QUEUES = {"readings": "tidegate.readings", "dead": "tidegate.readings.dead", "ownersDeleted": "tidegate.owners.deleted"}
FANOUTS = {"live": "tidegate.live", "presence": "tidegate.presence"}
Recorded = dict[str, list[dict[str, Any]]]


def sent() -> list[dict[str, Any]]:
    """Return readings with values of every kind and every field, some of which get their time from the gateway."""
    timed = [
        {"sensorType": "mixed", "value": value, "ts": TS + number // 2, "seq": number % 2 * (2**52 - 1), **fields}
        for number, (value, fields) in enumerate((value, fields) for value in VALUES for fields in FIELDS)
    ]
    steady = [{"sensorType": "steady", "value": 20 + number % 7 / 8, "ts": TS + 1000 * number} for number in range(40)]
    return [*timed, *steady, *({"sensorType": "untimed", "value": number} for number in range(5))]


def as_recorded(message: aio_pika.abc.AbstractIncomingMessage) -> dict[str, Any]:
    return {
        "exchange": message.exchange,
        "routingKey": message.routing_key,
        "contentType": message.content_type,
        "headers": {name: _plain(value) for name, value in message.headers.items() if name != "x-delivery-count"},
        "body": b64encode(message.body).decode(),
    }


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


async def taken(channel: aio_pika.abc.AbstractChannel, queue: str, *, least: int = 1) -> list[dict[str, Any]]:
    """Return the messages of a queue, once it has at least that many; they go back to it with the connection."""
    found: list[dict[str, Any]] = []
    source = await channel.get_queue(queue, ensure=False)

    async def enough() -> bool:
        if message := await source.get(fail=False):
            found.append(as_recorded(message))
        return message is None and len(found) >= least

    await eventually(enough, f"{least} messages in {queue}")
    return found


async def record(checkout: Path) -> dict[str, Any]:
    """Return the content of each file."""
    with tempfile.TemporaryDirectory(prefix="tidegate-golden-") as name:
        folder = Path(name)
        python = folder / "python"
        python.write_text(f'#!/bin/sh\ncd "{checkout}" && exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        async with AsyncExitStack() as stack:
            rabbitmq = stack.enter_context(RabbitMQServer(folder / "r"))
            mongodb = stack.enter_context(MongoDBServer(folder / "m"))
            messages, answers = await recorded_messages(stack, str(python), folder, rabbitmq.url, mongodb.url)
            stored = stored_documents(mongodb.url)
    return {"messages": messages, "stored": stored, "answers": answers}


async def recorded_messages(
    stack: AsyncExitStack, python: str, folder: Path, broker_url: str, mongodb_url: str
) -> tuple[Recorded, dict[str, Any]]:
    """Send, record the queues while no persister runs, and then what becomes of it with one."""
    users, broker = {"AUTH_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/users.db"}, {"BROKER_URL": broker_url}
    for arguments in (("auth", "migrate"), ("broker", "declare", "--wait", "60")):
        done = await asyncio.create_subprocess_exec("env", *_assigned(users | broker), python, "-m", *arguments)
        assert await done.wait() == 0
    secrets = users | broker | {"SIGNING_KEY_SECRET": SECRET, "BCRYPT_COST": "4"}
    auth = await stack.enter_async_context(started("auth", python=python, **secrets))
    gateway = await stack.enter_async_context(started("gateway", python=python, AUTH_URL=auth.url, **broker))
    recorded: Recorded = {}
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel()
        for name in FANOUTS.values():
            queue = await channel.declare_queue(name, exclusive=True, auto_delete=True)
            await queue.bind(name, "#")
        owner, device, token = await registered_device(auth.url, EMAIL)
        await _send(gateway.url, device, token)
        async with await aio_pika.connect(broker_url) as other:
            recorded["readings"] = await taken(await other.channel(), QUEUES["readings"], least=3)
        exchange = await channel.get_exchange(QUEUES["readings"], ensure=False)
        await exchange.publish(aio_pika.Message(UNDECODABLE, headers={"x-schema": 1}), "readings.v1")
        store = {"READINGS_URL": mongodb_url, "READINGS_DATABASE": "golden"}
        persister = await stack.enter_async_context(started("persister", python=python, **store, **broker))
        recorded["dead"] = await taken(channel, QUEUES["dead"])
        recorded["live"] = await taken(channel, FANOUTS["live"])
        reader = await stack.enter_async_context(started("reader", python=python, AUTH_URL=auth.url, **store, **broker))
        answers = await _answers(auth.url, reader.url, owner, device)
        assert await persister.stop() == 0
        async with aiohttp.ClientSession(auth.url) as http:
            headers = {"Authorization": f"Bearer {await logged_in(http, EMAIL)}"}
            async with http.delete("/user/me", headers=headers) as response:
                assert response.status == 204
        recorded["ownersDeleted"] = await taken(channel, QUEUES["ownersDeleted"])
        presence = await taken(channel, FANOUTS["presence"], least=3)
        by_type = {json.loads(b64decode(one["body"]))["type"]: one for one in presence}
        recorded["presence"] = list(by_type.values())
    return recorded, answers


def _assigned(settings: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]


async def _send(url: str, device: str, token: str) -> None:
    """Send all readings: the first ones over Socket.IO, in an event each, and the others over HTTP."""
    readings = sent()
    async with connected(url, token, device) as socket:
        for reading in readings[:3]:
            assert (await socket.client.call("reading", reading))["status"] == "accepted"
        await socket.send_until_accepted(readings[3:60])
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(url, headers=headers) as http,
        http.post("/readings", json=readings[60:]) as response,
    ):
        assert (response.status, (await response.json())["rejected"]) == (202, [])


async def _answers(auth_url: str, reader_url: str, owner: str, device: str) -> dict[str, Any]:
    """Return the reader's lines about each series, once all is stored."""
    count, lines = len(sent()), dict[str, list[dict[str, Any]]]()
    async with aiohttp.ClientSession(auth_url) as http:
        headers = {"Authorization": f"Bearer {await logged_in(http, EMAIL)}"}
    async with aiohttp.ClientSession(reader_url, headers=headers) as http:

        async def all_stored() -> bool:
            for sensor_type in ("mixed", "steady", "untimed"):
                query = {"device": device, "sensorType": sensor_type, "format": "ndjson", "from": str(TS)}
                async with http.get("/readings", params=query) as response:
                    text = await response.text() if response.status == 200 else ""
                    lines[sensor_type] = [json.loads(line) for line in text.split("\n") if line]
            return sum(map(len, lines.values())) == count

        await eventually(all_stored, "all is stored")
    return {"owner": owner, "device": device, "series": lines}


def stored_documents(mongodb_url: str) -> dict[str, list[str]]:
    """Return the documents of readings and of series, byte for byte, in the order of their keys."""
    client: MongoClient[RawBSONDocument]
    with pymongo.MongoClient(mongodb_url, document_class=RawBSONDocument) as client:
        return {
            name: [b64encode(one.raw).decode() for one in client["golden"][name].find().sort("_id", 1)]
            for name in ("readings", "series")
        }


def main() -> None:
    checkout = Path(sys.argv[1]).resolve()
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    folder = Path(__file__).parent / commit
    folder.mkdir()
    for file, content in asyncio.run(record(checkout)).items():
        (folder / f"{file}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
