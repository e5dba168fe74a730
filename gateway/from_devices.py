"""DEVICE → GATEWAY: Socket.IO on aiohttp. Admits devices by their token and hands each event to the answerer."""

import asyncio
import logging
import time
from typing import Any

import socketio
from aiohttp import web

from gateway.answer import UNAVAILABLE_RETRY_MS, Answerer, retry
from gateway.metrics import GatewayMetrics
from gateway.packets import EVENT, DevicePacket, Event
from gateway.session import Refused, Session, open_session
from gateway.settings import GatewaySettings
from runtime.logs import logger
from runtime.tokens import TokenVerifier

log = logger("gateway.from_devices")

# How long a refused or expired client may take to hear why, before its transport is closed; then before it is cut.
LAST_WORDS_S = 0.2
CLOSE_TIMEOUT_S = 2.0
CLOSED_LOOK_S = 0.05
# A confirm takes at most 4 s; what was taken in before a stop is answered within this.
FINISH_S = 4.5

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
        self._sessions: dict[str, Session] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._draining = False
        self._answering = 0
        self._all_answered = asyncio.Event()
        self._sio = socketio.AsyncServer(
            async_mode="aiohttp",
            transports=["websocket"],
            cors_allowed_origins=list(settings.cors_origins) or None,
            max_http_buffer_size=settings.max_frame_bytes,
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
        app.on_shutdown.append(self._close_all)

    async def _close_all(self, _: web.Application) -> None:
        await self._finish_answers()
        # The transport is closed under the session, so that clients take it for a lost connection and come back.
        for socket in list(self._sio.eio.sockets.values()):
            socket.queue.put_nowait(None)
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT_S)

    async def _finish_answers(self) -> None:
        """Take nothing new, and answer what was taken in."""
        self._draining = True
        try:
            async with asyncio.timeout(FINISH_S):
                while self._answering:
                    self._all_answered.clear()
                    await self._all_answered.wait()
        except TimeoutError:
            log.warning("Some events stay unanswered; their devices send again.", events=self._answering)
        # The library puts an answer on its way a few turns of the loop after the handler returned it.
        await asyncio.sleep(LAST_WORDS_S)

    async def _connect(self, sid: str, environ: dict[str, Any], auth: object = None) -> None:
        request: web.Request = environ["aiohttp.request"]
        try:
            session = await open_session(self._verifier, auth, request)
        except Refused as refused:
            self._metrics.connects.labels(refused.code).inc()
            self._close_soon(sid)
            raise socketio.exceptions.ConnectionRefusedError(str(refused), refused.data()) from refused
        self._metrics.connects.labels("accepted").inc()
        self._metrics.connections.inc()
        self._sessions[sid] = session
        loop = asyncio.get_running_loop()
        self._expiries[sid] = loop.call_later(max(0.0, session.expires_at - time.time()), self._expire, sid)

    async def _disconnect(self, sid: str, *_: object) -> None:
        if self._sessions.pop(sid, None) is not None:
            self._metrics.connections.dec()
            self._expiries.pop(sid).cancel()

    async def _event(self, sid: str, event: Event) -> dict[str, Any]:
        session = self._sessions.get(sid)
        if session is None or self._draining:  # the session ended while this event was on its way, or we are ending
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        self._answering += 1
        try:
            return await self._answerer.answer(session, event)
        except Exception:  # a fault of ours: without an answer the device would wait for ever
            log.exception("An event could not be answered.", device=session.device)
            return retry("unavailable", UNAVAILABLE_RETRY_MS)
        finally:
            self._answering -= 1
            if not self._answering:
                self._all_answered.set()

    def _expire(self, sid: str) -> None:
        self._spawn(self._say_expired(sid))

    async def _say_expired(self, sid: str) -> None:
        await self._sio.emit("auth_expired", {}, to=sid)
        self._close_soon(sid)

    def _close_soon(self, sid: str) -> None:
        eio_sid = self._sio.manager.eio_sid_from_sid(sid, "/")
        if eio_sid is not None:
            self._spawn(self._close(eio_sid))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, eio_sid: str) -> None:
        await asyncio.sleep(LAST_WORDS_S)
        socket = self._sio.eio.sockets.get(eio_sid)
        if socket is None:
            return
        socket.queue.put_nowait(None)
        for _ in range(round(CLOSE_TIMEOUT_S / CLOSED_LOOK_S)):
            await asyncio.sleep(CLOSED_LOOK_S)
            if eio_sid not in self._sio.eio.sockets:
                return
        transport = self._sio.environ.get(eio_sid, {}).get("aiohttp.request")  # it does not read
        if transport is not None and transport.transport is not None:
            transport.transport.abort()
