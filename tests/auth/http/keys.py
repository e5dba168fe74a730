"""A user's API keys over HTTP."""

from typing import Any

from tests.auth.service import Client

ALL = ["readings:read", "readings:write", "devices:manage", "alarms:manage"]


async def new_key(client: Client, token: str, **changes: Any) -> dict[str, Any]:
    """Make a key, by default with all scopes."""
    answer = await client.post("/keys", {"name": "export", "scope": ALL} | changes, token=token)
    assert answer.status == 201, answer.raw
    made: dict[str, Any] = answer.json
    return made


async def listed(client: Client, token: str) -> list[dict[str, Any]]:
    """Return the items of `GET /keys`."""
    items: list[dict[str, Any]] = (await client.get("/keys", token=token)).json["items"]
    return items
