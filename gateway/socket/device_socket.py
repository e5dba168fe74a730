"""DEVICE → its session: which packets of Engine.IO and Socket.IO a socket takes, and by when.

The fast lane sees readings first, as the network delivers them. Everything else goes, one packet after the other, to
python-socketio, if it is something that a device of this protocol sends: one CONNECT within a deadline, events, pongs,
the end. The rest is counted, and a socket that goes on with it is closed. A second CONNECT is among the rest: the
official client sends one when its `auth` function took longer than a socket lived, and answers on the next one.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from aiohttp.http import WSMessage

from gateway.session import Session
from gateway.socket.frames import FAULT, NO_TEXT, NORMAL, POLICY, TRY_AGAIN_LATER, text_frame
from gateway.socket.websocket import Shared, WebSocket
from runtime.logs import logger

log = logger("gateway.socket.device_socket")

# One is an accident, or a client of another version; more is a stranger.
MAX_MALFORMED = 10
# The reason that a client is given whose CONNECT did not come in time.
CONNECT_TIMEOUT = "connect_timeout"

_CONNECT = re.compile(r"40(/[^,{]*)?.*", re.DOTALL)
_ELSEWHERE = re.compile(r"4[25](?:\d+-)?/[^,]+,")
_TEXT, _CLOSE = WSMsgType.TEXT, WSMsgType.CLOSE
_PING_FRAME = text_frame(b"2")
_PONG = b"3"

Lane = Callable[[WebSocket, Session, bytes], bool]


class DeviceSocket(WebSocket):
    """One client, as Engine.IO holds its sockets. `session` (and `lane`) are set when its CONNECT is accepted.

    Times are of the event loop's clock, in seconds.
    """

    # What Engine.IO asks: there is no other transport that this one could have been upgraded from.
    connected = upgraded = True
    __slots__ = (
        "_asked",
        "_connect_by",
        "_engine",
        "_malformed",
        "_ping_at",
        "_pong_by",
        "closed",
        "lane",
        "session",
        "sid",
    )

    def __init__(self, shared: Shared, engine: Any, sid: str, now: float) -> None:
        super().__init__(shared)
        self.sid = sid
        self.session: Session | None = None
        self.lane: Lane | None = None
        self.closed = False
        self._engine = engine
        self._asked = False
        self._malformed = 0
        self._connect_by = now + shared.settings.connect_timeout_seconds
        self._ping_at = now + engine.ping_interval
        self._pong_by: float | None = None

    async def serve(self, request: web.Request, hello: dict[str, Any]) -> web.StreamResponse:
        """Run the socket to its end. HTTPBadRequest when the request is no proper upgrade."""
        response = await self.open(request, self)
        self.write(text_frame(b"0" + msgspec.json.encode(hello)))
        await self._engine.handlers["connect"](self.sid, {"aiohttp.request": request})
        try:
            while (text := await self.next_text()) is not None:
                await self._take_in_turn(text)
                # Let others have their turn: what waits in the queue is read without a pause.
                await asyncio.sleep(0)
        finally:
            self.flush()
            self.closing = self.closed = True
            await self._engine.handlers["disconnect"](self.sid, self._engine.reason.TRANSPORT_CLOSE)
        return response

    def take(self, message: WSMessage) -> bool:
        """Take what needs no waiting: readings, pongs, and all that comes after the end has begun."""
        kind = message[0]
        if kind is not _TEXT or self.closing:
            return self.closing and kind is not _CLOSE
        if self.session is None or self.backed_up:
            return False
        try:
            return self._take_at_once(message[1])
        except Exception as error:  # noqa: BLE001 - a fault of ours; the parser would swallow it
            self._fail(error)
            return True

    def _take_at_once(self, text: bytes) -> bool:
        if self.lane is not None and self.session is not None and self.lane(self, self.session, text):
            return True
        if text == _PONG and self._pong_by is not None:
            self._pong_by = None
            return True
        return False

    def look(self, now: float) -> None:
        """Keep the deadlines; called for every socket about twice a second."""
        if self.closing:
            return
        if self.session is None and now > self._connect_by:
            self.cut("no_connect", TRY_AGAIN_LATER, CONNECT_TIMEOUT)
        elif self._pong_by is not None:
            if now > self._pong_by:
                self.abort("silent")
        elif now >= self._ping_at:
            self._ping_at = now + self._engine.ping_interval
            self._pong_by = now + self._engine.ping_timeout
            self.write(_PING_FRAME)

    async def send(self, packet: Any) -> None:
        """Send a packet; called by Engine.IO."""
        self.write(text_frame(packet.encode().encode()))

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """Close; called by Engine.IO."""
        self.end(NORMAL)

    async def _take_in_turn(self, raw: bytes) -> None:
        try:
            if not self._take_at_once(raw):
                await self._take_plainly(str(raw, "utf-8"))
        except UnicodeDecodeError:
            self.cut("no_text", NO_TEXT)
        except ValueError:  # what python-socketio raises for a packet that it cannot take apart
            self._take_malformed()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not disturb others
            self._fail(error)

    async def _take_plainly(self, text: str) -> None:
        kind = text[:2]
        if kind == "40":
            await self._take_connect(text)
        elif kind in ("42", "45") and self.session is not None and not _ELSEWHERE.match(text):
            await self._hand_on(text)
        elif text in ("1", "41"):
            self.end(NORMAL)
        else:
            self._take_malformed()

    def _fail(self, error: Exception) -> None:
        self._shared.metrics.faults.inc()
        if (left_out := self._shared.log.due()) is not None:
            log.error("A packet could not be handled.", left_out=left_out, exc_info=error)
        self.cut("fault", FAULT)

    async def _take_connect(self, text: str) -> None:
        found = _CONNECT.match(text)
        namespace = (found and found[1]) or "/"
        if namespace != "/":
            self.write(text_frame(f'44{namespace},{{"message":"Invalid namespace"}}'.encode()))
            self.cut("namespace", POLICY)
        elif self._asked:
            self._take_malformed()
        else:
            self._asked = True
            try:
                await self._hand_on(text)
            finally:
                if self.session is None:
                    self.cut("refused", POLICY)

    async def _hand_on(self, text: str) -> None:
        await self._engine.handlers["message"](self.sid, text[1:])

    def _take_malformed(self) -> None:
        self._malformed += 1
        self._shared.metrics.malformed.inc()
        if self._malformed > MAX_MALFORMED and not self.closing:
            if (left_out := self._shared.log.due()) is not None:
                device = self.session and self.session.device
                log.warning("A client sends what no device sends.", device=device, left_out=left_out)
            self.cut("malformed", POLICY)
