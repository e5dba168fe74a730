"""DEVICE ↔ GATEWAY: one WebSocket, from its upgrade to its end, as frames; the subclass knows what is in them.

It is the protocol of its transport, and holds nothing that only some of its time needs: whole text frames, which is
what devices send, are read here; aiohttp's parser is made for the first bytes that are anything else; a queue and a
task exist while frames wait for the plain path.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import WSMsgType, web
from aiohttp._websocket.helpers import websocket_mask
from aiohttp._websocket.reader import WebSocketReader
from aiohttp.http import WebSocketError, WSMessage
from aiohttp.streams import EofStream

from gateway.socket.frames import NORMAL, UNSUPPORTED_DATA, pong_frame
from gateway.socket.output import SocketContext, SocketOutput
from gateway.socket.upgrade import FrameQueue, RawWebSocketResponse, release

# How long a binary frame may wait for the acknowledgement of the event that announced it.
BINARY_GRACE_S = 0.05

# A whole text frame of a client: its first byte, the mask's bit, and the second byte's value for a two-byte length.
_WHOLE_TEXT: Final = 0x81
_MASKED: Final = 0x80
_TWO_BYTE_SIZE: Final = 126
_TEXT: Final = WSMsgType.TEXT
# Input of more waits for its turn, so that a fleet that comes back with full buffers is not in front of live readings.
_LARGE: Final = 2048


class WebSocket(SocketOutput):
    """Text frames in both directions, without compression, within bounds. Times are the event loop's, in seconds."""

    __slots__ = ("_frames", "_held", "_on_end", "_parser", "_reading_paused", "_serving")

    def __init__(self, context: SocketContext) -> None:
        super().__init__(context)
        # None before the connection is taken, and once the socket has ended.
        self._on_end: Callable[[], None] | None = None
        self._frames: FrameQueue | None = None
        self._parser: WebSocketReader | None = None
        self._serving: asyncio.Task[None] | None = None
        # Also read by the queue.
        self._reading_paused = False
        # Whether something that it has sent waits for its turn.
        self._held = False

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
        """Read what the client has sent, at once or in its turn."""
        if len(data) < _LARGE:
            self.process(data)
        else:
            self._context.turns.take(self, data, len(data))

    # What turns call

    @property
    def has_gone(self) -> bool:
        """True once there is nobody to answer."""
        return self._lost or self._on_end is None

    def hold(self) -> None:
        """Read nothing more from the client until `read_on` is called."""
        self._held = True
        self._read_or_pause()

    def read_on(self) -> None:
        """Read again, unless the queue is full."""
        self._held = False
        self._read_or_pause()

    def fail(self) -> None:
        """End the connection."""
        self.abort("fault")

    def process(self, data: bytes) -> None:
        """Read whole text frames here, anything else by aiohttp's parser."""
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
        self._read_or_pause()

    def resume_reading(self) -> None:
        """Read on."""
        self._reading_paused = False
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._held or self._reading_paused:
            transport.pause_reading()
        else:
            transport.resume_reading()

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
            self._on_end = self._frames = self._parser = None
            if self._transport is not None and not self._lost:
                self._transport.close()

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
                self.write(pong_frame(bytes(data)))
            elif kind is WSMsgType.BINARY:
                await asyncio.sleep(BINARY_GRACE_S)
                self.close_for("binary", UNSUPPORTED_DATA)
        return b""
