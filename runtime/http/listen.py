"""A listening HTTP server as a context manager: bound on entry, closed in order on exit."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from runtime.http.malformed import Connection, Runner
from runtime.process import CannotGoOnError

# aiohttp keeps an idle connection for 3,630 s by default; proxies in front use 60 to 75 s.
KEEPALIVE_S = 75.0
# How long a connection may take to send its first request's headers, against clients that open many and send slowly.
FIRST_REQUEST_S = 10.0
# How long open requests may continue after the listener has closed.
FINISH_S = 5.0
# Connections waiting to be accepted: beyond the usual 128, a storm of reconnects would lose the rest for a second.
BACKLOG = 4096


class CannotListenError(CannotGoOnError, OSError):
    """The address is not this machine's, or the port is in use."""


@asynccontextmanager
async def listen(
    app: web.Application,
    host: str,
    port: int,
    *,
    first_request_s: float = FIRST_REQUEST_S,
    listening: asyncio.Event | None = None,
) -> AsyncIterator[int]:
    """Serve `app` on host and port (0: any free one), yield the port; raise CannotListenError.

    `listening` is set once clients can connect: `ops_server` waits for it.
    """
    loop = asyncio.get_running_loop()
    runner = _Runner(
        app,
        access_log=None,
        auto_decompress=False,  # runtime/http/bodies.py decompresses, within bounds and to the end
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=FINISH_S,
    )
    await runner.setup()
    handlers = runner.server
    assert handlers is not None  # noqa: S101 - set by runner.setup()

    first_requests = _FirstRequestTimeout(first_request_s)

    def connected() -> RequestHandler:
        handler = handlers()
        assert isinstance(handler, Connection)  # noqa: S101 - for the type checker
        first_requests.add(handler)
        return handler

    try:
        try:
            server = await loop.create_server(connected, host, port, backlog=BACKLOG)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise CannotListenError(f"cannot listen on {host}:{port}: {why}; choose another port") from error
        if listening is not None:
            listening.set()
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await app.shutdown()
    finally:
        await runner.cleanup()


class _Runner(Runner):
    """Leaves the app's shutdown to `listen`: aiohttp calls it when it no longer reads from clients."""

    async def shutdown(self) -> None:
        """Do nothing."""


class _FirstRequestTimeout:
    """Aborts connections whose first request does not arrive in time; one timer for all, as one each takes 1 kB."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[float, Connection]] = deque()

    def add(self, handler: Connection) -> None:
        """Start the timeout of a connection."""
        if not self._waiting:
            self._loop.call_later(self._within_s, self._check)
        self._waiting.append((self._loop.time() + self._within_s, handler))

    def _check(self) -> None:
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            _, handler = self._waiting.popleft()
            if handler.transport is None or handler._request_count:
                continue
            if handler.waits:
                self._waiting.append((now + self._within_s, handler))
            else:
                handler.transport.abort()
        if self._waiting:
            self._loop.call_later(self._within_s / 20, self._check)
