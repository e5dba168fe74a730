"""DEVICE ↔ GATEWAY: one WebSocket, from its upgrade to its end, as frames; the subclass knows what is in them.

Output goes to the transport without a queue of its own, and what a client leaves unread is bounded: while the client
does not read, nothing more is read from it, and beyond a time or a size the connection is aborted. Every close is the
same: a close frame, at most `CLOSE_TIMEOUT_S` for the client to close too, then the transport is aborted.
"""

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web
from aiohttp.http import WebSocketError
from aiohttp.streams import EofStream

from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.socket.frames import NORMAL, UNSUPPORTED_DATA, close_frame, pong_frame
from gateway.socket.upgrade import FrameSink, RawWebSocketResponse
from runtime.log_throttle import LogThrottle

CLOSE_TIMEOUT_S = 2.0
# How long a binary frame may wait for the acknowledgement of the event that announced it.
BINARY_GRACE_S = 0.05
LOG_EVERY_S = 10.0
# Unflushed output to one client beyond which it is no longer read. 1,000 bad readings are answered with 100 kB.
BACKPRESSURE_BYTES = 64 * 1024


class Flushable(Protocol):
    """Holds output until the end of the event loop's turn."""

    def flush(self) -> None:
        """Write what is held."""


class WriteCoalescer:
    """Flushes every socket once per turn of the event loop, so that all its frames of a turn leave in one write.

    A confirm releases the acknowledgements of many events at once; written one by one they took a quarter of the time.
    """

    def __init__(self) -> None:
        self._pending: list[Flushable] = []

    def add(self, socket: Flushable) -> None:
        """Flush `socket` at the end of this turn; call once for all that it holds."""
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append(socket)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        for socket in pending:
            socket.flush()


class SocketContext:
    """The parts that all sockets of a gateway share."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.coalescer = WriteCoalescer()
        self.log_throttle = LogThrottle(LOG_EVERY_S)


class WebSocket:
    """Text frames in both directions, without compression, within bounds."""

    __slots__ = ("_context", "_out", "_out_bytes", "_protocol", "_response", "_writer", "closing")

    def __init__(self, context: SocketContext) -> None:
        self._context = context
        self._out: list[bytes] = []
        self._out_bytes = 0
        # True once closing has begun: no frame is accepted or sent any more.
        self.closing = False

    async def open(self, request: web.Request, sink: FrameSink) -> web.StreamResponse:
        """Answer the upgrade; HTTPBadRequest when the request is not a proper one."""
        response = RawWebSocketResponse(sink, self._context.settings.max_frame_bytes)
        self._protocol = request.protocol
        self._writer = await response.prepare(request)
        self._response = response
        return response

    @property
    def has_backpressure(self) -> bool:
        """True while the client has to read before it is read from again."""
        return self._out_bytes > BACKPRESSURE_BYTES or self._protocol.writing_paused

    async def next_text(self) -> bytes | None:
        """Return the next queued text; None at the end of the socket. Answers pings, closes on any other frame."""
        frames = self._response.frames
        while True:
            if self.has_backpressure:
                await self._wait_drained()
            try:
                kind, data, _ = await frames.read()
            except WebSocketError as error:
                self.close_for("frame", error.code)
                # Closed at once, the close frame might never be read: unread input would reset the connection.
                await frames.wait_closed()
                return None
            except (EofStream, ConnectionError):
                return None
            if kind is WSMsgType.CLOSE:
                self.start_closing(NORMAL)
                return None
            if self.closing:
                continue
            if kind is WSMsgType.TEXT:
                return bytes(data)
            if kind is WSMsgType.PING:
                self.write(pong_frame(data))
            elif kind is WSMsgType.BINARY:
                await asyncio.sleep(BINARY_GRACE_S)
                self.close_for("binary", UNSUPPORTED_DATA)

    def write(self, frame: bytes) -> None:
        """Send a frame, in one write with the client's other frames of this turn of the event loop."""
        if self.closing:
            return
        if not self._out:
            self._context.coalescer.add(self)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def flush(self) -> None:
        """Hand the frames written so far to the transport."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        transport = self._protocol.transport
        if transport is None or not data:
            return
        transport.write(data)
        if transport.get_write_buffer_size() > self._context.settings.max_unread_bytes:
            self.abort("unread")

    async def _wait_drained(self) -> None:
        self.flush()
        try:
            async with asyncio.timeout(self._context.settings.unread_timeout_seconds):
                await self._writer.drain()
        except TimeoutError:
            self.abort("unread")
        except ConnectionError:  # the next read reports the end
            pass

    def close_for(self, cause: str, code: int, reason: str = "") -> None:
        """Close because of what the client did; `cause` is counted, `code` and `reason` are sent to the client."""
        if not self.closing:
            self._context.metrics.cut.labels(cause).inc()
            self.start_closing(code, reason)

    def start_closing(self, code: int, reason: str = "") -> None:
        """Send a close frame with code and reason; the client has `CLOSE_TIMEOUT_S` to close too."""
        if not self.closing:
            self.write(close_frame(code, reason))
            self.closing = True
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.abort)

    def abort(self, cause: str = "") -> None:
        """Close the transport at once, whatever is unread; `cause` is counted."""
        self.closing = True
        if self._protocol.transport is not None:
            if cause:
                self._context.metrics.cut.labels(cause).inc()
            self._protocol.transport.abort()
