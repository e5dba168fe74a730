"""DEVICE ↔ GATEWAY: one WebSocket, from its upgrade to its end. Knows frames; what is in them is its subclass's matter.

What goes out is written to the transport without a queue, and what a client leaves unread is bounded: while it does
not read, nothing more is taken from it, and beyond a time or a size it is cut off. Every end is the same: a close
frame, at most `CLOSE_TIMEOUT_S` for the client to close too, then the transport is aborted.
"""

import asyncio

from aiohttp import WSMsgType, web
from aiohttp.http import WebSocketError
from aiohttp.streams import EofStream

from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.socket.frames import NORMAL, UNSUPPORTED, close_frame, pong_frame
from gateway.socket.upgrade import Taker, Upgrade
from gateway.socket.write_coalescer import Outbox
from runtime.log_throttle import LogThrottle

CLOSE_TIMEOUT_S = 2.0
LAST_WORDS_S = 0.05
LOG_EVERY_S = 10.0
# What may go out to one client before it has to read some of it. A batch of 1,000 bad readings is answered with 100 kB.
UNREAD_BYTES = 64 * 1024


class Shared:
    """What all sockets of a gateway share."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.outbox = Outbox()
        self.log = LogThrottle(LOG_EVERY_S)


class WebSocket:
    """Text frames in both directions, without compression, within bounds."""

    __slots__ = ("_out", "_out_bytes", "_protocol", "_shared", "_upgrade", "_writer", "closing")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._out: list[bytes] = []
        self._out_bytes = 0
        # True once the end has begun: nothing is taken and nothing is sent any more.
        self.closing = False

    async def open(self, request: web.Request, taker: Taker) -> web.StreamResponse:
        """Answer the upgrade; HTTPBadRequest when the request is none."""
        upgrade = Upgrade(taker, self._shared.settings.max_frame_bytes)
        self._protocol = request.protocol
        self._writer = await upgrade.prepare(request)
        self._upgrade = upgrade
        return upgrade

    @property
    def backed_up(self) -> bool:
        """True while frames have to wait: for others before them, or until the client reads."""
        return self._upgrade.frames.waiting or self._unread

    @property
    def _unread(self) -> bool:
        return self._out_bytes > UNREAD_BYTES or self._protocol.writing_paused

    async def next_text(self) -> bytes | None:
        """Return the next text that `taker` left; None at the end of the socket. Answers pings, ends all else."""
        frames = self._upgrade.frames
        while True:
            if self._unread:
                await self._until_read()
            try:
                kind, data, _ = await frames.read()
            except WebSocketError as error:
                self.cut("frame", error.code)
                # Closed at once, the close frame might never be read: what is unread would reset the connection.
                await frames.until_gone()
                return None
            except (EofStream, ConnectionError):
                return None
            if kind is WSMsgType.CLOSE:
                self.end(NORMAL)
                return None
            if kind is WSMsgType.PING:
                self.write(pong_frame(data))
            elif kind is WSMsgType.BINARY:
                await asyncio.sleep(LAST_WORDS_S)  # the event that announced it may be being answered
                self.cut("binary", UNSUPPORTED)
            elif kind is WSMsgType.TEXT and not self.closing:
                return bytes(data)

    def write(self, frame: bytes) -> None:
        """Send a frame, in one write with all else that this turn of the loop has for the client."""
        if self.closing:
            return
        if not self._out:
            self._shared.outbox.add(self)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def flush(self) -> None:
        """Hand what was written to the transport."""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        transport = self._protocol.transport
        if transport is None or not data:
            return
        transport.write(data)
        if transport.get_write_buffer_size() > self._shared.settings.max_unread_bytes:
            self.abort("unread")

    async def _until_read(self) -> None:
        self.flush()
        try:
            async with asyncio.timeout(self._shared.settings.unread_timeout_seconds):
                await self._writer.drain()
        except TimeoutError:
            self.abort("unread")
        except ConnectionError:  # the next frame is the end
            pass

    def cut(self, reason: str, code: int, told: str = "") -> None:
        """End the socket because of something that the client did; `told` is the reason that the client is given."""
        if not self.closing:
            self._shared.metrics.cut.labels(reason).inc()
            self.end(code, told)

    def end(self, code: int, told: str = "") -> None:
        """Close: the client hears the code and the reason, and has a moment to close too."""
        if not self.closing:
            self.write(close_frame(code, told))
            self.closing = True
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.abort)

    def abort(self, reason: str = "") -> None:
        """Cut the transport off, whatever is still to be read."""
        self.closing = True
        if self._protocol.transport is not None:
            if reason:
                self._shared.metrics.cut.labels(reason).inc()
            self._protocol.transport.abort()
