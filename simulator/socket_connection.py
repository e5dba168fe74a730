"""One Socket.IO connection of a device, from its CONNECT to its loss; it does not reconnect.

Events and acknowledgements are the hot path: events are encoded once by msgspec and queued as text; acknowledgements
are decoded by a typed decoder before python-socketio sees them. Everything else (CONNECT, pings, server events) is left
to the library. The JSON class is set on a packet class of its own, because the library's `json` argument would also
change it for a server in the same process.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import engineio
import msgspec
import socketio

from simulator.commands import failed, refuse
from simulator.errors import DeviceRefusedError, UnavailableError

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 3.0
# The close code of a temporary refusal after authentication.
TRY_AGAIN_LATER = 1013
TEMPORARY_CODES = frozenset({"unavailable", "rate_limited", "busy"})

_log = logging.getLogger("simulator.socketio")
_log.setLevel(logging.CRITICAL)  # the library logs lost connections as errors; here they are normal


class Ack(msgspec.Struct, rename="camel"):
    """An acknowledgement of the gateway, in any of its forms."""

    status: str = ""
    code: str = ""
    detail: str = ""
    retry_after_ms: float = 0
    rejected: list["RejectedItem"] = []


class RejectedItem(msgspec.Struct):
    """Why one reading of a batch was rejected."""

    index: int
    code: str = ""
    detail: str = ""


OnAck = Callable[[int, Ack], None]
OnCommand = Callable[[str, object], dict[str, Any]]
"""Executes a command, given its name and payload, and returns its acknowledgement."""

_ack_decoder = msgspec.json.Decoder(list[Ack])


class _Json:
    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        try:
            return msgspec.json.decode(text)
        except msgspec.MsgspecError as error:  # the library expects the standard library's exception
            raise ValueError(str(error)) from error

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return msgspec.json.encode(value).decode()


class _Packet(socketio.packet.Packet):  # type: ignore[misc]
    json = _Json


class _EngineClient(engineio.AsyncClient):  # type: ignore[misc]
    on_acknowledgement: Callable[[str], None]

    async def _receive_packet(self, pkt: Any) -> None:
        # Without the task that the library starts per message.
        if pkt.packet_type == engineio.packet.MESSAGE and isinstance(pkt.data, str) and pkt.data.startswith("3"):
            self.on_acknowledgement(pkt.data)
        else:
            await super()._receive_packet(pkt)


class _SocketClient(socketio.AsyncClient):  # type: ignore[misc]
    on_lost: Callable[[], None]

    def _engineio_client_class(self) -> type[_EngineClient]:
        return _EngineClient

    async def _handle_eio_disconnect(self, reason: str) -> None:
        self.on_lost()
        if not self.connected:  # closed before CONNECT was answered: `connect` would keep waiting
            self.failed_namespaces.append("/")
            self._connect_event.set()
        await super()._handle_eio_disconnect(reason)


class _SessionAdapter:
    """The shared session as Engine.IO sees it.

    Keeps the WebSocket, which the library loses when it is cancelled, and the reason of a temporary refusal, which the
    library does not expose: 503 in place of an upgrade, or close code 1013.
    """

    closed = False

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._not_upgraded: UnavailableError | None = None
        self.socket: aiohttp.ClientWebSocketResponse | None = None

    async def ws_connect(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        try:
            self.socket = await self._session.ws_connect(url, **options)
        except aiohttp.WSServerHandshakeError as error:
            after = error.headers.get("Retry-After", "") if error.headers is not None else ""
            message = f"temporarily refused: HTTP {error.status}"
            self._not_upgraded = UnavailableError(message, float(after) if after.isdecimal() else 0.0)
            raise
        return self.socket

    @property
    def refusal(self) -> UnavailableError | None:
        """The gateway's temporary refusal, or None."""
        if self.socket is not None and self.socket.close_code == TRY_AGAIN_LATER:
            return UnavailableError(f"temporarily refused: closed with {TRY_AGAIN_LATER}")
        return self._not_upgraded


class SocketConnection:
    """A connection. `changed` is set when it is `lost`, or when the gateway announces that the token expires."""

    def __init__(self, session: aiohttp.ClientSession, on_ack: OnAck, on_command: OnCommand = refuse) -> None:
        self.changed = asyncio.Event()
        self.lost = False
        self.expiring = False
        self.expired = False
        self._on_ack = on_ack
        self._on_command = on_command
        self._next_id = 0
        self._refusal: tuple[Any, ...] = ()
        self._http = _SessionAdapter(session)
        self._sio = _SocketClient(
            reconnection=False,
            serializer=_Packet,
            handle_sigint=False,
            http_session=self._http,
            request_timeout=CLOSE_TIMEOUT_S,
            logger=_log,
            engineio_logger=_log,
        )
        self._sio.on_lost = self._on_lost
        self._eio: Any = self._sio.eio
        self._eio.on_acknowledgement = self._on_acknowledgement
        self._sio.on("connect_error", self._on_refusal)
        self._sio.on("auth_expiring", self._on_expiring)
        self._sio.on("auth_expired", self._on_expired)
        self._sio.on("command", self._answer_command)

    async def open(self, url: str, token: str, device: str | None) -> None:
        """Connect; raises UnavailableError on a temporary failure, DeviceRefusedError on a permanent refusal."""
        auth = {"token": token} if device is None else {"token": token, "device": device}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._sio.connect(url, auth=auth, transports=["websocket"], wait_timeout=CONNECT_TIMEOUT_S)
        except (socketio.exceptions.SocketIOError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            await self.close()
            raise (
                self._refusal_error()
                or self._http.refusal
                or UnavailableError(f"no connection to {url}: {error or type(error).__name__}")
            ) from error
        except BaseException:
            await self.close()
            raise
        if self.lost:
            raise UnavailableError("the connection was lost immediately")

    def emit(self, event: str, payload: bytes) -> int:
        """Queue one event whose payload is encoded JSON; return the id that its acknowledgement will carry."""
        number = self._next_id
        self._next_id += 1
        self._queue(f'2{number}["{event}",{payload.decode()}]')
        return number

    def mark_lost(self) -> None:
        """Treat the connection as lost, whatever the transport's state."""
        self._on_lost()

    def renew(self, token: str) -> None:
        """Offer a fresh token for this session; if it is not taken, the session ends when the old one does."""
        self._queue(f'2["authenticate",{_Json.dumps({"token": token})}]')

    async def close(self) -> None:
        """Close the connection within bounded time, whatever its state."""
        self._on_lost()
        engine = self._eio
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, socketio.exceptions.SocketIOError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._sio.disconnect()
        loops = [task for task in (engine.read_loop_task, engine.write_loop_task) if task and not task.done()]
        for task in loops:
            task.cancel()
        if loops:
            await asyncio.wait(loops, timeout=CLOSE_TIMEOUT_S)
        socket = self._http.socket
        if socket is not None and not socket.closed:
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await socket.close()
        if engine in engineio.base_client.connected_clients:
            engineio.base_client.connected_clients.remove(engine)

    def _queue(self, text: str) -> None:
        if not self.lost:
            self._eio.queue.put_nowait(engineio.packet.Packet(engineio.packet.MESSAGE, data=text))

    def _on_lost(self) -> None:
        self.lost = True
        self.changed.set()

    def _on_refusal(self, *arguments: Any) -> None:
        self._refusal = arguments

    def _on_expiring(self, *_: Any) -> None:
        self.expiring = True
        self.changed.set()

    def _answer_command(self, command: Any = None, *_: object) -> dict[str, Any]:
        if not isinstance(command, dict) or not isinstance(name := command.get("name"), str):
            return failed("this is not a command")
        return self._on_command(name, command.get("payload"))

    def _on_expired(self, *_: Any) -> None:
        self.expired = True

    def _on_acknowledgement(self, text: str) -> None:
        number, bracket, rest = text[1:].partition("[")
        if not (bracket and number.isdecimal()):
            return
        try:
            acks = _ack_decoder.decode("[" + rest)
        except msgspec.MsgspecError:
            acks = []
        # An unreadable acknowledgement settles nothing.
        self._on_ack(int(number), acks[0] if acks else Ack())

    def _refusal_error(self) -> DeviceRefusedError | UnavailableError | None:
        first = self._refusal[0] if self._refusal else None
        data = first.get("data") if isinstance(first, dict) else None
        code = data.get("code") if isinstance(data, dict) else None
        if not isinstance(first, dict) or not isinstance(data, dict) or not isinstance(code, str):
            return None
        if code in TEMPORARY_CODES:
            after = data.get("retryAfterMs")
            return UnavailableError(code, after / 1000 if isinstance(after, int | float) else 0.0)
        return DeviceRefusedError(code, str(first.get("message", "")))
