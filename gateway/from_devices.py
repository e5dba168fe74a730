"""DEVICE → GATEWAY: Socket.IO on aiohttp. Keeps the sessions of all sockets, from CONNECT to disconnect.

A session ends with its socket, when its token expires, or when its token is revoked; `authenticate` renews it in place.
Every event goes to the event handler.

A permanent refusal is sent as Socket.IO's CONNECT_ERROR. The official client treats it as final, so a temporary refusal
is never sent that way: before the upgrade it is a 503, after the token is known the socket closes with 1013. The whole
protocol is in docs/protocol/socketio.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Literal, NamedTuple

import msgspec
import socketio
from aiohttp import web

from access.revocations import RevocationList
from broker.presence import OpenSession
from gateway.admission import Admission, AdmissionDenied
from gateway.ingest import UNAVAILABLE_RETRY_MS, Ack, EventHandler, rejected, retry
from gateway.metrics import GatewayMetrics
from gateway.presence import PresenceBroadcaster
from gateway.problems import problem
from gateway.receipts import Receipts
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.device_socket import DeviceSocket
from gateway.socket.engine import NAMESPACE, SocketServer
from gateway.socket.events import Event
from gateway.socket.fast_path import FastPath
from gateway.socket.frames import GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER, text_frame
from gateway.socket.output import CLOSE_TIMEOUT_S, SocketContext
from gateway.socket.packets import EVENT, DevicePacket
from gateway.socket.session_timers import SessionTimers
from runtime.logs import logger
from runtime.process import expect_events
from runtime.times import rfc3339

log = logger("gateway.from_devices")

# When to try again: a gateway at its limit of sockets; another gateway, while this one stops.
FULL_RETRY_MS = 5000
STOPPING_RETRY_MS = 2000
# A confirm takes at most 4 s; events accepted before a stop are acknowledged within this.
DRAIN_TIMEOUT_S = 4.5
# The library sends an acknowledgement a few turns of the event loop after the handler returned it.
ACK_GRACE_S = 0.2
CLOSE_POLL_S = 0.05
# Sessions checked for revocation before other tasks get a turn: 0.3 ms.
REVOCATION_BATCH = 500
# The garbage collector follows the number of sessions in such steps.
SESSIONS_STEP = 256

# The libraries log a traceback for every invalid frame: clients could flood the log.
_SILENT = logging.Logger("socketio", logging.CRITICAL + 1)  # noqa: LOG001 - outside the logger tree, where nothing enables it


class _Authenticate(msgspec.Struct, forbid_unknown_fields=True):
    token: str


_decode = msgspec.json.Decoder(_Authenticate).decode


class SessionSocket(NamedTuple):
    """A session's owner, device and socket; `is_open` says whether its CONNECT is answered and it has not ended."""

    owner: str
    device: str
    socket: DeviceSocket
    is_open: Callable[[], bool]


class FromDevices:
    """The Socket.IO server of one gateway."""

    def __init__(
        self,
        settings: GatewaySettings,
        admission: Admission,
        event_handler: EventHandler,
        presence: PresenceBroadcaster,
        revocations: RevocationList,
        metrics: GatewayMetrics,
    ) -> None:
        self._admission = admission
        self._event_handler = event_handler
        self._presence = presence
        self.receipts = Receipts(self._send_receipt, metrics)
        self._revocations = revocations
        self._metrics = metrics
        self._max_connections = settings.max_connections
        self._stopping = False
        self._handle_fast = FastPath(event_handler).handle if settings.fast_lane else None
        self._sessions: dict[str, tuple[Session, OpenSession]] = {}
        # By connect time, which no two sessions of a gateway share.
        self._sids: dict[int, str] = {}
        self._timers = SessionTimers(settings.expiring_seconds, self._on_expiry)
        self._tasks: set[asyncio.Task[None]] = set()
        context = SocketContext(settings, metrics)
        self._sio = SocketServer(
            lambda engine, sid, now: DeviceSocket(context, engine, sid, now),
            self._open_slot,
            cors_allowed_origins=list(settings.cors_origins) or None,
            max_http_buffer_size=settings.max_frame_bytes,
            ping_interval=settings.ping_interval_seconds,
            ping_timeout=settings.ping_timeout_seconds,
            serializer=DevicePacket,
            logger=_SILENT,
            engineio_logger=_SILENT,
        )
        self._sio.on("connect", self._connect)
        self._sio.on("disconnect", self._disconnect)
        self._sio.on(EVENT, self._event)

    def attach(self, app: web.Application) -> None:
        """Serve Socket.IO on `app` under `/socket.io`, and close every socket when the app shuts down.

        The library attaches itself to `/socket.io/`; clients may leave out the last slash (`addTrailingSlash: false`).
        """
        self._sio.attach(app, socketio_path="socket.io")
        app.router.add_route("*", "/socket.io", self._sio.eio.handle_request)
        app.cleanup_ctx.append(self._background)
        app.on_shutdown.append(self._shut_down)

    def session_at(self, connected_us: int) -> SessionSocket | None:
        """Return the session with this connect time, or None when there is none, or it has ended."""
        if (sid := self._sids.get(connected_us)) is None or (socket := self._sio.eio.sockets.get(sid)) is None:
            return None
        session = self._sessions[sid][0]
        return SessionSocket(
            session.owner, session.device, socket, lambda: self._sio.manager.is_connected(sid, NAMESPACE)
        )

    async def _background(self, _: web.Application) -> AsyncIterator[None]:
        with self._revocations.watched_by(self._on_revocations):
            async with self._sio.eio.sweeping_deadlines(), self._timers.running():
                yield

    async def _shut_down(self, _: web.Application) -> None:
        """Accept nothing new, acknowledge what was accepted, and close so that clients reconnect elsewhere."""
        self._stopping = True
        if unacknowledged := await self._event_handler.drain(DRAIN_TIMEOUT_S):
            log.warning(
                "Some events were not acknowledged in time; their devices will send them again.", events=unacknowledged
            )
        await asyncio.sleep(ACK_GRACE_S)
        sockets = self._sio.eio.sockets
        for socket in list(sockets.values()):
            socket.start_closing(GOING_AWAY)
        for _poll in range(round(CLOSE_TIMEOUT_S / CLOSE_POLL_S) + 2):
            if not sockets:
                break
            await asyncio.sleep(CLOSE_POLL_S)

    async def _open_slot(self, request: web.Request) -> Callable[[], None]:
        """Take a slot for a socket, return what releases it; Problem 503 when there is none at present."""
        try:
            # Between this and the socket's entry in the engine nothing is awaited.
            release = await self._admission.open_slot(request)
            try:
                self._require_room()
            except AdmissionDenied:
                release()
                raise
        except AdmissionDenied as denied:
            self._metrics.connects.labels(denied.code).inc()
            raise problem(503, str(denied), denied.data()) from denied
        return release

    def _require_room(self) -> None:
        if self._stopping:
            raise AdmissionDenied("unavailable", "this gateway is stopping; try again", STOPPING_RETRY_MS)
        if len(self._sio.eio.sockets) >= self._max_connections:
            raise AdmissionDenied("busy", "this gateway has reached its limit of connections", FULL_RETRY_MS)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        try:
            session = await self._admission.admit(environ["aiohttp.request"], auth, has_slot=True)
        except AdmissionDenied as denied:
            self._metrics.connects.labels(denied.code).inc()
            if denied.is_temporary:  # once it is closing, no CONNECT_ERROR is sent
                self._sio.eio.sockets[sid].close_for("refused", TRY_AGAIN_LATER, denied.code)
            raise socketio.exceptions.ConnectionRefusedError(str(denied), denied.data()) from denied
        self._metrics.connects.labels("accepted").inc()
        self._count_session(1)
        open_session = self._presence.connected(session.owner, session.device)
        self._sessions[sid] = session, open_session
        self._sids[open_session.connected_us] = sid
        socket = self._sio.eio.sockets[sid]
        socket.session, socket.handle_fast = session, self._handle_fast
        self.receipts.add(sid, session)
        self._timers.schedule(sid, session.expires_at)
        # With the request, which nothing asks for again: 3 kB.
        self._sio.environ.pop(sid, None)

    async def _disconnect(self, sid: str, *_: object) -> None:
        if (found := self._sessions.pop(sid, None)) is not None:
            session, open_session = found
            self._sids.pop(open_session.connected_us, None)
            self._timers.cancel(sid)
            self._presence.disconnected(open_session)
            self.receipts.remove(sid, session)
            self._admission.release(session)
            self._count_session(-1)

    def _count_session(self, change: int) -> None:
        self._metrics.open_sessions += change
        if self._metrics.open_sessions % SESSIONS_STEP == 0:
            # Most have no more than one event in flight.
            expect_events(self._metrics.open_sessions)

    async def _event(self, sid: str, event: Event) -> Ack:
        if (found := self._sessions.get(sid)) is None:  # it ended while this event was under way
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        if event.name == "authenticate":
            return await self._authenticate(sid, found[0], event)
        return await self._event_handler.handle_async(found[0], event)

    async def _authenticate(self, sid: str, session: Session, event: Event) -> Ack:
        try:
            await self._admission.renew(session, token_in(event))
        except AdmissionDenied as denied:
            if denied.retry_after_ms is None:
                return rejected(denied.code, str(denied))
            return {"status": "retry", **denied.data()}
        if sid in self._sessions:
            self._timers.schedule(sid, session.expires_at)
        return {"status": "accepted", "expiresAt": rfc3339(session.expires_at * 1000)}

    def _on_expiry(self, sid: str, expired: bool) -> None:
        if expired:
            self._end(sid, "expired")
        else:
            expires_at = self._sessions[sid][0].expires_at
            self._emit(sid, b'42["auth_expiring",{"expiresAt":"%b"}]' % rfc3339(expires_at * 1000).encode())

    def _on_revocations(self) -> None:
        self._spawn(self._end_revoked())

    async def _end_revoked(self) -> None:
        for number, (sid, (session, _)) in enumerate(list(self._sessions.items()), 1):
            if sid in self._sessions and self._admission.is_revoked(session):
                self._end(sid, "revoked")
            if number % REVOCATION_BATCH == 0:
                await asyncio.sleep(0)

    def _end(self, sid: str, why: Literal["expired", "revoked"]) -> None:
        socket = self._sio.eio.sockets.get(sid)
        if socket is not None and not socket.closing:
            self._emit(sid, b'42["auth_%b",{}]' % why.encode())
            self._metrics.ended.labels(why).inc()
            socket.start_closing(POLICY_VIOLATION)

    def _emit(self, sid: str, packet: bytes) -> None:
        """Send an event without python-socketio: retiring a key may end all sessions of a gateway at once."""
        if self._sio.manager.is_connected(sid, NAMESPACE):  # else its CONNECT has not been answered yet
            self._sio.eio.sockets[sid].write(text_frame(packet))

    def _send_receipt(self, sid: str, packet: bytes) -> bool:
        """Send a receipt, unless the client reads too slowly: it can ask for what it missed."""
        socket = self._sio.eio.sockets.get(sid)
        if socket is None or not self._sio.manager.is_connected(sid, NAMESPACE):  # or CONNECT is not answered yet
            return False
        if socket.has_backpressure:
            socket.flush()  # all the receipts of one turn may be more than a client that reads well has unread
        if socket.closing or socket.has_backpressure:
            return False
        socket.write(text_frame(packet))
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def token_in(event: Event) -> object:
    """Return the token of an `authenticate` event; AdmissionDenied when the event has another form."""
    try:
        (payload,) = event.arguments
        return _decode(payload).token
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise AdmissionDenied(
            "invalid_reading", "authenticate takes one object with a token and nothing else"
        ) from error
