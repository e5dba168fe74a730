"""One Socket.IO connection, from its CONNECT to its loss; it does not come back by itself.

On python-engineio, the transport of python-socketio, whose client would encode each reading a second time, makes no
difference between an acknowledgement and none, and hides the two temporary refusals: 503 in place of the upgrade, and
close code 1013 (docs/protocol/socketio.md of Tidegate). A packet is a digit, for an event or an acknowledgement its
number, and JSON: https://socket.io/docs/v4/socket-io-protocol/.
"""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import aiohttp
import engineio

from device.errors import DeviceRefused, NotNow, retry_after_s
from device.transport import OnAck, OnEvent

# The gateway gives a connect 45 s; a device that waits longer than this tries another gateway.
CONNECT_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 3.0
TRY_AGAIN_LATER = 1013
TEMPORARY = frozenset({"unavailable", "rate_limited", "busy"})
MESSAGE = "4"  # of Engine.IO, around each packet of Socket.IO
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = "01234"

_log = logging.getLogger("device.engineio")
_log.setLevel(logging.CRITICAL)  # it logs lost connections as errors; here they are normal

_dumps = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class _Session:
    """The HTTP session as Engine.IO sees it; keeps the refusal and the WebSocket, which the library does not expose."""

    closed = False

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.retry_after_s = 0.0
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    async def ws_connect(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        try:
            self.socket = await self._http.ws_connect(url, **options)
        except aiohttp.WSServerHandshakeError as error:
            self.retry_after_s = retry_after_s(error.headers.get("Retry-After") if error.headers is not None else None)
            raise
        return self.socket


class SocketIoConnection:
    """A connection; `lost` is set at its end. `on_ack` gets each acknowledgement of `emit`, parsed, `on_event` events.

    What `on_event` returns is the acknowledgement of an event that asks for one.
    """

    def __init__(self, http: aiohttp.ClientSession, on_ack: OnAck, on_event: OnEvent) -> None:
        self.lost = asyncio.Event()
        self._on_ack = on_ack
        self._on_event = on_event
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._session = _Session(http)
        self._engine: Any = engineio.AsyncClient(
            logger=_log, handle_sigint=False, http_session=self._session, request_timeout=CLOSE_TIMEOUT_S
        )
        self._engine.on("message", self._on_message)
        self._engine.on("disconnect", self._on_disconnect)

    async def open(self, url: str, auth: dict[str, Any]) -> None:
        """Connect; raises NotNow, or DeviceRefused. Close it in any case."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._engine.connect(url, transports=["websocket"], engineio_path="socket.io")
                await self._engine.send(CONNECT + _dumps(auth))
                await self._connected
        except (DeviceRefused, asyncio.CancelledError):
            raise
        except Exception as error:  # the library raises whatever it stumbles over in half-open connections
            reason = "temporarily refused" if self._close_code() == TRY_AGAIN_LATER else repr(error)
            raise NotNow(f"no connection to {url}: {reason}", self._session.retry_after_s) from error

    def next_number(self) -> int:
        """Return the number that the acknowledgement of the next event will have."""
        self._numbers += 1
        return self._numbers

    async def emit(self, number: int, event: str, payload: str) -> None:
        """Send an event whose payload is JSON, past the queue of the library and the task that empties it.

        Returns when the operating system takes it; a connection that does not is lost.
        """
        socket = self._session.socket
        try:
            if socket is not None:
                await socket.send_str(f'{MESSAGE}{EVENT}{number}["{event}",{payload}]')
        except (aiohttp.ClientError, OSError) as error:
            _log.info("An event was not sent: %r", error)
            self._on_disconnect()

    async def request(self, event: str, payload: dict[str, Any], timeout_s: float) -> Any:
        """Send an event and return its acknowledgement; raises TimeoutError, or NotNow if the connection is lost."""
        if self.lost.is_set():
            raise NotNow("the connection is lost")
        number = self.next_number()
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self.emit(number, event, _dumps(payload))
                return await answer
        finally:
            self._answers.pop(number, None)

    async def close(self) -> None:
        """Close it within bounded time, whatever its state."""
        self._on_disconnect()
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._engine.disconnect()
        loops = [task for task in (self._engine.read_loop_task, self._engine.write_loop_task) if task]
        for task in loops:
            task.cancel()
        if loops:
            await asyncio.wait(loops, timeout=CLOSE_TIMEOUT_S)
        socket = self._session.socket
        if socket is not None and not socket.closed:
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await socket.close()
        with suppress(ValueError):  # the library forgets this where a task was cancelled
            engineio.base_client.connected_clients.remove(self._engine)

    def _close_code(self) -> int | None:
        return None if self._session.socket is None else self._session.socket.close_code

    async def _on_message(self, data: object) -> None:
        """Take one Socket.IO packet; one that cannot be read is left out, as it promises nothing."""
        if not isinstance(data, str) or not data:
            return
        kind, rest = data[0], data[1:]
        start = next((at for at, character in enumerate(rest) if not character.isdecimal()), len(rest))
        number = int(rest[:start]) if start else None
        try:
            content = json.loads(rest[start:]) if rest[start:] else None
        except ValueError:
            return
        if kind == ACK and number is not None:
            self._acknowledged(number, content[0] if isinstance(content, list) and content else None)
        elif kind == EVENT and isinstance(content, list) and content and isinstance(content[0], str):
            await self._take_event(number, content)
        elif kind == CONNECT and not self._connected.done():
            self._connected.set_result(None)
        elif kind in (CONNECT_ERROR, DISCONNECT):
            self._refused(kind, content)

    def _acknowledged(self, number: int, ack: Any) -> None:
        answer = self._answers.get(number)
        if answer is None:
            self._on_ack(number, ack)
        elif not answer.done():
            answer.set_result(ack)

    async def _take_event(self, number: int | None, content: list[Any]) -> None:
        result = await self._on_event(content[0], content[1] if len(content) > 1 else None)
        if number is not None:
            await self._engine.send(f"{ACK}{number}[{_dumps(result)}]")

    def _refused(self, kind: str, content: Any) -> None:
        data = content.get("data") if isinstance(content, dict) else None
        code = data.get("code") if isinstance(data, dict) else None
        if self._connected.done():
            self._on_disconnect()
        elif kind == CONNECT_ERROR and isinstance(code, str) and code not in TEMPORARY:
            self._connected.set_exception(DeviceRefused(code, str(content.get("message", ""))))
        else:
            self._connected.set_exception(NotNow(f"refused for now: {code}"))

    def _on_disconnect(self, *_: object) -> None:
        self.lost.set()
        if not self._connected.done():
            self._connected.set_exception(NotNow("the connection was closed"))
            self._connected.exception()  # seen here, if nobody awaits it
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NotNow("the connection is lost"))
