"""Answers to what is no HTTP request, or none within bounds: problems too, and heard by who is still sending.

aiohttp answers these itself, before any application: 400 as plain text with a traceback in the log, and closes at
once, so that a client that still writes meets a reset instead of the answer. And what is left of a refused body it
would read for 10 s, however much comes; here there are bounds, and then the connection ends.
"""

import asyncio
import contextlib
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from runtime.http.problems import Problem
from runtime.logs import logger

log = logger("runtime.http.malformed")

# After a refusal, what still arrives is thrown away up to these bounds (RFC 9112, 9.6), then the connection ends.
LINGER_S = 2.0
LINGER_BYTES = 4 * 1024 * 1024
# The rest of a body up to this size is read, and the connection goes on.
READ_ON_BYTES = 64 * 1024


class Connection(web.RequestHandler):
    """One client's connection. Lines and headers above aiohttp's bound of 8,190 bytes are never collected."""

    __slots__ = ("_quiet", "_thrown_away")

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._quiet: asyncio.Event | None = None
        self._thrown_away = 0

    def data_received(self, data: bytes) -> None:
        """Take what arrives, or throw it away after a refusal."""
        if self._quiet is None:
            super().data_received(data)
            return
        self._thrown_away += len(data)
        if self._thrown_away > LINGER_BYTES:
            self._quiet.set()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; errors of aiohttp's own that no middleware has seen become problems."""
        if isinstance(resp, web.HTTPError):
            resp = Problem(resp.status).response()
        cut = not _worth_reading_on(request, resp)
        if cut:
            resp.force_close()
        sent = await super().finish_response(request, resp, start_time)
        if cut:
            await self._throw_away(request)
        return sent

    async def _throw_away(self, request: web.BaseRequest) -> None:
        self._quiet = asyncio.Event()
        request.content.feed_eof()  # nobody reads this body any more; a full buffer must not hold the connection
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._quiet.wait()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the wait for a client that has gone."""
        if self._quiet is not None:
            self._quiet.set()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the problem; nothing of it is logged above debug, so that nobody fills the log from outside."""
        log.debug("A request was refused before it reached a call.", status=status, error=str(exc)[:200])
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; no other can follow")
        response = _problem(status, exc).response()
        response.force_close()
        return response

    def _make_error_handler(self, err_info: Any) -> Any:
        async def refuse(request: web.BaseRequest) -> web.StreamResponse:
            response = self.handle_error(request, err_info.status, err_info.exc, err_info.message)
            await response.prepare(request)
            await response.write_eof()
            await self._throw_away(request)
            return response

        return refuse


class Connections(web.Server):
    """A server whose connections are `Connection`s."""

    def __call__(self) -> web.RequestHandler:
        """Return what speaks to one client."""
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application with these connections."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = Connections  # the application makes its server itself and offers no other way in
        return server


def _worth_reading_on(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Say whether the connection can serve the next request once the rest of this one's body has been read."""
    if request.content.is_eof():
        return True
    return response.status != 408 and 0 <= (request.content_length or -1) <= READ_ON_BYTES


def _problem(status: int, exc: BaseException | None) -> Problem:
    if not isinstance(exc, LineTooLong):
        detail = "This is not a request that HTTP/1.1 allows." if status == 400 else ""
        return Problem(status, detail)
    if isinstance(exc.args[0], bytearray):  # where aiohttp's parser gathers the address; a header is bytes
        return Problem(414, "The address is too long.")
    begins = exc.args[0]
    if begins[:6].lower() == b"bearer":
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return Problem(401, "The token is too long.", code="unauthorized", headers=challenge)
    return Problem(431, "A header is too long.")
