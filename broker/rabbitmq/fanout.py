"""Announcing and listening on RabbitMQ: transient, unconfirmed, each listener with a bounded queue of its own.

A listener's queue is exclusive and goes with its connection; a new connection brings a new one, so what was announced
during an outage was announced to nobody.
"""

import asyncio
from collections import deque
from uuid import uuid4

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage

from broker.message import SCHEMA, SCHEMA_HEADER, Message
from broker.rabbitmq.connection import DriverChannel, ReconnectingConnection, driver_channel, frame_max
from broker.rabbitmq.frames import TRANSIENT, publish_frames, written
from broker.rabbitmq.topology import Questions, ensure_exchange
from broker.topology import Exchange

# What waits for the socket at most; beyond it the oldest are dropped.
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 16 * 1024 * 1024
# Announcements written at once: one frame of the driver, one write.
MAX_TOGETHER_BYTES = 256 * 1024


class RabbitMQBroadcaster:
    """Announces from a bounded buffer, which `run` empties into the socket."""

    link: ReconnectingConnection

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._questions = Questions()
        self._channel: DriverChannel | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._some = asyncio.Event()
        # Resolved when the socket has taken what was written last, or is lost.
        self._drained: asyncio.Future[None] | None = None
        self.dropped = 0

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Declare the exchange over a fresh connection; what waited for the earlier one is old by now."""
        await ensure_exchange(connection, self._exchange, self._questions)
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        driver = self._channel = await driver_channel(channel)
        driver.closing.add_done_callback(self._release)

    def broadcast(self, payload: bytes) -> None:
        """Buffer one payload, or drop it while there is no connection; when too much waits, drop the oldest."""
        if not self.link.usable.is_set():
            self.dropped += 1
            return
        self._waiting.append(payload)
        self._waiting_bytes += len(payload)
        while len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.dropped += 1
        self._some.set()

    async def run(self) -> None:
        """Write what waits; a connection that is lost or takes nothing holds only this task."""
        while True:
            await self._some.wait()
            await self.link.usable.wait()
            channel = self._channel
            if channel is None or channel.is_closed or not self._waiting:
                self._some.clear()
                continue
            self._drained = asyncio.get_running_loop().create_future()
            await channel.write_queue.put(written(self._together(channel), self._drained))
            await self._drained

    def _release(self, closed: "asyncio.Future[object]") -> None:
        if not closed.cancelled():
            closed.exception()  # it is told by the link; here it only has to count as seen
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _together(self, channel: DriverChannel) -> bytes:
        frames = []
        size, most = 0, frame_max(channel)
        while self._waiting and size < MAX_TOGETHER_BYTES:
            payload = self._waiting.popleft()
            self._waiting_bytes -= len(payload)
            size += len(payload)
            message = Message(payload, {SCHEMA_HEADER: SCHEMA}, "")
            frames.append(
                publish_frames(message, self._exchange, channel.number, most, delivery_mode=TRANSIENT, mandatory=False)
            )
        return b"".join(frames)


class RabbitMQSubscriber:
    """Hears one fanout exchange through a queue of its own, bounded on both sides of the connection."""

    link: ReconnectingConnection

    def __init__(self, exchange: Exchange, bound: int) -> None:
        self._exchange = exchange
        self._questions = Questions()
        self._bound = bound
        self._heard: deque[bytes] = deque()
        self._some = asyncio.Event()
        self.dropped = 0

    async def prepare(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Declare the exchange and a fresh queue, and consume without acknowledging."""
        await ensure_exchange(connection, self._exchange, self._questions)
        queue = await channel.declare_queue(
            # Named after its exchange, so that a listener's rights can be named by a pattern.
            f"{self._exchange.name}.{uuid4().hex}",
            exclusive=True,
            auto_delete=True,
            arguments={"x-max-length": self._bound, "x-overflow": "drop-head"},
        )
        await queue.bind(self._exchange.name, self._exchange.routing_key)
        driver = await driver_channel(channel)
        driver.on_consumer_cancel_callbacks.add(lambda _: self.link.reopen("the broker has ended this consumer"))
        await driver.basic_consume(queue.name, self._arrived, no_ack=True)

    async def _arrived(self, incoming: DeliveredMessage) -> None:
        headers = incoming.header.properties.headers or {}
        if headers.get(SCHEMA_HEADER) != SCHEMA:  # of a newer version: during a rolling upgrade
            self.dropped += 1
            return
        if len(self._heard) >= self._bound:
            self._heard.popleft()
            self.dropped += 1
        self._heard.append(bytes(incoming.body))
        self._some.set()

    def __aiter__(self) -> "RabbitMQSubscriber":
        return self

    async def __anext__(self) -> bytes:
        while not self._heard:
            self._some.clear()
            await self._some.wait()
        return self._heard.popleft()

    async def check(self) -> None:
        """Raise while there is no connection."""
        self.link.check()
