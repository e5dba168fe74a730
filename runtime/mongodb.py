"""A MongoDB client as a context manager: the only file that names Motor (docs/decisions/0004 says until when)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pymongo
from motor.frameworks.asyncio import max_workers, run_on_executor
from motor.motor_asyncio import AsyncIOMotorClient

Result = TypeVar("Result")

# All clients of a process share this thread pool: calls beyond its size queue together, whatever they are for.
THREADS: int = max_workers
# A closing client ends its sessions on the server; if the server is away, that would block the whole process for 30 s.
CLOSE_TIMEOUT_S = 1.0


async def in_driver_thread(calls: Callable[[], Result]) -> Result:
    """Return what calls of the synchronous driver return, made in one of the threads of all clients.

    A collection, a database or a session has the synchronous one in `delegate`.
    """
    return await run_on_executor(asyncio.get_running_loop(), calls)  # type: ignore[no-any-return,no-untyped-call]


@asynccontextmanager
async def mongodb_client(url: str, *, name: str, timeout_s: float) -> AsyncIterator[Any]:
    """Open a client that connects on first use and reconnects after every loss; the server shows it as `name`.

    `timeout_s` bounds each call; for a cursor it bounds all its batches together.
    """
    client: Any = AsyncIOMotorClient(url, tz_aware=True, appname=name, timeoutMS=int(timeout_s * 1000), connect=False)
    try:
        yield client
    finally:
        with pymongo.timeout(CLOSE_TIMEOUT_S):
            client.close()
