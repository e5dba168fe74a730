"""A stub of auth's `GET /devices`, and helpers to search with it."""

import asyncio
from typing import Any

import msgspec

from runtime.times import rfc3339
from tests.reader.harness import OWNER, SENSOR, TS, ReaderClient, user_token

# The scope of a user's own token.
MANAGE_SCOPE = {"scope": "readings:write readings:read devices:manage alarms:manage"}
PAGE = 3


class AuthStub:
    """The devices of every owner, in pages of three."""

    def __init__(self) -> None:
        self.devices: dict[str, list[dict[str, Any]]] = {}
        # (owner, token, cursor) of each request.
        self.requests: list[tuple[str, str, str | None]] = []
        self.failing: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    def add(
        self, device: str, name: str, sensor_type: str = SENSOR, *, location: Any = "hall 3", owner: str = OWNER
    ) -> None:
        item = {"id": device, "name": name, "sensorType": sensor_type, "location": location, "createdAt": rfc3339(TS)}
        self.devices.setdefault(owner, []).append(item)

    def remove(self, device: str, owner: str = OWNER) -> None:
        self.devices[owner] = [one for one in self.devices[owner] if one["id"] != device]

    async def fetch(self, owner: str, token: str, cursor: str | None) -> bytes:
        self.requests.append((owner, token, cursor))
        await self.go.wait()
        if self.failing is not None:
            raise self.failing
        listed = sorted(self.devices.get(owner, []), key=lambda one: str(one["id"]))
        rest = [one for one in listed if cursor is None or one["id"] > cursor]
        page: dict[str, Any] = {"items": rest[:PAGE]}
        return msgspec.json.encode(page | ({"nextCursor": rest[PAGE - 1]["id"]} if len(rest) > PAGE else {}))


async def search(reader_client: ReaderClient, text: str = "", *, owner: str = OWNER, **query: Any) -> Any:
    answer = await reader_client.fetch(
        "/series/search", {"text": text, **query}, token=user_token(owner, **MANAGE_SCOPE)
    )
    assert answer.status == 200, answer.body
    return answer.json


async def labels(reader_client: ReaderClient, text: str = "", **query: Any) -> list[tuple[str, str]]:
    """Return (name or id, sensorType) of each search result."""
    items = (await search(reader_client, text, **query))["items"]
    return [(item["name"] or item["device"], item["sensorType"]) for item in items]
