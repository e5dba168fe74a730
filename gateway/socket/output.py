"""GATEWAY → DEVICE: what leaves a WebSocket, and its close.

Output goes to the transport without a queue of its own, and what a client leaves unread is bounded: while the client
does not read, nothing more is read from it, and beyond a time or a size the connection is aborted. Every close is the
same: a close frame, at most `CLOSE_TIMEOUT_S` for the client to close too, then the transport is aborted.
"""

import asyncio
from typing import Protocol

from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.socket.frames import close_frame
from runtime.log_throttle import LogThrottle
from runtime.turns import Turns

CLOSE_TIMEOUT_S = 2.0
LOG_EVERY_S = 10.0
# Unflushed output to one client beyond which it is no longer read. 1,000 bad readings are answered with 100 kB.
BACKPRESSURE_BYTES = 64 * 1024
# Large input that is read in one turn of the event loop, in bytes: some 1,000 readings, which take 1 to 2 ms.
INPUT_A_TURN = 128 * 1024


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
        self.turns = Turns(INPUT_A_TURN)


class SocketOutput:
    """The frames to one client, within bounds, and the end of its connection."""

    __slots__ = ("_context", "_drained", "_lost", "_out", "_out_bytes", "_transport", "_writing_paused", "closing")

    def __init__(self, context: SocketContext) -> None:
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        # True once closing has begun: no frame is accepted or sent any more.
        self.closing = False

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Note that the client has read."""
        self._writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    @property
    def has_backpressure(self) -> bool:
        """True while the client has to read before it is read from again."""
        return self._out_bytes > BACKPRESSURE_BYTES or self._writing_paused

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
