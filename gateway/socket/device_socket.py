"""DEVICE → its session: the Engine.IO and Socket.IO packets that a socket accepts, and their deadlines.

The fast path sees readings first, as the network delivers them. Everything else goes, one packet after the other, to
python-socketio, if devices of this protocol send it: one CONNECT within a deadline, events, pongs, the close. An
acknowledgement of an event that this gateway has sent goes to `client_acks.py`. Any other packet is counted as
malformed, and a socket that keeps sending them is closed. A second CONNECT counts as malformed too: the official client
sends one when its `auth` function took longer than a socket lived, and answers on the next one.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway.session import Session
from gateway.socket.client_acks import ClientAcks, OnAck
from gateway.socket.frames import INTERNAL_ERROR, INVALID_PAYLOAD, NORMAL, POLICY_VIOLATION, TRY_AGAIN_LATER, text_frame
from gateway.socket.output import SocketContext
from gateway.socket.websocket import WebSocket
from runtime.logs import logger

log = logger("gateway.socket.device_socket")

# A few may be an accident or a client of another version; more are not a device of this protocol.
MAX_MALFORMED = 10
# The reason in the close frame of a socket whose CONNECT did not arrive in time.
CONNECT_TIMEOUT = "connect_timeout"

_CONNECT = re.compile(r"40(/[^,{]*)?.*", re.DOTALL)
_OTHER_NAMESPACE = re.compile(r"4[25](?:\d+-)?/[^,]+,")
_NO_CREDENTIALS = b'44{"message":"the payload of CONNECT is not JSON","data":{"code":"unauthorized"}}'
_PING_FRAME = text_frame(b"2")
_PONG = b"3"

HandleFast = Callable[[WebSocket, Session, bytes], bool]
"""Handles a text frame's event and returns True, or returns False: the frame is for the plain path."""


class DeviceSocket(WebSocket):
    """One client, as Engine.IO keeps its sockets. `session` and `handle_fast` are set when its CONNECT is accepted.

    Times are of the event loop's clock, in seconds.
    """

    # Read by Engine.IO: there is no other transport from which this one could have been upgraded.
    connected = True
    upgraded = True
    __slots__ = (
        "_client_acks",
        "_connect_by",
        "_connect_received",
        "_engine",
        "_malformed",
        "_ping_at",
        "_pong_by",
        "closed",
        "handle_fast",
        "session",
        "sid",
    )

    def __init__(self, context: SocketContext, engine: Any, sid: str, now: float) -> None:
        super().__init__(context)
        self.sid = sid
        self.session: Session | None = None
        self.handle_fast: HandleFast | None = None
        self.closed = False
        self._engine = engine
        self._connect_received = False
        # Made with the first event that wants an acknowledgement.
        self._client_acks: ClientAcks | None = None
        self._malformed = 0
        self._connect_by = now + context.settings.connect_timeout_seconds
        self._ping_at: float = now + engine.ping_interval
        self._pong_by: float | None = None

    async def serve(
        self, request: web.Request, hello: dict[str, Any], on_end: Callable[[], None]
    ) -> web.StreamResponse:
        """Answer the upgrade and begin; `on_end` is called when the socket has ended, unless this raises.

        HTTPBadRequest when the request is not a proper upgrade, ConnectionError when the client has gone.
        """
        await self._engine.handlers["connect"](self.sid, {"aiohttp.request": request})
        return await self.open(request, text_frame(b"0" + msgspec.json.encode(hello)), on_end)

    def on_text(self, text: bytes) -> bool:
        """Handle at once what needs no waiting: readings and pongs; while closing, drop everything."""
        if self.closing:
            return True
        if self.session is None or self.has_backpressure:
            return False
        try:
            return self._try_fast_path(text)
        except Exception as error:  # noqa: BLE001 - a bug; the parser would swallow it
            self._on_error(error)
            return True

    async def on_queued_text(self, text: bytes) -> None:
        """Handle any other packet, one after the other."""
        if not text:
            return
        try:
            if not self._try_fast_path(text):
                await self._on_plain_packet(str(text, "utf-8"))
        except UnicodeDecodeError:
            self.close_for("no_text", INVALID_PAYLOAD)
        except ValueError:  # raised by python-socketio for a packet that it cannot parse
            self._on_malformed()
        except Exception as error:  # noqa: BLE001 - a bug must not disturb other sockets
            self._on_error(error)

    async def on_closed(self) -> None:
        """End the session."""
        self.closed = True
        if self._client_acks is not None:
            self._client_acks.close()
        await self._engine.handlers["disconnect"](self.sid, self._engine.reason.TRANSPORT_CLOSE)

    def _try_fast_path(self, text: bytes) -> bool:
        if self.handle_fast is not None and self.session is not None and self.handle_fast(self, self.session, text):
            return True
        if text == _PONG and self._pong_by is not None:
            self._pong_by = None
            return True
        return False

    def check_deadlines(self, now: float) -> float:
        """Send a ping, or close, when it is time to; return when to call this again."""
        if not self.closing:
            if self.session is None and now > self._connect_by:
                self.close_for("no_connect", TRY_AGAIN_LATER, CONNECT_TIMEOUT)
            elif self._pong_by is not None:
                if now > self._pong_by:
                    self.abort("silent")
            elif now >= self._ping_at:
                self._ping_at = now + self._engine.ping_interval
                self._pong_by = now + self._engine.ping_timeout
                self.write(_PING_FRAME)
        return self.next_deadline

    @property
    def next_deadline(self) -> float:
        """When something is due at the earliest; a pong, or the CONNECT, may have moved it by then."""
        # A pong that has come by then makes a ping due, also where pings are closer together than a pong may be late.
        due = self._ping_at if self._pong_by is None else min(self._pong_by, self._ping_at)
        return due if self.session is not None else min(due, self._connect_by)

    def emit(self, event: bytes, on_ack: OnAck) -> int:
        """Send an event, a JSON array of its name and payload; return the id of its acknowledgement."""
        if self._client_acks is None:
            self._client_acks = ClientAcks()
        number = self._client_acks.expect(on_ack)
        self.write(text_frame(b"42%d%b" % (number, event)))
        return number

    def give_up_ack(self, number: int) -> None:
        """Wait no longer for an acknowledgement; `on_ack` is not called."""
        if self._client_acks is not None:
            self._client_acks.give_up(number)

    async def send(self, packet: Any) -> None:
        """Send a packet; called by Engine.IO."""
        self.write(text_frame(packet.encode().encode()))

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """Close; called by Engine.IO."""
        self.start_closing(NORMAL)

    async def _on_plain_packet(self, text: str) -> None:
        kind = text[:2]
        if kind == "40":
            await self._on_connect(text)
        elif kind in ("42", "45") and self.session is not None and not _OTHER_NAMESPACE.match(text):
            await self._delegate(text)
        elif kind == "43" and self._client_acks is not None and self._client_acks.receive(text):
            pass
        elif text in ("1", "41"):
            self.start_closing(NORMAL)
        else:
            self._on_malformed()

    async def _on_connect(self, text: str) -> None:
        found = _CONNECT.match(text)
        namespace = (found and found[1]) or "/"
        if namespace != "/":
            self.write(text_frame(f'44{namespace},{{"message":"Invalid namespace"}}'.encode()))
            self.close_for("namespace", POLICY_VIOLATION)
        elif self._connect_received:
            self._on_malformed()
        else:
            self._connect_received = True
            try:
                await self._delegate(text)
            except ValueError:  # what stands behind the type is no JSON, and so no token
                self.write(text_frame(_NO_CREDENTIALS))
                raise
            finally:
                if self.session is None:
                    self.close_for("refused", POLICY_VIOLATION)

    async def _delegate(self, text: str) -> None:
        await self._engine.handlers["message"](self.sid, text[1:])

    def _on_malformed(self) -> None:
        self._malformed += 1
        self._context.metrics.malformed.inc()
        if self._malformed > MAX_MALFORMED and not self.closing:
            if (suppressed := self._context.log_throttle.should_emit()) is not None:
                device = self.session and self.session.device
                log.warning("A client keeps sending malformed packets.", device=device, suppressed=suppressed)
            self.close_for("malformed", POLICY_VIOLATION)

    def _on_error(self, error: Exception) -> None:
        self._context.metrics.faults.inc()
        if (suppressed := self._context.log_throttle.should_emit()) is not None:
            log.error("A packet could not be handled.", suppressed=suppressed, exc_info=error)
        self.close_for("fault", INTERNAL_ERROR)
