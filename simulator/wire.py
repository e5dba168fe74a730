"""One Socket.IO connection of a device, from its CONNECT to its loss; it never comes back by itself.

Events and acknowledgements are the hot path: events are encoded once by msgspec and queued as text, acknowledgements
are decoded typed before python-socketio sees them. Everything else (CONNECT, pings, server events) is the library's.
The JSON class belongs to our own packet class, as the library's `json` argument would change it for a server in the
same process too.
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

from simulator.errors import DeviceRefusedError, UnavailableError

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 3.0
# The close code of a gateway that refuses for now, once it knows whose the connection is.
TRY_AGAIN_LATER = 1013
FOR_NOW = frozenset({"unavailable", "rate_limited", "busy"})

_log = logging.getLogger("simulator.socketio")
_log.setLevel(logging.CRITICAL)  # the library tells lost connections as errors; here they are ordinary


class Answer(msgspec.Struct, rename="camel"):
    """An acknowledgement of the gateway, in any of its forms."""

    status: str = ""
    code: str = ""
    detail: str = ""
    retry_after_ms: float = 0
    rejected: list["RejectedItem"] = []


class RejectedItem(msgspec.Struct):
    """Why one reading of a batch was not taken."""

    index: int
    code: str = ""
    detail: str = ""


OnAnswer = Callable[[int, Answer], None]

_answers = msgspec.json.Decoder(list[Answer])


class _Json:
    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        try:
            return msgspec.json.decode(text)
        except msgspec.MsgspecError as error:  # the library expects what the standard library raises
            raise ValueError(str(error)) from error

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return msgspec.json.encode(value).decode()


class _Packet(socketio.packet.Packet):  # type: ignore[misc]
    json = _Json


class _EngineClient(engineio.AsyncClient):  # type: ignore[misc]
    on_acknowledgement: Callable[[str], None]

    async def _receive_packet(self, pkt: Any) -> None:
        # Without the task that the library starts for every message.
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
        if not self.connected:  # closed before CONNECT was answered: `connect` would wait on
            self.failed_namespaces.append("/")
            self._connect_event.set()
        await super()._handle_eio_disconnect(reason)


class _Http:
    """The shared session as Engine.IO sees it; remembers the WebSocket, which the library loses if it is cut short.

    And how the gateway refused for now, which the library does not tell: with 503 in place of an upgrade, or with 1013.
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
            message = f"no connection is taken now: HTTP {error.status}"
            self._not_upgraded = UnavailableError(message, float(after) if after.isdecimal() else 0.0)
            raise
        return self.socket

    @property
    def refusal(self) -> UnavailableError | None:
        """Why there is no connection, when the gateway said so."""
        if self.socket is not None and self.socket.close_code == TRY_AGAIN_LATER:
            return UnavailableError(f"no connection is taken now: closed with {TRY_AGAIN_LATER}")
        return self._not_upgraded


class Wire:
    """A connection. `changed` is set when it is `lost`, or when the gateway says that the token runs out."""

    def __init__(self, session: aiohttp.ClientSession, on_answer: OnAnswer) -> None:
        self.changed = asyncio.Event()
        self.lost = False
        self.expiring = False
        self.expired = False
        self._on_answer = on_answer
        self._next_id = 0
        self._refusal: tuple[Any, ...] = ()
        self._http = _Http(session)
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

    async def open(self, url: str, token: str, device: str | None) -> None:
        """Connect; UnavailableError when it may work later, DeviceRefusedError when it will not."""
        auth = {"token": token} if device is None else {"token": token, "device": device}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._sio.connect(url, auth=auth, transports=["websocket"], wait_timeout=CONNECT_TIMEOUT_S)
        except (socketio.exceptions.SocketIOError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            await self.close()
            raise (
                self._refused()
                or self._http.refusal
                or UnavailableError(f"no connection to {url}: {error or type(error).__name__}")
            ) from error
        except BaseException:
            await self.close()
            raise
        if self.lost:
            raise UnavailableError("the connection was lost at once")

    def emit(self, event: str, payload: bytes) -> int:
        """Queue one event whose payload is JSON already; returns the id that its acknowledgement will carry."""
        number = self._next_id
        self._next_id += 1
        self._queue(f'2{number}["{event}",{payload.decode()}]')
        return number

    def give_up(self) -> None:
        """Take the connection for lost, whatever the transport says."""
        self._on_lost()

    def renew(self, token: str) -> None:
        """Offer a fresh token for this session; if it is not taken, the session ends when the old one does."""
        self._queue(f'2["authenticate",{_Json.dumps({"token": token})}]')

    async def close(self) -> None:
        """Close the connection within a bound of time, whatever state it is in."""
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

    def _on_expired(self, *_: Any) -> None:
        self.expired = True

    def _on_acknowledgement(self, text: str) -> None:
        number, bracket, rest = text[1:].partition("[")
        if not (bracket and number.isdecimal()):
            return
        try:
            answers = _answers.decode("[" + rest)
        except msgspec.MsgspecError:
            answers = []
        # What cannot be read promises nothing.
        self._on_answer(int(number), answers[0] if answers else Answer())

    def _refused(self) -> DeviceRefusedError | UnavailableError | None:
        first = self._refusal[0] if self._refusal else None
        data = first.get("data") if isinstance(first, dict) else None
        code = data.get("code") if isinstance(data, dict) else None
        if not isinstance(first, dict) or not isinstance(data, dict) or not isinstance(code, str):
            return None
        if code in FOR_NOW:
            after = data.get("retryAfterMs")
            return UnavailableError(code, after / 1000 if isinstance(after, int | float) else 0.0)
        return DeviceRefusedError(code, str(first.get("message", "")))
