"""One RabbitMQ connection with one channel, reopened after every loss for as long as its owner lives."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.channel import Channel

from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable
from broker.rabbitmq.address import Host
from broker.rabbitmq.connector import SILENCE_TIMEOUT_S, Connector
from broker.rabbitmq.errors import is_cancelled, permission_fields, translate_error, translating_errors
from runtime.background import background
from runtime.logs import logger

log = logger("broker.rabbitmq.broker")

# For the steps after connecting (see `Connector`), the wait for new queues to become durable included.
PREPARE_TIMEOUT_S = 5.0
# Enough for a first connection that also waits for new queues to become durable; each further host may be silent.
START_TIMEOUT_S = 3.0
# First and longest pause between attempts. A broker that is back is found within two of these.
RECONNECT_S = (0.1, 2.0)
# Longer than every confirm timeout, so that a hung broker trips that first and the heartbeat second. Each side sends
# something every half of it. The driver waits for more than three of them, which is right where there is no other node.
HEARTBEAT_S = 10
SILENCE_CHECK_S = 1.0
# A connection that lasted this long was stable: its loss starts a new outage.
STABLE_AFTER_S = 5.0

# For a node that sets no bound on frames: the size that RabbitMQ itself proposes.
FRAME_MAX = 131_072

DriverChannel = Channel
Prepare = Callable[[AbstractConnection, AbstractChannel], Awaitable[None]]


class ReconnectingConnection:
    """One connection with one channel, reopened after every loss; each new one is passed to `prepare` before use."""

    def __init__(self, hosts: tuple[Host, ...], name: str, prepare: Prepare, *, confirms: bool) -> None:
        self._connector = Connector(hosts)
        self._name = name
        self._prepare = prepare
        self._confirms = confirms
        self._lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.usable = asyncio.Event()
        self._last_error: BrokerError = BrokerUnavailable("not connected yet")
        # The error logged last; a repeated failure is logged once, until a connection was stable.
        self._last_logged = ""
        self._lost_at_once = False

    async def run(self) -> None:
        """Connect, prepare and wait for the loss, in a loop until cancelled."""
        pause = RECONNECT_S[0]
        while True:
            try:
                with translating_errors():
                    connection = await self._open()
            except BrokerUnavailable as error:
                self._log_failure(error, "RabbitMQ is unreachable; retrying.")
            else:
                opened_at = time.monotonic()
                await self._wait_until_lost(connection)
                self._lost_at_once = time.monotonic() - opened_at < STABLE_AFTER_S
                if not self._lost_at_once:
                    pause, self._last_logged = RECONNECT_S[0], ""
                    continue
            # Also after a connection that was lost at once: the broker may refuse what it is used for.
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(pause * 2, RECONNECT_S[1])

    async def _wait_until_lost(self, connection: AbstractConnection) -> None:
        if not self._lost.done():
            self.usable.set()
        try:
            if is_cancelled():  # while it was opened, see `translating_errors`
                raise asyncio.CancelledError
            await asyncio.wait((self._lost,), timeout=STABLE_AFTER_S if self._lost_at_once else 0)
            if not self._lost.done():
                log.info("Connected to RabbitMQ.", connection=self._name)
            self._log_failure(await self._until_lost(), "The connection to RabbitMQ was lost; reconnecting.")
        finally:
            self.usable.clear()
            await close(connection)

    async def _until_lost(self) -> BrokerError:
        """Return why it was lost. A node that is silent for a whole heartbeat is left for another, if there is one.

        Such a node is paused, or packets to it are dropped: its connections stay open, and nothing is confirmed there.
        """
        found_silent = False
        while self._connector.has_another and not self._lost.done():
            await asyncio.wait((self._lost,), timeout=SILENCE_CHECK_S)
            silent = self._connector.silent_s() > HEARTBEAT_S
            # Twice in a row: if this process was paused, what arrived meanwhile is yet to be read.
            if silent and found_silent:
                self.reopen(f"silent for {HEARTBEAT_S:g} s")
            found_silent = silent
        return await self._lost

    @property
    def has_another(self) -> bool:
        """Whether there is another node to go to."""
        return self._connector.has_another

    def reopen(self, reason: str) -> None:
        """Drop this connection and open another, as when the broker has cancelled the consumer on it."""
        self.usable.clear()
        if not self._lost.done():
            self._lost.set_result(BrokerUnavailable(reason))

    async def _open(self) -> AbstractConnection:
        lost = self._lost = asyncio.get_running_loop().create_future()

        def on_close(_: object, error: BaseException | None) -> None:
            if not lost.done():
                lost.set_result(BrokerUnavailable("it was closed") if error is None else translate_error(error))
            if self._lost is lost:  # not a late callback of an earlier connection
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

    def _log_failure(self, error: BrokerError, event: str) -> None:
        self._last_error = error
        if str(error) == self._last_logged:
            return
        self._last_logged = str(error)
        if isinstance(error, BrokerRefused):
            event = "RabbitMQ refuses what this process needs; retrying."
        log.warning(event, connection=self._name, error=str(error), **permission_fields(error))

    def check(self) -> None:
        """Raise BrokerUnavailable with the last error while there is no usable connection."""
        if not self.usable.is_set():
            raise type(self._last_error)(str(self._last_error))


async def driver_channel(channel: AbstractChannel) -> DriverChannel:
    """Return the driver's channel beneath, whose tables a publisher fills itself; TypeError for another driver."""
    driver = await channel.get_underlay_channel()
    if not isinstance(driver, DriverChannel):
        raise TypeError(f"the driver's channel is a {type(driver).__name__}")
    return driver


async def asking_channel(connection: AbstractConnection) -> DriverChannel:
    """Open a channel that publishes nothing."""
    return await driver_channel(await connection.channel(publisher_confirms=False))


def frame_max(channel: DriverChannel) -> int:
    """Return the largest frame, in bytes, that this channel's connection takes."""
    return channel.connection.connection_tune.frame_max or FRAME_MAX


async def close(connection: AbstractConnection) -> None:
    """Close a connection; if the broker does not answer within a second, drop the socket."""
    with suppress(BrokerUnavailable), translating_errors():
        async with asyncio.timeout(1):
            await connection.close()


@asynccontextmanager
async def open_connection(
    hosts: tuple[Host, ...], name: str, prepare: Prepare, *, confirms: bool = False
) -> AsyncIterator[ReconnectingConnection]:
    """Keep a connection open for the duration of the context; `prepare` is called with each new one and its channel."""
    connection = ReconnectingConnection(hosts, name, prepare, confirms=confirms)
    async with background(connection.run(), name=name):
        # A reachable broker is usable from the start; an unreachable one must not block the start.
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S + SILENCE_TIMEOUT_S * (len(hosts) - 1)):
                await connection.usable.wait()
        yield connection
