"""DEVICE ↔ GATEWAY: one WebSocket, from its upgrade to its end, as frames; the subclass knows what is in them.

It is the protocol of its transport, and holds nothing that only some of its time needs: whole text frames, which is
what devices send, are read here; aiohttp's parser is made for the first bytes that are anything else; a queue and a
task exist while frames wait for the plain path.

Output goes to the transport without a queue of its own, and what a client leaves unread is bounded: while the client
does not read, nothing more is read from it, and beyond a time or a size the connection is aborted. Every close is the
same: a close frame, at most `CLOSE_TIMEOUT_S` for the client to close too, then the transport is aborted.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import WSMsgType, web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.reader import WebSocketReader
from aiohttp.http import WebSocketError, WSMessage
from aiohttp.streams import EofStream

from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.socket.frames import NORMAL, UNSUPPORTED_DATA, close_frame, pong_frame
from gateway.socket.upgrade import FrameQueue, RawWebSocketResponse, release
from runtime.log_throttle import LogThrottle

CLOSE_TIMEOUT_S = 2.0
# How long a binary frame may wait for the acknowledgement of the event that announced it.
BINARY_GRACE_S = 0.05
LOG_EVERY_S = 10.0
# Unflushed output to one client beyond which it is no longer read. 1,000 bad readings are answered with 100 kB.
BACKPRESSURE_BYTES = 64 * 1024

# A whole text frame of a client: its first byte, the bit of a mask, and the lengths that stand in the second byte.
_WHOLE_TEXT: Final = 0x81
_MASKED: Final = 0x80
_TWO_BYTE_SIZE: Final = 126
_TEXT: Final = WSMsgType.TEXT


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
    """Text frames in both directions, without compression, within bounds. Times are the event loop's, in seconds."""

    __slots__ = (
        "_context",
        "_drained",
        "_frames",
        "_lost",
        "_on_end",
        "_out",
        "_out_bytes",
        "_parser",
        "_reading_paused",
        "_serving",
        "_transport",
        "_writing_paused",
        "closing",
    )

    def __init__(self, context: SocketContext) -> None:
        self._context = context
        self._out: list[bytes] = []
        self._out_bytes = 0
        # True once closing has begun: no frame is accepted or sent any more.
        self.closing = False
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._on_end: Callable[[], None] | None = None
        self._frames: FrameQueue | None = None
        self._parser: WebSocketReader | None = None
        self._serving: asyncio.Task[None] | None = None
        # Also read by the queue.
        self._reading_paused = False
        self._writing_paused = False
        self._drained: asyncio.Future[None] | None = None

    async def open(self, request: web.Request, first: bytes, on_end: Callable[[], None]) -> web.StreamResponse:
        """Answer the upgrade, with a first frame, and take the connection from aiohttp.

        `on_end` is called once the socket has ended, unless this raises: HTTPBadRequest when the request is not a
        proper upgrade, ConnectionError when the client has gone.
        """
        response = RawWebSocketResponse()
        await response.prepare(request)
        self._transport, rest = release(request, self)
        self._on_end = on_end
        self.write(response.take_answer() + first)
        if rest:
            self.data_received(rest)
        return response

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Read what the client has sent: whole text frames here, anything else by aiohttp's parser."""
        if self._on_end is None:
            return
        if self._parser is None:
            at, end = 0, len(data)
            most = self._context.settings.max_frame_bytes
            while at < end:
                if end - at < 6 or data[at] != _WHOLE_TEXT or data[at + 1] < _MASKED:
                    break
                size, start = data[at + 1] - _MASKED, at + 6
                if size == _TWO_BYTE_SIZE:
                    size, start = data[at + 2] << 8 | data[at + 3], at + 8
                elif size > _TWO_BYTE_SIZE:
                    break
                stop = start + size
                if stop > end or size > most or (self._frames is not None and self._frames.is_full):
                    break
                payload = bytearray(data[start:stop])
                websocket_mask(data[start - 4 : start], payload)
                self._on_whole_text(bytes(payload))
                at = stop
            if at == end:
                return
            data = data[at:]
            # The parser refuses a frame that reaches its bound; we refuse one beyond it.
            self._parser = WebSocketReader(self._queue(), most + 1, compress=False, decode_text=False)
        self._parser.feed_data(data)
        self._serve_queue()

    def eof_received(self) -> bool:
        """Close, as the client has."""
        return False

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def connection_lost(self, _: Exception | None) -> None:
        """End, after the frames that are still queued."""
        self._lost = True
        self.resume_writing()
        if self._on_end is not None:
            self._queue().feed_eof()
            self._serve_queue()

    # What the queue calls

    def pause_reading(self) -> None:
        """Read nothing more from the client."""
        self._reading_paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._reading_paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def on_frame(self, message: WSMessage) -> bool:
        """Handle a frame at once, or return False to have it queued; while closing, drop all but the close frame."""
        if message[0] is _TEXT:
            return self.on_text(message[1])
        return self.closing and message[0] is not WSMsgType.CLOSE

    # What a subclass does with them

    def on_text(self, text: bytes) -> bool:
        """Handle a text frame at once and return True, or return False to have it queued."""
        raise NotImplementedError

    async def on_queued_text(self, text: bytes) -> None:
        """Handle a text frame that was queued."""
        raise NotImplementedError

    async def on_closed(self) -> None:
        """End whatever depends on the connection, which accepts and sends nothing any more."""
        raise NotImplementedError

    def _on_whole_text(self, text: bytes) -> None:
        if self._frames is not None:
            self._frames.feed_data((_TEXT, text, ""), len(text))
        elif not self.on_text(text):
            self._queue().put((_TEXT, text, ""), len(text))
        else:
            return
        self._serve_queue()

    def _queue(self) -> FrameQueue:
        if self._frames is None:
            self._frames = FrameQueue(self)
        return self._frames

    def _serve_queue(self) -> None:
        """Have what is queued handled, by one task."""
        if self._serving is None and self._frames is not None and self._frames.has_input:
            self._serving = asyncio.get_running_loop().create_task(self._handle_queued(self._frames))

    async def _handle_queued(self, frames: FrameQueue) -> None:
        """Handle queued frames until none is left, or to the end of the socket."""
        try:
            while frames.has_input:
                text = await self._next_text(frames)
                if text is None:
                    await self._end()
                    return
                await self.on_queued_text(text)
                # Let other sockets run: queued packets are read without a pause.
                await asyncio.sleep(0)
        except BaseException:  # a bug, or the end of the process: a socket whose frames nobody reads must not stay
            self.abort()
            await self._end()
            raise
        self._serving = None
        if self._parser is None:
            self._frames = None

    async def _end(self) -> None:
        self.flush()
        self.closing = True
        try:
            await self.on_closed()
        finally:
            if self._on_end is not None:
                self._on_end()
            # None from here on: the socket has ended.
            self._on_end = self._frames = self._parser = None
            if self._transport is not None and not self._lost:
                self._transport.close()

    @property
    def has_backpressure(self) -> bool:
        """True while the client has to read before it is read from again."""
        return self._out_bytes > BACKPRESSURE_BYTES or self._writing_paused

    async def _next_text(self, frames: FrameQueue) -> bytes | None:
        """Return the next queued text, empty if there is none; None at the end of the socket.

        Answers pings, closes on any other frame.
        """
        while frames.has_input:
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
        return b""

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
        transport = self._transport
        if transport is None or self._lost or not data:
            return
        transport.write(data)
        if transport.get_write_buffer_size() > self._context.settings.max_unread_bytes:
            self.abort("unread")

    async def _wait_drained(self) -> None:
        self.flush()
        if not self._writing_paused:
            return
        self._drained = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._context.settings.unread_timeout_seconds):
                await self._drained
        except TimeoutError:
            self.abort("unread")
        finally:
            self._drained = None

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
        if self._transport is not None and not self._lost:
            if cause:
                self._context.metrics.cut.labels(cause).inc()
            self._transport.abort()
