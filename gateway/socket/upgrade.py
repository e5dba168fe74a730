"""From an HTTP request to WebSocket frames: aiohttp's handshake and parser, without compression and with our queue."""

import asyncio
from typing import Any, Protocol

from aiohttp import web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http import WSMessage

# Queued bytes for the plain path beyond which the client is no longer read; the queue holds at most twice as much.
QUEUE_BYTES = 64 * 1024


class FrameSink(Protocol):
    """Is offered each frame as the network delivers it."""

    def on_frame(self, message: WSMessage) -> bool:
        """Handle the frame and return True, or return False to have it queued.

        Must not raise: the parser would lose the exception.
        """


class FrameQueue(WebSocketDataQueue):
    """The queue behind aiohttp's parser. A frame goes to `sink` first, unless others are queued before it."""

    def __init__(self, request: web.BaseRequest, sink: FrameSink) -> None:
        super().__init__(request.protocol, QUEUE_BYTES, loop=asyncio.get_running_loop())
        self._on_frame = sink.on_frame
        self._closed = False
        self._closed_waiter: asyncio.Future[None] | None = None

    def feed_data(self, message: Any, size: int) -> None:
        """Hand one frame to the sink or queue it; called by the parser."""
        if self._size or not self._on_frame(message):
            super().feed_data(message, size)

    def feed_eof(self) -> None:
        """Note that the connection is closed; called by the parser."""
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
    """Answers an upgrade and gives access to its `frames`; the rest of aiohttp's class is not used.

    Text stays undecoded: most of it goes to a JSON decoder that checks UTF-8 itself. `_post_start` and `write_eof` are
    the two places where aiohttp would start reading and write a close frame itself; tests cover what they rely on.
    """

    frames: FrameQueue

    def __init__(self, sink: FrameSink, max_frame_bytes: int) -> None:
        super().__init__(compress=False)
        self._sink = sink
        self._max_frame_bytes = max_frame_bytes

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        self._writer = writer
        self.frames = FrameQueue(request, self._sink)
        # The parser refuses a frame that reaches its bound; we refuse one beyond it.
        self._parser = WebSocketReader(self.frames, self._max_frame_bytes + 1, compress=False, decode_text=False)
        request.protocol.set_parser(self._parser)
        request.protocol.keep_alive(False)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: the socket has sent its close frame itself."""
