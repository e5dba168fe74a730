"""Write numbers into a store, as the product does, and say on standard output which were accepted.

`s N` before a number is sent, `a N SECONDS` once it is acknowledged. An error promises nothing: the next number follows
after a pause. Run as a process of its own, as the embedded stores are killed with it.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiomysql
from pymongo.errors import PyMongoError

from broker.connect import open_broker
from broker.interface import BrokerError
from broker.message import Message
from broker.topology import READINGS_EXCHANGE
from device.buffer import Buffer
from device.errors import BufferFailed
from persister.collections import SAFE
from runtime.logs import configure_logs
from runtime.mongodb import mongodb_client

WRITERS = 8
PAUSE_S = 0.1
DATABASE, COLLECTION = "power", "numbers"
ERRORS = (BrokerError, BufferFailed, PyMongoError, aiomysql.MySQLError, OSError, TimeoutError)
Write = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def to_broker(url: str) -> AsyncIterator[Write]:
    async with open_broker(url) as broker, broker.publisher(READINGS_EXCHANGE) as publisher:

        async def write(number: int) -> None:
            await publisher.publish(Message(b"%d" % number), READINGS_EXCHANGE)

        yield write


@asynccontextmanager
async def to_mongodb(url: str) -> AsyncIterator[Write]:
    async with mongodb_client(url, name="power", timeout_s=5) as client:
        numbers = client[DATABASE].get_collection(COLLECTION, write_concern=SAFE)

        async def write(number: int) -> None:
            await numbers.insert_one({"_id": number})

        yield write


@asynccontextmanager
async def to_mariadb(url: str) -> AsyncIterator[Write]:
    at = urlsplit(url)
    login = {"host": at.hostname, "port": at.port, "user": at.username, "password": at.password, "db": at.path[1:]}
    async with aiomysql.create_pool(minsize=1, maxsize=WRITERS, autocommit=True, **login) as pool:

        async def write(number: int) -> None:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(f"INSERT INTO {COLLECTION} VALUES (%s)", (number,))  # noqa: S608 - a constant

        yield write


@asynccontextmanager
async def to_buffer(url: str) -> AsyncIterator[Write]:
    buffer = Buffer(Path(url))
    turn = asyncio.Lock()

    async def write(number: int) -> None:
        async with turn:
            buffer.append({"value": number})
            await asyncio.to_thread(buffer.sync)

    yield write


@asynccontextmanager
async def to_trusting_buffer(url: str) -> AsyncIterator[Write]:
    """Take a failed sync for done: what a scenario has to find out."""
    async with to_buffer(url) as write:

        async def trusting(number: int) -> None:
            with suppress(BufferFailed):
                await write(number)

        yield trusting


STORES = {
    "broker": to_broker,
    "mongodb": to_mongodb,
    "mariadb": to_mariadb,
    "buffer": to_buffer,
    "trusting": to_trusting_buffer,
}


async def run(store: str, url: str, first: int) -> None:
    following = first

    async def one(write: Write) -> None:
        nonlocal following
        while True:
            number, following = following, following + 1
            print(f"s {number}", flush=True)
            began = time.monotonic()
            try:
                await write(number)
            except ERRORS as error:
                print(error, file=sys.stderr)
                await asyncio.sleep(PAUSE_S)
            else:
                print(f"a {number} {time.monotonic() - began:.6f}", flush=True)

    async with STORES[store](url) as write, asyncio.TaskGroup() as tasks:
        for _ in range(WRITERS):
            tasks.create_task(one(write))


if __name__ == "__main__":
    configure_logs("critical", "console")  # logs would stand between the lines of standard output
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
