"""python-socketio and python-engineio, reduced to one transport and one namespace, over `DeviceSocket`.

Replaced are Engine.IO's sockets, which keep two tasks and two unbounded queues for each client, and Socket.IO's rooms,
which make every disconnect take time that grows with the number of devices.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import engineio
import socketio
from aiohttp import hdrs, web

from gateway.socket.device_socket import DeviceSocket
from gateway.socket.handshake import check_handshake, refusal
from runtime.background import background
from runtime.logs import logger

log = logger("gateway.socket.engine")

SWEEP_EVERY_S = 0.5
NAMESPACE = "/"
# Of the query, beside those that `check_handshake` looks at: the library refuses them, or their values.
OTHER_PARAMETERS = frozenset(("sid", "j"))

SocketFactory = Callable[[Any, str, float], DeviceSocket]
OpenSlot = Callable[[web.Request], Awaitable[Callable[[], None]]]
"""Takes a slot for the socket of a request and returns what releases it; raises when there is none."""


class SocketServer(socketio.AsyncServer):  # type: ignore[misc]  # python-socketio carries no types
    """The Socket.IO server. `make_socket(engine, sid, now)` makes each socket, in a slot that `open_slot` opens."""

    def __init__(self, make_socket: SocketFactory, open_slot: OpenSlot, **options: Any) -> None:
        self._make_socket = make_socket
        self._open_slot = open_slot
        super().__init__(client_manager=ClientManager(), async_mode="aiohttp", transports=["websocket"], **options)

    def _engineio_server_class(self) -> Callable[..., "Engine"]:
        return partial(Engine, self._make_socket, self._open_slot)


class Engine(engineio.AsyncServer):  # type: ignore[misc]  # python-engineio carries no types
    """The Engine.IO server: checks a request as the library does, then leaves the socket to `DeviceSocket`."""

    sockets: dict[str, DeviceSocket]

    def __init__(self, make_socket: SocketFactory, open_slot: OpenSlot, **options: Any) -> None:
        self._make_socket = make_socket
        self._open_slot = open_slot
        # When each socket must be checked next, with its id; those of sockets that have ended stay until then.
        self._deadlines: list[tuple[float, str]] = []
        super().__init__(monitor_clients=False, **options)

    async def handle_request(self, request: web.Request) -> Any:
        """Answer a request under `/socket.io`; Problem 400 when it cannot become a socket."""
        check_handshake(request)
        if request.method != "GET" or hdrs.ORIGIN in request.headers or not OTHER_PARAMETERS.isdisjoint(request.query):
            return await super().handle_request(request)
        # Nothing is left that the library would check; it would copy all headers first.
        return await self._handle_connect({"aiohttp.request": request})

    def _bad_request(self, message: str | None = None) -> Any:
        raise refusal(message or "This is not a valid Engine.IO request.")

    async def _handle_connect(self, environ: dict[str, Any], *_: Any) -> web.StreamResponse:
        """Serve one WebSocket; called by the library for a valid request."""
        request: web.Request = environ["aiohttp.request"]
        release_slot = await self._open_slot(request)
        sid = self.generate_id()
        hello = {
            "sid": sid,
            "upgrades": [],
            "pingInterval": int(self.ping_interval * 1000),
            "pingTimeout": int(self.ping_timeout * 1000),
            "maxPayload": self.max_http_buffer_size,
        }
        socket = self.sockets[sid] = self._make_socket(self, sid, asyncio.get_running_loop().time())
        heapq.heappush(self._deadlines, (socket.next_deadline, sid))
        ended = partial(self._on_end, sid, release_slot)
        try:
            return await socket.serve(request, hello, ended)
        except BaseException:
            await self.handlers["disconnect"](sid, self.reason.TRANSPORT_ERROR)
            ended()
            raise

    def _on_end(self, sid: str, release_slot: Callable[[], None]) -> None:
        del self.sockets[sid]
        release_slot()

    @asynccontextmanager
    async def sweeping_deadlines(self) -> AsyncIterator[None]:
        """Check, twice a second, the deadlines of the sockets where one is due, until the context is left."""
        async with background(self._sweep_deadlines(), name="deadlines"):
            yield

    async def _sweep_deadlines(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._check_due(loop.time())

    def _check_due(self, now: float) -> None:
        due = []
        while self._deadlines and self._deadlines[0][0] <= now:
            due.append(heapq.heappop(self._deadlines)[1])
        for sid in due:
            if (socket := self.sockets.get(sid)) is None:
                continue
            try:
                next_at = socket.check_deadlines(now)
            except Exception:  # an error at one socket must not stop the deadlines of all others
                log.exception("A socket's deadlines could not be checked.")
                socket.abort("fault")
                next_at = now
            heapq.heappush(self._deadlines, (next_at, sid))


class ClientManager(socketio.AsyncManager):  # type: ignore[misc]  # python-socketio carries no types
    """Keeps the connected clients. One namespace, no rooms; a client has one id in Engine.IO and in Socket.IO."""

    def __init__(self) -> None:
        super().__init__()
        self.rooms: dict[str, dict[str, str]] = {NAMESPACE: {}}
        # True once the CONNECT is accepted, False before it and while the disconnect is being handled.
        self._connected: dict[str, bool] = {}

    async def pre_connect(self, eio_sid: str, namespace: str) -> str | None:
        """Record a client whose CONNECT is being checked and return its id; None when it has sent one before."""
        if namespace != NAMESPACE or eio_sid in self._connected:
            return None
        self._connected[eio_sid] = False
        return eio_sid

    async def connect(self, sid: str, namespace: str) -> str:
        """Record that the CONNECT is accepted."""
        self._connected[sid] = True
        return sid

    def is_connected(self, sid: str, namespace: str) -> bool:
        """Return whether events of this client are accepted."""
        return namespace == NAMESPACE and self._connected.get(sid, False)

    def pre_disconnect(self, sid: str, namespace: str) -> str:
        """Record that the client's disconnect is being handled."""
        self._connected[sid] = False
        return sid

    async def disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        """Forget the client."""
        self._connected.pop(sid, None)

    async def can_disconnect(self, sid: str, namespace: str) -> bool:
        """Return whether there is a client to disconnect."""
        return self.is_connected(sid, namespace)

    def sid_from_eio_sid(self, eio_sid: str, namespace: str) -> str | None:
        """Return the client's id, which is the same in both."""
        return eio_sid if namespace == NAMESPACE and eio_sid in self._connected else None

    def eio_sid_from_sid(self, sid: str, namespace: str) -> str | None:
        """Return the client's id, which is the same in both."""
        return self.sid_from_eio_sid(sid, namespace)

    def get_participants(self, namespace: str, room: str | None) -> Iterator[tuple[str, str]]:
        """Yield the one client that `room` names: nothing is broadcast to all."""
        if room is not None and self.is_connected(room, namespace):
            yield room, room
