"""One RabbitMQ connection with one channel, opened again after every loss, for as long as its owner lives."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel

from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable
from broker.rabbitmq.address import Host
from broker.rabbitmq.connector import SILENCE_S, Connector
from broker.rabbitmq.errors import is_cancelled, missing_right, translated, translating_errors
from runtime.background import background
from runtime.logs import logger

log = logger("broker.rabbitmq.broker")

# For what follows the connection itself, see rabbitmq_connect; also when fresh queues are waited for.
PREPARE_TIMEOUT_S = 5.0
# Enough for a first connection that also waits for fresh queues to settle; beside it, each further host may be silent.
START_TIMEOUT_S = 3.0
# A healed broker is found again within two of these.
RECONNECT_S = (0.1, 2.0)
# A connection that held for so long was a good one: the next outage is another.
LASTING_S = 5.0

# A node that sets no bound on frames gets the size that RabbitMQ itself proposes.
FRAME_MAX = 131_072

DriverChannel = Channel
Prepare = Callable[[AbstractConnection, AbstractChannel], Awaitable[None]]


class ReconnectingConnection:
    """One connection with one channel, opened again after every loss, prepared anew each time."""

    def __init__(self, hosts: tuple[Host, ...], name: str, prepare: Prepare, *, confirms: bool) -> None:
        self._connector = Connector(hosts)
        self._name = name
        self._prepare = prepare
        self._confirms = confirms
        self._lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.usable = asyncio.Event()
        self._last_error: BrokerError = BrokerUnavailable("not connected yet")
        # What was told last, until a connection has lasted: what fails in the same way again and again is told once.
        self._told = ""
        self._lost_at_once = False

    async def keep_open(self) -> None:
        """Connect, prepare, wait for the loss; for ever."""
        pause = RECONNECT_S[0]
        while True:
            try:
                with translating_errors():
                    connection = await self._open()
            except BrokerUnavailable as error:
                self._tell(error, "RabbitMQ is away; trying again.")
            else:
                opened_at = time.monotonic()
                await self._until_lost(connection)
                self._lost_at_once = time.monotonic() - opened_at < LASTING_S
                if not self._lost_at_once:
                    pause, self._told = RECONNECT_S[0], ""
                    continue
            # Also for a connection that was lost at once: what it is for may be refused.
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, RECONNECT_S[1])

    async def _until_lost(self, connection: AbstractConnection) -> None:
        if not self._lost.done():
            self.usable.set()
        try:
            if is_cancelled():  # as it was opened, see as_unavailable
                raise asyncio.CancelledError
            await asyncio.wait((self._lost,), timeout=LASTING_S if self._lost_at_once else 0)
            if not self._lost.done():
                log.info("Connected to RabbitMQ.", connection=self._name)
            self._tell(await self._lost, "The connection to RabbitMQ was lost; opening another.")
        finally:
            self.usable.clear()
            await close(connection)

    def reopen(self, why: str) -> None:
        """Give this connection up and open another: for when the broker has ended what it was for."""
        self.usable.clear()
        if not self._lost.done():
            self._lost.set_result(BrokerUnavailable(why))

    async def _open(self) -> AbstractConnection:
        lost = self._lost = asyncio.get_running_loop().create_future()

        def on_close(_: object, why: BaseException | None) -> None:
            if not lost.done():
                lost.set_result(BrokerUnavailable("it was closed") if why is None else translated(why))
            if self._lost is lost:  # not a late echo of an earlier connection
                self.usable.clear()

        connection = await self._connector.connect(self._name)
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                connection.close_callbacks.add(on_close)
                channel = await connection.channel(publisher_confirms=self._confirms, on_return_raises=self._confirms)
                channel.close_callbacks.add(on_close)
                await self._prepare(connection, channel)
        except BaseException:
            await close(connection)
            raise
        return connection

    def _tell(self, error: BrokerError, event: str) -> None:
        self._last_error = error
        if str(error) == self._told:
            return
        self._told = str(error)
        if isinstance(error, BrokerRefused):
            event = "RabbitMQ refuses what this process needs; trying again."
        log.warning(event, connection=self._name, error=str(error), **missing_right(error))

    def check(self) -> None:
        """Raise BrokerUnavailable, with the last error, while there is no connection."""
        if not self.usable.is_set():
            raise type(self._last_error)(str(self._last_error))


async def driver_channel(channel: AbstractChannel) -> DriverChannel:
    """Return the driver's own channel beneath, whose tables a publisher fills itself."""
    driver = await channel.get_underlay_channel()
    if not isinstance(driver, DriverChannel):
        raise TypeError(f"the driver's channel is a {type(driver).__name__}")
    return driver


def frame_max(channel: DriverChannel) -> int:
    """Return how many bytes a frame on this channel's connection may have."""
    return channel.connection.connection_tune.frame_max or FRAME_MAX


async def close(connection: AbstractConnection) -> None:
    """Close a connection; one whose broker hangs is dropped after a second."""
    # A broker that hangs does not answer the goodbye; the socket is dropped then.
    with suppress(BrokerUnavailable), translating_errors():
        async with asyncio.timeout(1):
            await connection.close()


@asynccontextmanager
async def keep_open(
    hosts: tuple[Host, ...], name: str, prepare: Prepare, *, confirms: bool = False
) -> AsyncIterator[ReconnectingConnection]:
    """Keep a connection open as long as the context lasts; `prepare` is called with each fresh one and its channel."""
    link = ReconnectingConnection(hosts, name, prepare, confirms=confirms)
    async with background(link.keep_open(), name=name):
        # A broker that is there is used from the first moment; one that is not does not hold the start.
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S + SILENCE_S * (len(hosts) - 1)):
                await link.usable.wait()
        yield link
