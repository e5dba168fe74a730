"""The transport over the network: connections, and HTTP calls that renew a token or ask which readings are stored."""

from typing import Any

import aiohttp
from yarl import URL

from device.connection import SocketIoConnection
from device.errors import NotNow, retry_after_s
from device.transport import OnAck, OnEvent

TIMEOUT = aiohttp.ClientTimeout(total=10)


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address, where everything is served; ValueError: it is none of HTTP."""
    wrong = f"url: {url!r} is not an http:// or https:// address"
    try:
        origin = URL(url).origin()
    except (ValueError, TypeError) as error:
        raise ValueError(f"{wrong}: {error}") from error
    if origin.scheme not in ("http", "https"):
        raise ValueError(wrong)
    return str(origin)


class Server:
    """The server at `url`; every call raises NotNow if it does not do what it is asked to."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    def connection(self, on_ack: OnAck, on_event: OnEvent) -> SocketIoConnection:
        """Return a connection that is not open yet."""
        return SocketIoConnection(self._http, on_ack, on_event)

    async def close(self) -> None:
        """Close what HTTP has open."""
        await self._http.close()

    async def renewed(self, device: str, token: str) -> str:
        """Return a new token of this device."""
        answer = await self._post(f"/devices/{device}/token", token)
        renewed = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(renewed, str):
            raise NotNow("the answer has no token")
        return renewed

    async def stored(self, question: dict[str, Any], token: str) -> Any:
        """Return which of these readings are stored; None where the server has no such call."""
        if not token:
            raise NotNow("there is no token yet")
        return await self._post("/readings/stored", token, question, unknown=(404, 405, 501))

    async def _post(self, path: str, token: str, body: Any = None, unknown: tuple[int, ...] = ()) -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with self._http.post(self._url + path, json=body, headers=headers, timeout=TIMEOUT) as answer:
                if answer.status in unknown:
                    return None
                if answer.status not in (200, 201):
                    after_s = retry_after_s(answer.headers.get("Retry-After"))
                    raise NotNow(f"POST {path} was answered with {answer.status}", after_s)
                return await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NotNow(f"POST {path}: {error!r}") from error
