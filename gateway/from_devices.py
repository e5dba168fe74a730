"""DEVICE → GATEWAY: Socket.IO on aiohttp. Admits devices by their token and hands each event to the answerer."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import socketio
from aiohttp import web

from gateway.answer import UNAVAILABLE_RETRY_MS, Answer, Answerer, retry
from gateway.device_socket import DeviceSocket
from gateway.engine import SocketServer
from gateway.fast_lane import FastLane
from gateway.frames import GOING_AWAY, POLICY
from gateway.metrics import GatewayMetrics
from gateway.packets import EVENT, DevicePacket, Event
from gateway.session import Refused, Session, open_session
from gateway.settings import GatewaySettings
from gateway.websocket import CLOSE_TIMEOUT_S, Shared
from runtime.logs import logger
from runtime.tokens import TokenVerifier

log = logger("gateway.from_devices")

# A confirm takes at most 4 s; what was taken in before a stop is answered within this.
FINISH_S = 4.5
# The library puts an answer on its way a few turns of the loop after the handler returned it.
LAST_WORDS_S = 0.2
CLOSED_LOOK_S = 0.05

# The libraries write a traceback for every frame that a stranger gets wrong: a way to flood the log.
_SILENT = logging.Logger("socketio", logging.CRITICAL + 1)  # noqa: LOG001 - outside the tree, where nothing turns it on


class FromDevices:
    """The Socket.IO server of one gateway."""

    def __init__(
        self, settings: GatewaySettings, verifier: TokenVerifier, answerer: Answerer, metrics: GatewayMetrics
    ) -> None:
        self._verifier = verifier
        self._answerer = answerer
        self._metrics = metrics
        self._lane = FastLane(answerer).take if settings.fast_lane else None
        self._sessions: dict[str, Session] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()
        shared = Shared(settings, metrics)
        self._sio = SocketServer(
            lambda engine, sid, now: DeviceSocket(shared, engine, sid, now),
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
        async with self._sio.eio.looking_after():
            yield

    async def _close_all(self, _: web.Application) -> None:
        """Take nothing new, answer what was taken in, and close so that clients come back by themselves elsewhere."""
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

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        request: web.Request = environ["aiohttp.request"]
        try:
            session = await open_session(self._verifier, auth, request)
        except Refused as refused:
            self._metrics.connects.labels(refused.code).inc()
            raise socketio.exceptions.ConnectionRefusedError(str(refused), refused.data()) from refused
        self._metrics.connects.labels("accepted").inc()
        self._metrics.connections.inc()
        self._sessions[sid] = session
        socket = self._sio.eio.sockets[sid]
        socket.session, socket.lane = session, self._lane
        loop = asyncio.get_running_loop()
        self._expiries[sid] = loop.call_later(max(0.0, session.expires_at - time.time()), self._expire, sid)

    async def _disconnect(self, sid: str, *_: object) -> None:
        if self._sessions.pop(sid, None) is not None:
            self._metrics.connections.dec()
            self._expiries.pop(sid).cancel()

    async def _event(self, sid: str, event: Event) -> Answer:
        session = self._sessions.get(sid)
        if session is None:  # it ended while this event was on its way
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        return await self._answerer.answered(session, event)

    def _expire(self, sid: str) -> None:
        task = asyncio.ensure_future(self._say_expired(sid))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _say_expired(self, sid: str) -> None:
        await self._sio.emit("auth_expired", {}, to=sid)
        if (socket := self._sio.eio.sockets.get(sid)) is not None:
            socket.end(POLICY)
