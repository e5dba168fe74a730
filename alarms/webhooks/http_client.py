"""Calls webhooks: to public addresses only, without redirects and proxies, within 10 s and 64 KiB."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from alarms.webhooks.addresses import AddressGuard
from alarms.webhooks.resolver import AddressRefusedError, GuardedResolver, require_permitted
from alarms.webhooks.retries import asked_pause_s
from runtime.version import VERSION

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
_HEADERS = {"Content-Type": "application/json", "User-Agent": f"Tidegate/{VERSION}"}


class CallFailedError(Exception):
    """A webhook was not delivered. The text is short and fixed, and tells nothing of what was answered."""

    def __init__(self, status: str, *, is_gone: bool = False, retry_after_s: float = 0.0) -> None:
        super().__init__(status)
        self.status = status
        # The receiver said so, with 410: it wants no more.
        self.is_gone = is_gone
        # It asked to be left alone for so long.
        self.retry_after_s = retry_after_s


class WebhookClient:
    """Calls webhooks."""

    def __init__(self, session: aiohttp.ClientSession, guard: AddressGuard, *, timeout_s: float = TIMEOUT_S) -> None:
        self._session = session
        self._guard = guard
        self._timeout_s = timeout_s

    @classmethod
    @asynccontextmanager
    async def opened(cls, guard: AddressGuard, *, timeout_s: float = TIMEOUT_S) -> AsyncIterator["WebhookClient"]:
        """Open a client; no cookies, no names remembered, no connection used twice: each is checked anew."""
        connector = aiohttp.TCPConnector(
            resolver=GuardedResolver(guard), use_dns_cache=False, force_close=True, limit=0
        )
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False
        ) as session:
            yield cls(session, guard, timeout_s=timeout_s)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Send a body; return the status of an answer that is 2xx, CallFailedError for everything else."""
        try:
            require_permitted(urlsplit(url).hostname or "", self._guard)
            async with asyncio.timeout(self._timeout_s):
                async with self._session.post(
                    url, headers={**_HEADERS, **headers}, data=body, allow_redirects=False
                ) as response:
                    await _read(response)
        except AddressRefusedError as error:
            raise CallFailedError("address_refused") from error
        except TimeoutError as error:
            raise CallFailedError("timeout") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise CallFailedError("certificate") from error
        except aiohttp.ClientConnectorDNSError as error:
            refused = isinstance(error.os_error, AddressRefusedError)
            raise CallFailedError("address_refused" if refused else "name_not_found") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallFailedError("connection") from error
        if 200 <= response.status < 300:
            return response.status
        asked_s = asked_pause_s(response.headers.get("Retry-After"), time.time())
        raise CallFailedError(str(response.status), is_gone=response.status == 410, retry_after_s=asked_s)


async def _read(response: aiohttp.ClientResponse) -> None:
    """Read the answer, up to its bound: whoever sends more is cut off, and has been told all the same."""
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            response.close()
            return
