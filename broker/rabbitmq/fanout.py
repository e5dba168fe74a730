"""Broadcasting on RabbitMQ: transient and unconfirmed, each subscriber with a bounded queue of its own.

A subscriber's queue is exclusive and deleted with its connection; a new connection declares a new one, so broadcasts
during an outage are lost.
"""

import asyncio
from collections import deque
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage

from broker.headers import SCHEMA_HEADER
from broker.interface import BrokerRefused
from broker.message import SCHEMA, Message
from broker.rabbitmq.connection import DriverChannel, ReconnectingConnection, driver_channel, frame_max
from broker.rabbitmq.errors import translate_error
from broker.rabbitmq.frames import TRANSIENT, channel_frame, publish_frames
from broker.rabbitmq.topology import NameProbe, ensure_exchange
from broker.topology import Exchange

# Bounds of the buffer in front of the socket; beyond them the oldest payloads are dropped.
MAX_BUFFERED = 10_000
MAX_BUFFERED_BYTES = 16 * 1024 * 1024
# Payloads written at once, as one item of the driver's write queue.
MAX_WRITE_BYTES = 256 * 1024


class RabbitMQBroadcaster:
    """Broadcasts through a bounded buffer, which `run` writes to the socket."""

    connection: ReconnectingConnection

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._probe = NameProbe()
        self._channel: DriverChannel | None = None
        self._buffer: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._not_empty = asyncio.Event()
        # Resolved when the socket has taken the last write, or is lost.
        self._drained: asyncio.Future[None] | None = None
        # Resolved, and replaced, at the next refusal.
        self._refused: asyncio.Future[BrokerRefused] = asyncio.get_running_loop().create_future()
        self.dropped = 0

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Declare the exchange over a new connection and drop what was buffered for the earlier one: it is outdated."""
        await ensure_exchange(connection, self._exchange, self._probe)
        self.dropped += len(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        driver = self._channel = await driver_channel(channel)
        driver.closing.add_done_callback(self._release)

    def broadcast(self, payload: bytes) -> None:
        """Buffer one payload, or drop it while there is no connection; beyond the bounds, drop the oldest."""
        if not self.connection.usable.is_set():
            self.dropped += 1
            return
        self._buffer.append(payload)
        self._buffered_bytes += len(payload)
        while len(self._buffer) > MAX_BUFFERED or self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._buffered_bytes -= len(self._buffer.popleft())
            self.dropped += 1
        self._not_empty.set()

    async def run(self) -> None:
        """Write the buffer to the socket; a connection that is lost or takes nothing blocks only this task."""
        while True:
            await self._not_empty.wait()
            await self.connection.usable.wait()
            channel = self._channel
            if channel is None or channel.is_closed or not self._buffer:
                self._not_empty.clear()
                continue
            self._drained = asyncio.get_running_loop().create_future()
            await channel.write_queue.put(channel_frame(self._next_write(channel), self._drained))
            await self._drained

    async def until_refused(self) -> BrokerRefused:
        """Wait until the broker closes a channel because of what was sent on it."""
        return await asyncio.shield(self._refused)

    def _release(self, closed: "asyncio.Future[object]") -> None:
        error = None if closed.cancelled() else closed.exception()  # marks it as retrieved; the connection logs it
        if error is not None and isinstance(refused := translate_error(error), BrokerRefused):
            self._refused.set_result(refused)
            self._refused = asyncio.get_running_loop().create_future()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _next_write(self, channel: DriverChannel) -> bytes:
        frames = []
        size, max_frame = 0, frame_max(channel)
        while self._buffer and size < MAX_WRITE_BYTES:
            payload = self._buffer.popleft()
            self._buffered_bytes -= len(payload)
            size += len(payload)
            message = Message(payload, {SCHEMA_HEADER: SCHEMA}, "")
            frames.append(
                publish_frames(
                    message, self._exchange, channel.number, max_frame, delivery_mode=TRANSIENT, mandatory=False
                )
            )
        return b"".join(frames)


class RabbitMQSubscriber:
    """Receives from one fanout exchange through a queue of its own, bounded at the broker and here."""

    connection: ReconnectingConnection

    def __init__(self, exchange: Exchange, bound: int) -> None:
        self._exchange = exchange
        self._probe = NameProbe()
        self._bound = bound
        self._buffer: deque[bytes] = deque()
        self._not_empty = asyncio.Event()
        self.dropped = 0

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Declare the exchange and a new queue, and consume without acknowledgements."""
        await ensure_exchange(connection, self._exchange, self._probe)
        queue = await channel.declare_queue(
            # Named after its exchange, so that a pattern can grant a subscriber's permissions.
            f"{self._exchange.name}.{uuid4().hex}",
            exclusive=True,
            auto_delete=True,
            arguments={"x-max-length": self._bound, "x-overflow": "drop-head"},
        )
        await queue.bind(self._exchange.name, self._exchange.routing_key)
        driver = await driver_channel(channel)
        driver.on_consumer_cancel_callbacks.add(
            lambda _: self.connection.reopen("the broker has cancelled this consumer")
        )
        await driver.basic_consume(queue.name, self._on_message, no_ack=True)

    async def _on_message(self, incoming: DeliveredMessage) -> None:
        headers = incoming.header.properties.headers or {}
        if headers.get(SCHEMA_HEADER) != SCHEMA:  # from a newer version, during a rolling upgrade
            self.dropped += 1
            return
        if len(self._buffer) >= self._bound:
            self._buffer.popleft()
            self.dropped += 1
        self._buffer.append(bytes(incoming.body))
        self._not_empty.set()

    def __aiter__(self) -> "RabbitMQSubscriber":
        return self

    async def __anext__(self) -> bytes:
        while not self._buffer:
            self._not_empty.clear()
            await self._not_empty.wait()
        return self._buffer.popleft()

    async def check(self) -> None:
        """Raise BrokerUnavailable while there is no connection."""
        self.connection.check()
