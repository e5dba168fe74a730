"""AUTH → READER: the devices an owner has registered, with names and locations.

Fetched page by page with the caller's own token: what it does not cover is neither listed by auth nor kept here.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiohttp
import msgspec

from runtime.fair_semaphore import FairSemaphore

# Auth's largest page, and the most pages fetched: further devices are shown by id alone.
PAGE_SIZE = 1000
MAX_PAGES = 100
# Lists fetched at the same time, one per owner: a page takes auth some 20 ms.
MAX_CONCURRENT_LISTS = 4
PAGE_TIMEOUT_S = 3.0
# For all pages, including the wait for other owners' lists.
LIST_TIMEOUT_S = 30.0

FetchDevices = Callable[[str, str, str | None], Awaitable[bytes]]
"""A page of `GET /devices` for (owner, token, cursor), as JSON; OSError, aiohttp's ClientError or TimeoutError."""


class DevicesUnavailable(Exception):
    """The devices of an owner are unavailable; `refused` if auth rejected the token."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class RegisteredDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A device as registered by its owner."""

    id: str
    name: str
    sensor_type: str
    location: str | dict[str, Any]


class RegisteredDevices(NamedTuple):
    """The devices of an owner, oldest first; equal lists have equal digests."""

    devices: list[RegisteredDevice]
    digest: bytes


class _Page(msgspec.Struct, rename="camel"):
    items: list[RegisteredDevice]
    next_cursor: str | None = None


_decoder = msgspec.json.Decoder(_Page)


def fetch_devices_over_http(session: aiohttp.ClientSession, auth_url: str) -> FetchDevices:
    """Return a function that fetches pages from the auth service at `auth_url`."""
    url = auth_url.rstrip("/") + "/devices"

    async def fetch(_: str, token: str, cursor: str | None) -> bytes:
        params = {"limit": str(PAGE_SIZE)} | ({} if cursor is None else {"cursor": cursor})
        headers = {"Authorization": f"Bearer {token}"}
        timeout = aiohttp.ClientTimeout(total=PAGE_TIMEOUT_S)
        async with session.get(url, params=params, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            return await response.read()

    return fetch


class FromAuth:
    """Fetches the devices of owners."""

    def __init__(self, fetch: FetchDevices) -> None:
        self._fetch = fetch
        self._slots = FairSemaphore(MAX_CONCURRENT_LISTS, 1)

    async def devices(self, owner: str, within: tuple[str, ...] | None, token: str) -> RegisteredDevices:
        """Return the devices of the token's owner, only those `within` if the token is limited; DevicesUnavailable."""
        found: list[RegisteredDevice] = []
        digest = hashlib.blake2b(digest_size=16)
        cursor: str | None = None
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S), self._slots.slot(owner):
                for _ in range(MAX_PAGES):
                    body = await self._fetch(owner, token, cursor)
                    digest.update(body)
                    page = _decoder.decode(body)
                    found += page.items if within is None else [item for item in page.items if item.id in within]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
        except aiohttp.ClientResponseError as error:
            raise DevicesUnavailable(f"auth answered {error.status}", refused=error.status in (401, 403)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
            raise DevicesUnavailable(f"{type(error).__name__}: {error}") from error
        return RegisteredDevices(found, digest.digest())
