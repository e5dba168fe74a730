"""A listening HTTP server as a context: bound when it is entered, closed in order when it is left."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from runtime.refusals import Runner

# aiohttp keeps an idle connection for 3,630 s by default; proxies in front use 60 to 75 s.
KEEPALIVE_S = 75.0
# How long open requests may go on after the listener closed, before they are cut.
FINISH_S = 5.0


@asynccontextmanager
async def listen(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve `app` on host and port (0: any free one) and give the port; OSError when the port is taken."""
    runner = Runner(
        app,
        access_log=None,
        auto_decompress=False,  # runtime/bodies.py unpacks, within bounds and to the end
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=FINISH_S,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(f"cannot listen on {host}:{port}: {why}; choose another port") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
