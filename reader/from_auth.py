"""AUTH → READER: which devices an owner has registered, how they are named and where they are.

Asked with the caller's own token, page by page: who may not list devices learns nothing here either.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec

from reader.history.places import Places

# Auth's largest page, and how many pages are asked for: more devices than that are known by their ids alone.
PAGE = 1000
MAX_PAGES = 100
# Lists that are asked for together, one of each owner: a page takes auth some 20 ms.
LISTS_AT_ONCE = 4
PAGE_TIMEOUT_S = 3.0
# However many pages there are, and however long the others' lists take.
LIST_TIMEOUT_S = 30.0

FetchDevices = Callable[[str, str, str | None], Awaitable[bytes]]
"""A page of `GET /devices` for (owner, token, cursor), as JSON; OSError, aiohttp's ClientError or TimeoutError."""


class DevicesUnknown(Exception):
    """The devices of an owner cannot be told now; `refused` where auth has answered, and it was no."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class RegisteredDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A device as its owner has registered it."""

    id: str
    name: str
    sensor_type: str
    location: str | dict[str, Any]


class Registered(NamedTuple):
    """The devices of an owner, the oldest first; the same ones have the same digest."""

    devices: list[RegisteredDevice]
    digest: bytes


class _Page(msgspec.Struct, rename="camel"):
    items: list[RegisteredDevice]
    next_cursor: str | None = None


_decoder = msgspec.json.Decoder(_Page)


def fetch_devices_over_http(session: aiohttp.ClientSession, auth_url: str) -> FetchDevices:
    """Ask the auth service at `auth_url`."""
    url = auth_url.rstrip("/") + "/devices"

    async def fetch(_: str, token: str, cursor: str | None) -> bytes:
        params = {"limit": str(PAGE)} | ({} if cursor is None else {"cursor": cursor})
        headers = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=PAGE_TIMEOUT_S)
        async with session.get(url, params=params, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    return fetch


class FromAuth:
    """Asks for the devices of every owner."""

    def __init__(self, fetch: FetchDevices) -> None:
        self._fetch = fetch
        self._places = Places(LISTS_AT_ONCE, 1)

    async def devices(self, owner: str, token: str) -> Registered:
        """Return the devices of the owner whom the token names; DevicesUnknown."""
        found: list[RegisteredDevice] = []
        digest = hashlib.blake2b(digest_size=16)
        cursor: str | None = None
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S), self._places.one(owner):
                for _ in range(MAX_PAGES):
                    body = await self._fetch(owner, token, cursor)
                    digest.update(body)
                    page = _decoder.decode(body)
                    found += page.items
                    cursor = page.next_cursor
                    if cursor is None:
                        break
        except aiohttp.ClientResponseError as error:
            raise DevicesUnknown(f"auth answered {error.status}", refused=error.status in (401, 403)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise DevicesUnknown(f"{type(error).__name__}: {error}") from error
        return Registered(found, digest.digest())
