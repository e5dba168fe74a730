"""DEVICE → GATEWAY: Socket.IO on aiohttp. Holds the sessions of all sockets, from their CONNECT to their end.

A session ends with its socket, with its token's life, or when its token is revoked; `authenticate` renews it in place.
Every event goes to the answerer.

Who is refused for good is told so with Socket.IO's CONNECT_ERROR. The official client takes it for final, so nobody who
may come again gets one: what is known before the upgrade answers it with 503, what the token tells closes with 1013.
docs/protocol/socketio.md has all of it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
import socketio
from aiohttp import web

from access.revocations import RevocationList
from broker.presence import OpenSession
from gateway.admission import Admission, Refused
from gateway.ingest import UNAVAILABLE_RETRY_MS, Answer, Answerer, rejected, retry
from gateway.metrics import GatewayMetrics
from gateway.presence import Presence
from gateway.problems import problem
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.socket.device_socket import DeviceSocket
from gateway.socket.engine import NAMESPACE, SocketServer
from gateway.socket.fast_path import FastLane
from gateway.socket.frames import GOING_AWAY, POLICY, TRY_AGAIN_LATER, text_frame
from gateway.socket.packets import EVENT, DevicePacket, Event
from gateway.socket.session_timers import Expiries
from gateway.socket.websocket import CLOSE_TIMEOUT_S, Shared
from runtime.logs import logger
from runtime.times import rfc3339

log = logger("gateway.from_devices")

# How soon to come again: to a gateway that has all the sockets it may, and while this one stops, to another.
FULL_RETRY_MS = 5000
STOPPING_RETRY_MS = 2000
# A confirm takes at most 4 s; what was taken in before a stop is answered within this.
FINISH_S = 4.5
# The library puts an answer on its way a few turns of the loop after the handler returned it.
LAST_WORDS_S = 0.2
CLOSED_LOOK_S = 0.05
# After so many sessions others have a turn: 0.3 ms.
REVOKED_LOOKS = 500

# The libraries write a traceback for every frame that a stranger gets wrong: a way to flood the log.
_SILENT = logging.Logger("socketio", logging.CRITICAL + 1)  # noqa: LOG001 - outside the tree, where nothing turns it on


class _Authenticate(msgspec.Struct, forbid_unknown_fields=True):
    token: str


_decode = msgspec.json.Decoder(_Authenticate).decode


class FromDevices:
    """The Socket.IO server of one gateway."""

    def __init__(
        self,
        settings: GatewaySettings,
        admission: Admission,
        answerer: Answerer,
        presence: Presence,
        revocations: RevocationList,
        metrics: GatewayMetrics,
    ) -> None:
        self._admission = admission
        self._answerer = answerer
        self._presence = presence
        self._revocations = revocations
        self._metrics = metrics
        self._max_connections = settings.max_connections
        self._stopping = False
        self._lane = FastLane(answerer).take if settings.fast_lane else None
        self._sessions: dict[str, tuple[Session, OpenSession]] = {}
        self._expiries = Expiries(settings.expiring_seconds, self._expire)
        self._tasks: set[asyncio.Task[None]] = set()
        shared = Shared(settings, metrics)
        self._sio = SocketServer(
            lambda engine, sid, now: DeviceSocket(shared, engine, sid, now),
            self._place,
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
        """Serve Socket.IO on `app` under `/socket.io`, and close every socket when the app shuts down."""
        self._sio.attach(app, socketio_path="socket.io")
        app.cleanup_ctx.append(self._looking_after)
        app.on_shutdown.append(self._close_all)

    async def _looking_after(self, _: web.Application) -> AsyncIterator[None]:
        with self._revocations.watched_by(self._revocations_grew):
            async with self._sio.eio.looking_after(), self._expiries.kept():
                yield

    async def _close_all(self, _: web.Application) -> None:
        """Take nothing new, answer what was taken in, and close so that clients come back by themselves elsewhere."""
        self._stopping = True
        if unanswered := await self._answerer.drain(FINISH_S):
            log.warning("Some events stay unanswered; their devices send again.", events=unanswered)
        await asyncio.sleep(LAST_WORDS_S)
        sockets = self._sio.eio.sockets
        for socket in list(sockets.values()):
            socket.end(GOING_AWAY)
        for _look in range(round(CLOSE_TIMEOUT_S / CLOSED_LOOK_S) + 2):
            if not sockets:
                break
            await asyncio.sleep(CLOSED_LOOK_S)

    @asynccontextmanager
    async def _place(self, request: web.Request) -> AsyncIterator[None]:
        """Hold a place for a socket; Problem 503 before its upgrade is answered when there is none for now."""
        try:
            async with self._admission.place(request):
                self._require_room()
                yield
        except Refused as refused:
            self._metrics.connects.labels(refused.code).inc()
            raise problem(503, str(refused), refused.data()) from refused

    def _require_room(self) -> None:
        if self._stopping:
            raise Refused("unavailable", "this gateway stops; come again", STOPPING_RETRY_MS)
        if len(self._sio.eio.sockets) >= self._max_connections:
            raise Refused("busy", "this gateway has all the connections that it may have", FULL_RETRY_MS)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        try:
            session = await self._admission.admit(environ["aiohttp.request"], auth, placed=True)
        except Refused as refused:
            self._metrics.connects.labels(refused.code).inc()
            if refused.for_now:  # closing already, it is sent no CONNECT_ERROR
                self._sio.eio.sockets[sid].cut("refused", TRY_AGAIN_LATER, refused.code)
            raise socketio.exceptions.ConnectionRefusedError(str(refused), refused.data()) from refused
        self._metrics.connects.labels("accepted").inc()
        self._metrics.connections.inc()
        self._sessions[sid] = session, self._presence.connected(session.owner, session.device)
        socket = self._sio.eio.sockets[sid]
        socket.session, socket.lane = session, self._lane
        self._expiries.set(sid, session.expires_at)

    async def _disconnect(self, sid: str, *_: object) -> None:
        if (found := self._sessions.pop(sid, None)) is not None:
            session, told = found
            self._expiries.drop(sid)
            self._presence.disconnected(told)
            self._admission.leave(session)
            self._metrics.connections.dec()

    async def _event(self, sid: str, event: Event) -> Answer:
        if (found := self._sessions.get(sid)) is None:  # it ended while this event was on its way
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        if event.name == "authenticate":
            return await self._authenticate(sid, found[0], event)
        return await self._answerer.answered(found[0], event)

    async def _authenticate(self, sid: str, session: Session, event: Event) -> Answer:
        try:
            await self._admission.renew(session, token_in(event))
        except Refused as refused:
            if refused.retry_after_ms is None:
                return rejected(refused.code, str(refused))
            return {"status": "retry", **refused.data()}
        if sid in self._sessions:
            self._expiries.set(sid, session.expires_at)
        return {"status": "accepted", "expiresAt": rfc3339(session.expires_at * 1000)}

    def _expire(self, sid: str, over: bool) -> None:
        if over:
            self._end(sid, "expired")
        else:
            expires_at = self._sessions[sid][0].expires_at
            self._tell(sid, b'42["auth_expiring",{"expiresAt":"%b"}]' % rfc3339(expires_at * 1000).encode())

    def _revocations_grew(self) -> None:
        self._later(self._end_revoked())

    async def _end_revoked(self) -> None:
        for number, (sid, (session, _)) in enumerate(list(self._sessions.items()), 1):
            if sid in self._sessions and self._admission.is_revoked(session):
                self._end(sid, "revoked")
            if number % REVOKED_LOOKS == 0:
                await asyncio.sleep(0)

    def _end(self, sid: str, why: Literal["expired", "revoked"]) -> None:
        socket = self._sio.eio.sockets.get(sid)
        if socket is not None and not socket.closing:
            self._tell(sid, b'42["auth_%b",{}]' % why.encode())
            self._metrics.ended.labels(why).inc()
            socket.end(POLICY)

    def _tell(self, sid: str, packet: bytes) -> None:
        """Send an event without python-socketio: a key that is retired ends all sessions of a gateway at once."""
        if self._sio.manager.is_connected(sid, NAMESPACE):  # else its CONNECT has not been answered yet
            self._sio.eio.sockets[sid].write(text_frame(packet))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def token_in(event: Event) -> object:
    """Return what an `authenticate` event holds as token; Refused when it is of another form."""
    try:
        (payload,) = event.arguments
        return _decode(payload).token
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise Refused("invalid_reading", "authenticate takes one object with a token and nothing else") from error
