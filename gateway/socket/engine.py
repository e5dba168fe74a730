"""python-socketio and python-engineio, cut down to one transport and one namespace, over sockets of our own.

What is replaced, and why: Engine.IO's sockets keep two tasks and two queues for each client, without a bound; and
Socket.IO's rooms make every disconnect take time that grows with the number of devices.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any

import engineio
import socketio
from aiohttp import web

from gateway.socket.device_socket import DeviceSocket
from gateway.socket.handshake import check_handshake, refusal
from runtime.logs import logger

log = logger("gateway.socket.engine")

LOOK_EVERY_S = 0.5
NAMESPACE = "/"

MakeSocket = Callable[[Any, str, float], DeviceSocket]
Place = Callable[[web.Request], AbstractAsyncContextManager[None]]
"""Holds a place for the socket that a request asks for; raises when there is none, before the upgrade is answered."""


class SocketServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio carries no types
    """The Socket.IO server whose sockets `make_socket(engine, sid, now)` makes, each at a `place`."""

    def __init__(self, make_socket: MakeSocket, place: Place, **options: Any) -> None:
        self._make_socket = make_socket
        self._place = place
        super().__init__(client_manager=Clients(), async_mode="aiohttp", transports=["websocket"], **options)

    def _engineio_server_class(self) -> Callable[..., "Engine"]:
        return partial(Engine, self._make_socket, self._place)


class Engine(engineio.AsyncServer):  # type: ignore[misc]  # python-engineio carries no types
    """The Engine.IO server: checks the request as the library does, then leaves the socket to `DeviceSocket`."""

    sockets: dict[str, DeviceSocket]

    def __init__(self, make_socket: MakeSocket, place: Place, **options: Any) -> None:
        self._make_socket = make_socket
        self._place = place
        super().__init__(monitor_clients=False, **options)

    async def handle_request(self, request: web.Request) -> Any:
        """Answer a request under `/socket.io`; Problem 400 says what keeps it from becoming a socket."""
        check_handshake(request)
        return await super().handle_request(request)

    def _bad_request(self, message: str | None = None) -> Any:
        raise refusal(message or "The request is in no order that Engine.IO knows.")

    async def _handle_connect(self, environ: dict[str, Any], *_: Any) -> web.StreamResponse:
        """Serve one WebSocket; called by the library for a request that is in order."""
        request: web.Request = environ["aiohttp.request"]
        async with self._place(request):
            return await self._serve(request)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        sid = self.generate_id()
        hello = {
            "sid": sid,
            "upgrades": [],
            "pingInterval": int(self.ping_interval * 1000),
            "pingTimeout": int(self.ping_timeout * 1000),
            "maxPayload": self.max_http_buffer_size,
        }
        socket = self.sockets[sid] = self._make_socket(self, sid, asyncio.get_running_loop().time())
        try:
            return await socket.serve(request, hello)
        finally:
            del self.sockets[sid]

    @asynccontextmanager
    async def looking_after(self) -> AsyncIterator[None]:
        """Keep every socket's deadlines as long as the context lasts."""
        task = asyncio.ensure_future(self._look_after())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = loop.time()
            for socket in list(self.sockets.values()):
                try:
                    socket.look(now)
                except Exception:  # one socket's fault must not stop the deadlines of all others
                    log.exception("A socket could not be looked after.")
                    socket.abort("fault")


class Clients(socketio.AsyncManager):  # type: ignore[misc]  # python-socketio carries no types
    """Who is connected. One namespace, no rooms; a client has one id in Engine.IO and in Socket.IO."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: dict[str, dict[str, str]] = {NAMESPACE: {}}
        # True once the CONNECT is accepted, False before it and while the client's end is being handled.
        self._connected: dict[str, bool] = {}

    async def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        """Note a client whose CONNECT is being looked at; None when it has one already."""
        if namespace != NAMESPACE or eio_sid in self._connected:
            return None
        self._connected[eio_sid] = False
        return eio_sid

    async def connect(self, sid: str, namespace: str) -> str:
        """Note that the CONNECT is accepted."""
        self._connected[sid] = True
        return sid

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Say whether events of this client are taken."""
        return namespace == NAMESPACE and self._connected.get(sid, False)

    def pre_disconnect(self, sid: str, namespace: str) -> str:
        """Note that the client's end is being handled."""
        self._connected[sid] = False
        return sid

    async def disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        """Forget the client."""
        self._connected.pop(sid, None)

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        """Say whether there is a client to disconnect."""
        return self.is_connected(sid, namespace)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        """Return the client's id, which is the same."""
        return eio_sid if namespace == NAMESPACE and eio_sid in self._connected else None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        """Return the client's id, which is the same."""
        return self.sid_from_eio_sid(sid, namespace)

    def get_participants(self, namespace: str, room: str | None) -> Iterator[tuple[str, str]]:
        """Give the one client that `room` names: nothing is sent to all."""
        if room is not None and self.is_connected(room, namespace):
            yield room, room
