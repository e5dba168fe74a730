"""A client of MongoDB, as a context: the only file that names the driver (docs/decisions/0004 says until when)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pymongo
from motor.frameworks.asyncio import max_workers
from motor.motor_asyncio import AsyncIOMotorClient

# All clients of a process share these: more calls at once wait in one line, whoever they are for.
THREADS: int = max_workers
# A client that closes ends its sessions on the server; for one that is away it would hold the whole process for 30 s.
GOODBYE_S = 1.0


@asynccontextmanager
async def mongodb_client(url: str, *, name: str, timeout_s: float) -> AsyncIterator[Any]:
    """Open a client, which connects when it is first used and again after every loss. `name` is what the server shows.

    Each call may take `timeout_s`, a cursor for all that it ever gives.
    """
    client: Any = AsyncIOMotorClient(url, tz_aware=True, appname=name, timeoutMS=int(timeout_s * 1000), connect=False)
    try:
        yield client
    finally:
        with pymongo.timeout(GOODBYE_S):
            client.close()
