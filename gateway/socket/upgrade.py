"""From an HTTP request to WebSocket frames: aiohttp's handshake and parser, without compression and with our queue."""

import asyncio
from typing import Any, Protocol

from aiohttp import web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp.http import WSMessage

# What waits for the plain path before the client is no longer read; twice as much at most.
WAITING_BYTES = 64 * 1024


class Taker(Protocol):
    """Sees each frame first, as the network delivers it."""

    def take(self, message: WSMessage) -> bool:
        """Return True when the frame needs nothing more. Must not raise: the parser would lose the exception."""


class Frames(WebSocketDataQueue):
    """The queue behind aiohttp's parser. What `taker` takes never enters it."""

    def __init__(self, request: web.BaseRequest, taker: Taker) -> None:
        super().__init__(request.protocol, WAITING_BYTES, loop=asyncio.get_running_loop())
        self._take = taker.take
        self._gone = False
        self._waiting: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """True while frames are in the queue."""
        return self._size > 0

    def feed_data(self, message: Any, size: int) -> None:
        """Take or queue one frame; called by the parser."""
        if not self._take(message):
            super().feed_data(message, size)

    def feed_eof(self) -> None:
        """Learn that the connection is gone; called by the parser."""
        super().feed_eof()
        self._gone = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def until_gone(self) -> None:
        """Return once the connection is gone; for when a broken frame has ended the reading."""
        if not self._gone:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting


class Upgrade(web.WebSocketResponse):
    """Answers an upgrade and gives its `frames`; the rest of what aiohttp's class does is not used.

    Text stays undecoded: most of it goes to a JSON decoder that checks UTF-8 itself. `_post_start` and `write_eof` are
    the two places where aiohttp would go on by itself; tests hold what they rely on.
    """

    frames: Frames

    def __init__(self, taker: Taker, max_frame_bytes: int) -> None:
        super().__init__(compress=False)
        self._taker = taker
        self._max_frame_bytes = max_frame_bytes

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: Any) -> None:
        self._writer = writer
        self.frames = Frames(request, self._taker)
        # The parser refuses what reaches its bound, we what is beyond it.
        self._parser = WebSocketReader(self.frames, self._max_frame_bytes + 1, compress=False, decode_text=False)
        request.protocol.set_parser(self._parser)
        request.protocol.keep_alive(False)

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing: the socket has said its last word."""
