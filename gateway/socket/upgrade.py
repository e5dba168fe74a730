"""From an HTTP request to WebSocket frames: aiohttp's handshake, then its parser for what is no whole text frame.

Once the upgrade is answered the connection leaves aiohttp: `release` gives its transport away and ends what aiohttp
keeps for a request (a task, the request, its response, an HTTP parser), which is most of what an idle connection holds.
"""

import asyncio
from typing import Any, Protocol

from aiohttp import web
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http import WSMessage

# Queued bytes for the plain path beyond which the client is no longer read; the queue holds at most twice as much.
QUEUE_BYTES = 64 * 1024


class FrameSink(Protocol):
    """Is offered each frame as the network delivers it, and reads no more while it is told to pause."""

    def on_frame(self, message: WSMessage) -> bool:
        """Handle the frame and return True, or return False to have it queued.

        Must not raise: the parser would lose the exception.
        """

    def pause_reading(self) -> None:
        """Read nothing more from the client."""

    def resume_reading(self) -> None:
        """Read on."""


class FrameQueue(WebSocketDataQueue):
    """The frames that wait for the plain path. A frame goes to `sink` first, unless others are queued before it."""

    def __init__(self, sink: FrameSink) -> None:
        super().__init__(sink, QUEUE_BYTES, loop=asyncio.get_running_loop())  # type: ignore[arg-type]  # all it calls
        self._on_frame = sink.on_frame
        self._closed = False
        self._closed_waiter: asyncio.Future[None] | None = None

    def feed_data(self, message: Any, size: int) -> None:
        """Hand one frame to the sink or queue it; called by the parser."""
        if self._size or not self._on_frame(message):
            super().feed_data(message, size)

    def put(self, message: Any, size: int) -> None:
        """Queue a frame that the sink has left."""
        super().feed_data(message, size)

    @property
    def has_input(self) -> bool:
        """True while `read` returns, or raises, at once."""
        return bool(self._size) or self.is_eof()

    @property
    def is_full(self) -> bool:
        """True while nothing more may be put into it."""
        return self._size > self._limit

    def feed_eof(self) -> None:
        """Note that the connection is closed."""
        super().feed_eof()
        self._closed = True
        if self._closed_waiter is not None and not self._closed_waiter.done():
            self._closed_waiter.set_result(None)

    async def wait_closed(self) -> None:
        """Return once the connection is closed; for after a malformed frame, when nothing is read any more."""
        if not self._closed:
            self._closed_waiter = asyncio.get_running_loop().create_future()
            await self._closed_waiter


class RawWebSocketResponse(web.WebSocketResponse):
    """Answers an upgrade; the rest of aiohttp's class is not used.

    `_post_start` and `write_eof` are the two places where aiohttp would start reading and write a close frame itself;
    tests cover what they rely on. The answer is not written yet: it goes with the first frame, in one write.
    """

    _send_headers_immediately = False

    def __init__(self) -> None:
        super().__init__(compress=False)

    def take_answer(self) -> bytes:
        """Return the answer, after `prepare`; the caller must write it."""
        writer: Any = self._payload_writer
        answer, writer._headers_buf, writer._headers_written = writer._headers_buf, None, True
        return bytes(answer)

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        self._writer = writer
        request.protocol.keep_alive(False)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: the connection is no longer aiohttp's."""


def release(request: web.BaseRequest, successor: Any) -> tuple[asyncio.Transport, bytes]:
    """Give the connection of an answered upgrade to the protocol `successor`.

    Returns the transport, and what the client has sent after its request. ConnectionResetError if it has gone.
    """
    handler = request.protocol
    transport = handler.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    rest, handler._message_tail = handler._message_tail, b""
    transport.set_protocol(successor)
    if handler._buffer_paused:
        transport.resume_reading()
    # As if the client had gone, so that aiohttp forgets the connection; the transport is not its own any more.
    handler.transport = None
    handler.connection_lost(None)
    return transport, rest
