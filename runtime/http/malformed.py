"""Problem responses to malformed or oversized HTTP, with a lingering close so that a client still sending reads them.

aiohttp handles these before any application: it sends 400 as plain text, logs a traceback and closes at once, so a
client that is still writing gets a reset instead of the response. The rest of a refused body it would read for 10 s,
however large; here that is bounded in size too, and then the connection is closed.
"""

import asyncio
import contextlib
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from runtime.http.problems import Problem
from runtime.logs import logger
from runtime.turns import Turns

log = logger("runtime.http.malformed")

# After a refusal, further input is discarded up to these bounds (RFC 9112, 9.6), then the connection is closed.
LINGER_S = 2.0
LINGER_BYTES = 4 * 1024 * 1024
# If the unread body is at most this long, it is read and the connection is kept.
KEEP_BYTES = 64 * 1024
# Connections that begin in one turn of the event loop. Each takes a gateway some 0.5 ms, in this turn and the next.
# With 32 what is connected waits twice as long.
CONNECTIONS_A_TURN = 8


class Connection(web.RequestHandler):
    """One client's connection. Lines and headers longer than aiohttp's 8,190 bytes are never buffered."""

    __slots__ = ("_discarded", "_has_begun", "_linger_over", "_turns", "waits")

    def __init__(self, turns: Turns, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._turns = turns
        self._has_begun = False
        # Whether it has sent something that has not had its turn.
        self.waits = False
        self._linger_over: asyncio.Event | None = None
        self._discarded = 0

    def data_received(self, data: bytes) -> None:
        """Process input, the first in its turn."""
        if self._has_begun:
            self.process(data)
        else:
            self._has_begun = True
            self._turns.take(self, data)

    @property
    def has_gone(self) -> bool:
        """True once it is closed."""
        return self.transport is None

    def hold(self) -> None:
        """Read nothing more until the first input has had its turn."""
        self.waits = True
        if self.transport is not None:
            self.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        self.waits = False
        if self.transport is not None:
            self.transport.resume_reading()

    def fail(self) -> None:
        """End the connection."""
        if self.transport is not None:
            self.transport.abort()

    def process(self, data: bytes) -> None:
        """Process input, or discard it after a refusal."""
        if self._linger_over is None:
            super().data_received(data)
            return
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self._linger_over.set()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; aiohttp's own errors, which no middleware has seen, become problems."""
        if isinstance(resp, web.HTTPError):
            resp = Problem(resp.status).response()
        cut = not _may_keep(request, resp)
        if cut:
            resp.force_close()
        sent = await super().finish_response(request, resp, start_time)
        if cut:
            await self._linger(request)
        return sent

    async def _linger(self, request: web.BaseRequest) -> None:
        self._linger_over = asyncio.Event()
        request.content.feed_eof()  # nothing reads this body any more; a full buffer must not block the connection
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._linger_over.wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop lingering for a client that has disconnected."""
        if self._linger_over is not None:
            self._linger_over.set()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the problem; logged at debug only, so that clients cannot flood the log."""
        log.debug("A request was refused before it reached a call.", status=status, error=str(exc)[:200])
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun; no other can follow")
        response = _problem(status, exc).response()
        response.force_close()
        return response

    def _make_error_handler(self, err_info: Any) -> Any:
        async def refuse(request: web.BaseRequest) -> web.StreamResponse:
            response = self.handle_error(request, err_info.status, err_info.exc, err_info.message)
            await response.prepare(request)
            await response.write_eof()
            await self._linger(request)
            return response

        return refuse


class Connections(web.Server):
    """A server that makes a `Connection` for each client."""

    turns: Turns

    def __call__(self) -> web.RequestHandler:
        """Return the handler of a new connection."""
        return Connection(self.turns, self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application with such connections."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = Connections  # the application creates its server itself and offers no hook
        assert isinstance(server, Connections)  # noqa: S101 - for the type checker
        server.turns = Turns(CONNECTIONS_A_TURN)
        return server


def _may_keep(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Return whether to read the rest of the body and keep the connection for the next request."""
    if request.content.is_eof():
        return True
    return response.status != 408 and 0 <= (request.content_length or -1) <= KEEP_BYTES


def _problem(status: int, exc: BaseException | None) -> Problem:
    if not isinstance(exc, LineTooLong):
        detail = "This is not a request that HTTP/1.1 allows." if status == 400 else ""
        return Problem(status, detail)
    if isinstance(
        exc.args[0], bytearray
    ):  # aiohttp's parser collects the request target in a bytearray, headers in bytes
        return Problem(414, "The address is too long.")
    begins = exc.args[0]
    if begins[:6].lower() == b"bearer":
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return Problem(401, "The token is too long.", code="unauthorized", headers=challenge)
    return Problem(431, "A header is too long.")
