"""One RabbitMQ connection with one channel, opened again after every loss, for as long as its owner lives."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

from broker.interface import BrokerUnavailable
from runtime.logs import logger

log = logger("broker.rabbitmq")

CONNECT_TIMEOUT_S = 5.0
# A healed broker is found again within two of these.
RECONNECT_S = (0.1, 2.0)

# Whatever the driver raises when a connection is away or dies under a call.
LOST = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)
Prepare = Callable[[AbstractChannel], Awaitable[None]]


class Link:
    """One connection with one channel, opened again after every loss, prepared anew each time."""

    def __init__(self, url: str, name: str, prepare: Prepare) -> None:
        self._url = url
        self._name = name
        self._prepare = prepare
        self.usable = asyncio.Event()
        self.last_error = "not connected yet"

    async def keep_open(self) -> None:
        """Connect, prepare, wait for the loss; for ever."""
        pause = RECONNECT_S[0]
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    connection, lost = await self._open()
            except LOST as error:
                self._tell(f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(pause * 2, RECONNECT_S[1])
                continue
            pause = RECONNECT_S[0]
            self.usable.set()
            log.info("Connected to RabbitMQ.", connection=self._name)
            try:
                await lost.wait()
                self._tell("the connection was lost")
            finally:
                self.usable.clear()
                await _close(connection)

    async def _open(self) -> tuple[AbstractConnection, asyncio.Event]:
        lost = asyncio.Event()

        def on_close(*_: Any) -> None:
            self.usable.clear()
            lost.set()

        connection = await aio_pika.connect(
            self._url, timeout=CONNECT_TIMEOUT_S, client_properties={"connection_name": self._name}
        )
        try:
            connection.close_callbacks.add(on_close)
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            channel.close_callbacks.add(on_close)
            await self._prepare(channel)
        except BaseException:
            await _close(connection)
            raise
        return connection, lost

    def _tell(self, error: str) -> None:
        if error != self.last_error:
            log.warning("RabbitMQ is away; trying again.", connection=self._name, error=error)
        self.last_error = error

    def check(self) -> None:
        """Raise BrokerUnavailable, with the last error, while there is no connection."""
        if not self.usable.is_set():
            raise BrokerUnavailable(self.last_error)


async def _close(connection: AbstractConnection) -> None:
    # A broker that hangs does not answer the goodbye; the socket is dropped then.
    with suppress(*LOST):
        async with asyncio.timeout(1):
            await connection.close()


@asynccontextmanager
async def kept_open(url: str, name: str, prepare: Prepare) -> AsyncIterator[Link]:
    """Keep a connection open as long as the context lasts; `prepare` is called with each fresh channel."""
    link = Link(url, name, prepare)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(link.keep_open(), name=name)
        # A broker that is there is used from the first moment; one that is not does not hold the start.
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await link.usable.wait()
        try:
            yield link
        finally:
            task.cancel()
