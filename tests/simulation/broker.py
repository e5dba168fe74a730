"""The broker: the embedded one on its real SQLite file, behind connections as RabbitMQ has them.

A publish may be confirmed late or never, and overtake another. A lost connection makes every tag stale: what it had
delivered is delivered again. An acknowledgement is written, not answered. A tag that is settled twice is an error here:
RabbitMQ would close the channel.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import bson

from broker.embedded.broker import EmbeddedBroker
from broker.embedded.consumer import EmbeddedConsumer
from broker.embedded.fanout import EmbeddedSubscriber
from broker.embedded.publisher import EmbeddedPublisher
from broker.embedded.store import Job, QueueFile, resolve
from broker.interface import BrokerError, Delivery
from broker.message import Message
from broker.topology import DEAD_EXCHANGE, DEAD_LETTERS, LANES, Exchange, Queue
from runtime.background import background
from tests.simulation.history import History
from tests.simulation.loop import Process
from tests.simulation.network import End, Line, Network


class Commits:
    """Commits without a thread. A crash comes before a commit, or between it and its confirm."""

    def __init__(self, file: QueueFile, random: Random, server: "BrokerServer") -> None:
        self.file = file
        self._random = random
        self._server = server
        self._waiting: list[Job] = []
        self._loop = asyncio.get_running_loop()

    def submit(self, job: Job) -> None:
        """Commit a job soon, with others."""
        if not self._waiting:
            self._loop.call_later(0.0002 + self._random.random() ** 3 * self._server.commit_s, self._commit)
        self._waiting.append(job)

    def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        self._loop.call_later(self._random.random() * 0.001, resolve, batch, self.file.commit(batch))

    async def close(self) -> None:
        """Close the file: nothing waits, as this process only ever ends by being killed."""
        self.file.close()


class Channel:
    """What the broker has delivered over one connection, by the tag that the other end knows."""

    def __init__(self, prefetch: int) -> None:
        self.prefetch = prefetch
        self.commands: asyncio.Queue[tuple[str, int, bool]] = asyncio.Queue()
        self.deliveries: dict[int, Delivery] = {}
        self.last_tag = 0
        self.task: asyncio.Task[None] | None = None


class BrokerServer:
    """The file, which outlives every process, and the process that has it open at present."""

    def __init__(self, path: Path, network: Network, history: History, random: Random) -> None:
        self.name = "broker"
        self._path = path
        self.network = network
        self.history = history
        self.random = random
        self.process: Process | None = None
        self._broker: EmbeddedBroker | None = None
        self._publisher: EmbeddedPublisher | None = None
        self._commits: Commits | None = None
        self._subscribers: list[tuple[Line, EmbeddedSubscriber]] = []
        lanes = [
            Queue(
                lane.name,
                lane.exchange,
                lane.binding,
                random.choice((1 << 30, 1 << 30, 20_000)),
                dead_letter_queue=DEAD_LETTERS,
            )
            for lane in LANES
        ]
        self._queues = (DEAD_LETTERS, *lanes)
        # The slowest commit in seconds, and the share of confirms that are lost: faults.
        self.commit_s = 0.002
        self.lost_confirms = 0.0
        # What it answers to each publish to an exchange, by its name.
        self.refusals: dict[str, type[BrokerError]] = {}
        self.errors: list[str] = []
        # The readings, by their values, that it has taken for good: a gateway may tell devices so of these alone.
        self.confirmed: set[int] = set()
        # Called with each message that it may forget, as a persister has acknowledged it.
        self.on_acknowledged: Callable[[Message], None] = lambda _: None

    def start(self, process: Process) -> "asyncio.Task[None]":
        """Open the file in a process."""
        self.process = process
        return process.spawn(self._serve())

    async def _serve(self) -> None:
        def committer(file: QueueFile) -> Commits:
            self._commits = Commits(file, self.random, self)
            return self._commits

        async with (
            EmbeddedBroker.open_at(self._path, self._queues, committer=committer) as broker,
            broker.publisher() as self._publisher,
        ):
            self._broker = broker
            self.history.add("is up")
            await asyncio.Event().wait()

    def killed(self) -> None:
        """Free the file, as the operating system does."""
        self._broker = self._publisher = None
        if self._commits is not None:
            self._commits.file.close()
            self._commits = None
        self._subscribers.clear()

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        return self._broker is not None

    @property
    def unsettled(self) -> int:
        """How many messages there are; -1 while it is away."""
        return -1 if self._broker is None else sum(map(self._broker.unsettled, LANES))

    async def dead_letters(self) -> list[Message]:
        """Return what is in the dead-letter queue."""
        assert self._broker is not None
        async with self._broker.browser(DEAD_LETTERS) as browser:
            return [delivery.message async for delivery in browser]

    def connect(self, near: End, receive: str, *arguments: Any) -> Line:
        """Open a connection for publishing, consuming or subscribing."""
        assert self.process is not None
        far = End(self.process, lambda _: None, lambda: None)
        line = Line(self.network, near, far)
        getattr(self, f"_accept_{receive}")(line, *arguments)
        return line

    def _accept_publishing(self, line: Line) -> None:
        process = line.far.process

        def receive(packet: tuple[int, Message, Exchange]) -> None:
            process.spawn(self._publish(line, *packet))

        line.far.receive = receive

    async def _publish(self, line: Line, number: int, message: Message, exchange: Exchange) -> None:
        assert self._publisher is not None
        failure: BrokerError | None = None
        try:
            if refusal := self.refusals.get(exchange.name):
                raise refusal("refused by the seed")
            await self._publisher.publish(message, exchange)
            if exchange is not DEAD_EXCHANGE:
                self.confirmed.update(bson.decode(document)["value"] for document in message.documents())
        except BrokerError as error:
            failure = error
        if self.random.random() < self.lost_confirms:
            self.history.add("loses a confirm of", message.message_id[:8])
        else:
            line.to_near((number, failure), in_order=False)

    def _accept_consuming(self, line: Line, queue: Queue, prefetch: int) -> None:
        channel = Channel(prefetch)
        line.far.receive = channel.commands.put_nowait

        def lost() -> None:
            if channel.task is not None:
                channel.task.cancel()

        line.far.lost = lost
        channel.task = line.far.process.spawn(self._consume(line, queue, channel))

    async def _consume(self, line: Line, queue: Queue, channel: Channel) -> None:
        assert self._broker is not None
        async with (
            self._broker.consumer(queue, prefetch=channel.prefetch) as consumer,
            background(self._settle(line, channel, consumer), name="commands"),
        ):
            while True:
                delivery = await consumer.get()
                channel.last_tag += 1
                channel.deliveries[channel.last_tag] = delivery
                line.to_near((channel.last_tag, delivery))

    async def _settle(self, line: Line, channel: Channel, consumer: EmbeddedConsumer) -> None:
        while True:
            command, tag, multiple = await channel.commands.get()
            if command == "stop":
                await consumer.stop()
                continue
            delivery = channel.deliveries.get(tag)
            if delivery is None:
                self.errors.append(f"{line.near.process.name} settles tag {tag} twice")
                line.break_off()
                return
            if command == "park":
                await consumer.park(delivery)
                continue
            settled = [one for one in channel.deliveries if one <= tag] if multiple else [tag]
            messages = [channel.deliveries.pop(one).message for one in settled]
            self.history.add(f"{command}:", tag, "and before" if multiple else "", f"of {line.near.process.name}")
            if command == "acknowledge":
                for message in messages:
                    self.on_acknowledged(message)
                await consumer.acknowledge(delivery, multiple=multiple)
            elif command == "reject":
                await consumer.reject(delivery)
            else:
                await consumer.requeue(delivery)

    def _accept_subscribing(self, line: Line, subscriber: EmbeddedSubscriber) -> None:
        self._subscribers.append((line, subscriber))

    def broadcast(self, payload: bytes) -> None:
        """Pass a payload to every subscriber that is connected."""
        for line, _ in self._subscribers:
            line.to_near(payload)

    def asked_for_depth(self, queue: Queue) -> "asyncio.Future[int]":
        """Return what becomes the number of messages that wait in a queue; nothing, if the broker is away."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if self.process is not None and self._broker is not None:
            self.process.spawn(self._answer(self._broker, queue, answer))
        return answer

    async def _answer(self, broker: EmbeddedBroker, queue: Queue, answer: "asyncio.Future[int]") -> None:
        depth = await broker.depth(queue)
        if not answer.done():
            answer.set_result(depth)
