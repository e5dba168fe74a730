"""At the end of a run: what the reader answers, both ways round, is what is stored."""

import asyncio
import json

import aiohttp

from runtime.times import parse_rfc3339
from tests.faults.fleet import Fleet, Identity
from tests.faults.stack import Service
from tests.faults.verdict import Stores, stored_of
from tests.integration.device import logged_in


async def compared_with_answers(auth: Service, reader: Service, stores: Stores, fleet: Fleet) -> str:
    """Return how many readings GET answers; AssertionError if they are not those that are stored."""
    count = 0
    async with aiohttp.ClientSession(auth.url) as accounts, aiohttp.ClientSession(reader.url) as history:
        for sender in fleet.senders:
            token = await logged_in(accounts, f"device-{sender.number}@example.com")
            history.headers["Authorization"] = f"Bearer {token}"
            for sensor_type in await _sensor_types(history, sender.device):
                stored = await asyncio.to_thread(stored_of, stores, sensor_type)
                mine = [identity for identity, _ in stored if identity[:2] == (sender.owner, sender.device)]
                for order in ("asc", "desc"):
                    found = await _answered(history, sender.owner, sender.device, sensor_type, order)
                    assert found == (mine if order == "asc" else mine[::-1]), f"{sensor_type} is answered otherwise"
                count += len(mine)
    return f"GET answers {count} stored readings, each once, both ways"


async def _sensor_types(reader: aiohttp.ClientSession, device: str) -> list[str]:
    found, query = [], {"device": device, "limit": "1000"}
    while True:
        async with reader.get("/series", params=query) as answer:
            page = await answer.json()
        found += [one["sensorType"] for one in page["items"]]
        if "nextCursor" not in page:
            return found
        query["cursor"] = page["nextCursor"]


async def _answered(
    reader: aiohttp.ClientSession, owner: str, device: str, sensor_type: str, order: str
) -> list[Identity]:
    query = {"device": device, "sensorType": sensor_type, "order": order, "format": "ndjson"}
    async with reader.get("/readings", params=query) as answer:
        lines = (await answer.read()).splitlines()
    return [(owner, device, sensor_type, parse_rfc3339(one["ts"]), one["seq"]) for one in map(json.loads, lines)]
