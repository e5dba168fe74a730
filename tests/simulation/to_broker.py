"""The other end of the broker's connections: what a gateway or a persister has in place of an AMQP client."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from broker.embedded.fanout import EmbeddedSubscriber
from broker.interface import BrokerError, BrokerRefused, BrokerUnavailable, ConfirmLate, Consumer, Delivery, Subscriber
from broker.message import Message
from broker.topology import Exchange, Queue
from runtime.background import background
from tests.simulation.broker import BrokerServer
from tests.simulation.loop import Process
from tests.simulation.network import End, Line

CONFIRM_TIMEOUT_S = 4.0
RECONNECT_S = 0.2


class _Connected:
    """Keeps one connection to the broker."""

    def __init__(self, server: BrokerServer, process: Process, kind: str, *arguments: Any) -> None:
        self._server = server
        self._process = process
        self._opening = (kind, *arguments)
        self._is_lost = asyncio.Event()
        self.line: Line | None = None

    async def run(self) -> None:
        """Connect, and again after each loss."""
        while True:
            if self._server.is_up:
                self._is_lost.clear()
                self.opened()
                end = End(self._process, self.received, self._lost)
                self.line = self._server.connect(end, *self._opening)
                await self._is_lost.wait()
            await asyncio.sleep(RECONNECT_S * (0.5 + self._server.random.random()))

    def _lost(self) -> None:
        self.line = None
        self._is_lost.set()
        self.was_lost()

    def close(self) -> None:
        """Close it: the broker learns of it behind the last acknowledgements."""
        if self.line is not None:
            self.line.close()
            self.line = None

    def opened(self) -> None:
        """Begin with a new connection."""

    def received(self, packet: Any) -> None:
        """Take what the broker sends."""

    def was_lost(self) -> None:
        """Give up what only the lost connection could answer."""


class PublisherLink(_Connected):
    """Publishes; a confirm that does not come leaves the outcome open."""

    def __init__(self, server: BrokerServer, process: Process) -> None:
        super().__init__(server, process, "publishing")
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def publish(self, message: Message, exchange: Exchange) -> None:
        """Return when the broker has confirmed; BrokerError in every other case."""
        line, number = self.line, next(self._numbers)
        if line is None:
            raise BrokerUnavailable("there is no connection")
        confirm = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._server.history.add("publishes", message.message_id[:8])
        line.to_far((number, message, exchange), in_order=False)
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                await confirm
        except TimeoutError as error:
            raise ConfirmLate("no confirm in time") from error
        finally:
            self._waiting.pop(number, None)

    def received(self, packet: tuple[int, BrokerError | None]) -> None:
        """Resolve a publish that still waits."""
        number, failure = packet
        confirm = self._waiting.get(number)
        if confirm is None or confirm.done():
            return
        if failure is None:
            confirm.set_result(None)
        else:
            confirm.set_exception(failure)

    def was_lost(self) -> None:
        """Fail what waits for its confirm."""
        for confirm in self._waiting.values():
            if not confirm.done():
                confirm.set_exception(BrokerUnavailable("the connection was lost during the publish"))

    async def check(self) -> None:
        """Raise BrokerUnavailable without a connection."""
        if self.line is None:
            raise BrokerUnavailable("there is no connection")


class ConsumerLink(_Connected):
    """Consumes, as `broker.rabbitmq.consumer` does: every connection is a generation."""

    def __init__(self, server: BrokerServer, process: Process, queue: Queue, prefetch: int) -> None:
        super().__init__(server, process, "consuming", queue, prefetch)
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        self._generation = 0

    @property
    def generation(self) -> int:
        """How many connections there were."""
        return self._generation

    def opened(self) -> None:
        """Drop what an earlier connection delivered."""
        self._generation += 1
        while not self._arrived.empty():
            self._arrived.get_nowait()

    def received(self, packet: tuple[int, Delivery]) -> None:
        """Take a delivery."""
        tag, found = packet
        self._server.history.add("gets", found.message.message_id[:8], f"tag {tag}", f"count {found.delivery_count}")
        arrived_at = time.monotonic()
        self._arrived.put_nowait(
            Delivery(found.message, tag, found.delivery_count, self._generation, arrived_at=arrived_at)
        )

    async def get(self) -> Delivery:
        """Wait for the next message of the current connection."""
        while True:
            delivery = await self._arrived.get()
            if delivery.generation == self._generation:
                return delivery

    def get_nowait(self) -> Delivery | None:
        """Return the next message of the current connection if it has arrived already, else None."""
        while not self._arrived.empty():
            delivery = self._arrived.get_nowait()
            if delivery.generation == self._generation:
                return delivery
        return None

    def _write(self, command: str, delivery: Delivery, *, multiple: bool = False) -> bool:
        if self.line is None or delivery.generation != self._generation:
            return False
        self.line.to_far((command, delivery.tag, multiple))
        return True

    async def acknowledge(self, delivery: Delivery, *, multiple: bool = False) -> bool:
        """Write an acknowledgement; nobody answers it."""
        await asyncio.sleep(0)
        return self._write("acknowledge", delivery, multiple=multiple)

    async def reject(self, delivery: Delivery) -> None:
        """Dead-letter one message."""
        self._write("reject", delivery)

    async def requeue(self, delivery: Delivery) -> None:
        """Return one message to the queue."""
        await asyncio.sleep(0)
        self._write("requeue", delivery)

    async def park(self, delivery: Delivery) -> None:
        """Exclude one message from the prefetch window."""
        self._write("park", delivery)

    async def stop(self) -> None:
        """Receive nothing more."""
        if self.line is not None:
            self.line.to_far(("stop", 0, False))

    async def check(self) -> None:
        """Raise BrokerUnavailable without a connection."""
        if self.line is None:
            raise BrokerUnavailable("there is no connection")


class _SubscriberLink(_Connected):
    def __init__(self, server: BrokerServer, process: Process, subscriber: EmbeddedSubscriber) -> None:
        super().__init__(server, process, "subscribing", subscriber)
        self._receive: Callable[[bytes], None] = subscriber.receive

    def received(self, packet: bytes) -> None:
        """Take a broadcast."""
        self._receive(packet)


class BrokerLink:
    """The broker, for one process: what of `broker.interface.Broker` the persister and the gateway use."""

    dropped = 0

    def __init__(self, server: BrokerServer, process: Process) -> None:
        self._server = server
        self._process = process

    @asynccontextmanager
    async def consumer(self, queue: Queue, *, prefetch: int) -> AsyncIterator[Consumer]:
        """Open a consumer of a lane."""
        link = ConsumerLink(self._server, self._process, queue, prefetch)
        try:
            async with background(link.run(), name="connection"):
                yield link
        finally:
            link.close()

    @asynccontextmanager
    async def publisher(self) -> AsyncIterator[PublisherLink]:
        """Open a publisher."""
        link = PublisherLink(self._server, self._process)
        async with background(link.run(), name="connection"):
            yield link

    @asynccontextmanager
    async def subscriber(self, exchange: Exchange, *, bound: int) -> AsyncIterator[Subscriber]:
        """Subscribe to the receipts, the only exchange there is."""
        del exchange
        subscriber = EmbeddedSubscriber(bound)
        link = _SubscriberLink(self._server, self._process, subscriber)
        async with background(link.run(), name="connection"):
            yield subscriber

    def broadcast(self, payload: bytes) -> None:
        """Send a payload, if the broker is there; a part of them is lost."""
        if self._server.is_up and self._server.random.random() >= self._server.lost_confirms:
            self._server.broadcast(payload)

    async def until_refused(self) -> BrokerRefused:
        """Raise NotImplementedError: nothing here asks for refusals."""
        raise NotImplementedError

    async def depth(self, queue: Queue) -> int:
        """Return how many messages wait in a queue."""
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT_S):
                return await self._server.asked_for_depth(queue)
        except TimeoutError as error:
            raise BrokerUnavailable("the broker does not answer") from error
