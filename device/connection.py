"""One Socket.IO connection, from its CONNECT to its loss; it does not come back by itself.

Over a WebSocket of aiohttp, because python-socketio's client would encode each reading a second time, makes no
difference between an acknowledgement and none, and hides the two temporary refusals: 503 in place of the upgrade, and
close code 1013 (docs/protocol/socketio.md of Tidegate). A packet is one digit for Engine.IO, within a message another
one for Socket.IO, for an event or an acknowledgement its number, and JSON:
https://socket.io/docs/v4/engine-io-protocol/, https://socket.io/docs/v4/socket-io-protocol/.
"""

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from yarl import URL

from device.commands import encode_result
from device.errors import DeviceRefused, NotNow, retry_after_s
from device.transport import OnAck, OnEvent

# The gateway gives a connect 45 s; a device that waits longer than this tries another gateway.
CONNECT_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 3.0
TRY_AGAIN_LATER = 1013
TEMPORARY = frozenset({"unavailable", "rate_limited", "busy"})
OPEN, CLOSE, PING, PONG, MESSAGE = "01234"
CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = "01234"
_CLOSED = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)

_log = logging.getLogger("device")

_dumps = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class SocketIoConnection:
    """A connection; `lost` is set at its end. `on_ack` gets each acknowledgement of `emit`, parsed, `on_event` events.

    What `on_event` returns is the acknowledgement of an event that asks for one.
    """

    def __init__(self, http: aiohttp.ClientSession, on_ack: OnAck, on_event: OnEvent) -> None:
        self.lost = asyncio.Event()
        self._http = http
        self._on_ack = on_ack
        self._on_event = on_event
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        # Events that are being answered; they go on when the connection is lost.
        self._events: set[asyncio.Task[None]] = set()
        self._received_at = 0.0
        self._silence: asyncio.TimerHandle | None = None

    async def open(self, url: str, auth: dict[str, Any]) -> None:
        """Connect; raises NotNow, or DeviceRefused. Close it in any case."""
        try:
            address = URL(url).with_path("/socket.io/").update_query(transport="websocket", EIO="4")
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._socket = socket = await self._http.ws_connect(address)
                self._expect_pings(await socket.receive())
                self._reading = asyncio.create_task(self._read(socket), name="device's connection")
                await socket.send_str(f"{MESSAGE}{CONNECT}{_dumps(auth)}")
                await self._connected
        except aiohttp.WSServerHandshakeError as error:
            after_s = retry_after_s(error.headers.get("Retry-After") if error.headers is not None else None)
            raise NotNow(f"no connection to {url}: {error!r}", after_s) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, NotNow) as error:
            refused = self._socket is not None and self._socket.close_code == TRY_AGAIN_LATER
            raise NotNow(f"no connection to {url}: {'temporarily refused' if refused else repr(error)}") from error

    def _expect_pings(self, message: aiohttp.WSMessage) -> None:
        """Take the first packet: it says how long the server is silent at most; ValueError if it is another."""
        if message.type is not WSMsgType.TEXT or message.data[:1] != OPEN:
            raise ValueError(f"the server does not speak Engine.IO: {message.type.name}")
        opening = json.loads(message.data[1:])
        try:
            limit_s = (opening["pingInterval"] + opening["pingTimeout"]) / 1000
        except (KeyError, TypeError) as error:
            raise ValueError(f"the server does not say how often it pings: {opening!r}") from error
        self._received_at = self._loop.time()
        self._silence = self._loop.call_later(limit_s, self._check_silence, limit_s)

    def _check_silence(self, limit_s: float) -> None:
        """Give the connection up if nothing came for so long; else look again when that may be."""
        ends_at = self._received_at + limit_s
        if self._loop.time() >= ends_at:
            self._end()
        else:
            self._silence = self._loop.call_at(ends_at, self._check_silence, limit_s)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take packets until the connection ends."""
        try:
            while (message := await socket.receive()).type not in _CLOSED:
                self._received_at = self._loop.time()
                data = message.data
                if message.type is not WSMsgType.TEXT or not data:
                    continue
                if data[0] == MESSAGE:
                    self._take(data[1:])
                elif data[0] == PING:
                    await socket.send_str(PONG + data[1:])
                elif data[0] == CLOSE:
                    return
        except (aiohttp.ClientError, OSError) as error:
            _log.info("The connection was lost: %r", error)
        finally:
            self._end()

    def next_number(self) -> int:
        """Return the number that the acknowledgement of the next event will have."""
        self._numbers += 1
        return self._numbers

    async def emit(self, number: int, event: str, payload: str) -> None:
        """Send an event whose payload is JSON; returns when the operating system takes it."""
        await self._send(f'{EVENT}{number}["{event}",{payload}]')

    async def _send(self, packet: str) -> None:
        """Send a packet of Socket.IO; a connection that does not take it is lost."""
        try:
            if self._socket is not None:
                await self._socket.send_str(MESSAGE + packet)
        except (aiohttp.ClientError, OSError) as error:
            _log.info("A packet was not sent: %r", error)
            self._end()

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
        self._end()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))
        socket = self._socket
        if socket is not None and not socket.closed:
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await socket.send_str(CLOSE)
                    await socket.close()

    def _take(self, packet: str) -> None:
        """Take a packet of Socket.IO; one that cannot be read is left out, as it promises nothing."""
        kind = packet[:1]
        start = 1
        while packet[start : start + 1].isdecimal():
            start += 1
        try:
            number = int(packet[1:start]) if start > 1 else None
            content = json.loads(packet[start:]) if packet[start:] else None
        except ValueError:
            return
        if kind == ACK and number is not None:
            self._acknowledged(number, content[0] if isinstance(content, list) and content else None)
        elif kind == EVENT and isinstance(content, list) and content and isinstance(content[0], str):
            task = asyncio.create_task(self._take_event(number, content), name=f"event {content[0]}")
            self._events.add(task)
            task.add_done_callback(self._events.discard)
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
            await self._send(f"{ACK}{number}[{encode_result(result)}]")

    def _refused(self, kind: str, content: Any) -> None:
        data = content.get("data") if isinstance(content, dict) else None
        code = data.get("code") if isinstance(data, dict) else None
        if self._connected.done():
            self._end()
        elif kind == CONNECT_ERROR and isinstance(code, str) and code not in TEMPORARY:
            self._connected.set_exception(DeviceRefused(code, str(content.get("message", ""))))
        else:
            self._connected.set_exception(NotNow(f"refused for now: {code}"))

    def _end(self) -> None:
        self.lost.set()
        if self._silence is not None:
            self._silence.cancel()
        if not self._connected.done():
            self._connected.set_exception(NotNow("the connection was closed"))
            self._connected.exception()  # seen here, if nobody awaits it
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NotNow("the connection is lost"))
