"""One run: every process of one seed, from the first reading until everything is stored."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import bson

from broker.message import Message
from tests.simulation.broker import BrokerServer
from tests.simulation.clocks import EPOCH_S
from tests.simulation.compaction import CompactorProgram, Sealer
from tests.simulation.device import DeviceProgram, Sent, World
from tests.simulation.documents import id_of
from tests.simulation.gateway import GatewayServer
from tests.simulation.history import History
from tests.simulation.loop import Process
from tests.simulation.mongodb import Refusal, Server
from tests.simulation.network import Network
from tests.simulation.persister import PersisterProgram

SENSOR_TYPES = ("a", "b")
HOUR_MS = 3_600_000


class Program(Protocol):
    """What is started, killed, and started again."""

    name: str

    def start(self, process: Process) -> "asyncio.Task[None]":
        """Run in a process; the task ends with it."""

    def killed(self) -> None:
        """Do what the operating system does for a killed process."""


@dataclass
class Part:
    """A program, and the process that it runs in at present."""

    program: Program
    process: Process | None = None
    task: "asyncio.Task[None] | None" = None
    restarts_after_s: float = 0.0


class Run:
    """The processes of one seed. Made within the loop."""

    def __init__(self, random: Random, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.history = History(loop.time)
        self.network = Network(random)
        self.mongodb = Server(self.history, random)
        self.broker = BrokerServer(folder / "queue.db", self.network, self.history, random)
        self.gateways = [
            GatewayServer(f"gateway-{n}", self.broker, self.history, random) for n in range(random.choice((1, 2)))
        ]
        self.errors: list[str] = []
        self.broker.on_acknowledged = self._check_stored
        reachable = World(self.gateways, self.broker.confirmed, self.mongodb, self.network, self.history, self.errors)
        # Until when devices send.
        self.seconds = random.uniform(1.0, 8.0)
        numbers = iter(range(1, 1 << 30))
        # Two devices of one owner, or of two owners who have given them the same id.
        identities = Random(self.seconds).choice(((("owner", "0"), ("owner", "1")), (("owner", "0"), ("other", "0"))))
        self.devices = [
            DeviceProgram(
                f"device-{n}",
                identities[n],
                folder / f"device-{n}.db",
                reachable,
                plan_of(random, self.seconds, numbers),
                random,
            )
            for n in range(random.choice((1, 2)))
        ]
        persisters = [
            PersisterProgram(f"persister-{n}", self.broker, self.mongodb, random) for n in range(random.choice((1, 2)))
        ]
        programs: list[Program] = [self.broker, *self.gateways, *self.devices, *persisters]
        if random.random() < 0.2:
            # One, or several that may travel in one message.
            plan = random.choice(self.devices).plan
            how: Refusal = random.choice(("alone", "all"))
            at = random.randrange(len(plan))
            for one in plan[at : at + random.choice((1, 3))]:
                if one.is_valid and one.twin is None:
                    one.is_refused = True
                    self.mongodb.refused[one.number] = how
        self.seals_every_s = random.choice((None, 0.4, 1.5))
        if self.seals_every_s is not None:
            programs.append(CompactorProgram(self.mongodb, self.history))
            self.mongodb.process.spawn(Sealer(self.mongodb, self.history, random).run(self.seals_every_s))
        self.parts = {program.name: Part(program) for program in programs}
        self._all: list[Process] = [self.mongodb.process]

    def _check_stored(self, message: Message) -> None:
        """Note what the broker forgets and MongoDB does not have: no later crash is needed to lose it."""
        for document in message.documents():
            if id_of(document) not in self.mongodb.first:
                number = bson.decode(document)["value"]
                if number not in self.mongodb.refused:
                    self.errors.append(f"{number} is acknowledged at the broker and is not stored")

    def start_all(self) -> None:
        """Start every program."""
        for name in self.parts:
            self.start(name)

    def start(self, name: str) -> None:
        """Start a program, unless it runs."""
        part = self.parts[name]
        if part.process is not None:
            return
        part.process = process = Process(name)
        self._all.append(process)
        process.on_kill = self._killed_at_step
        self.history.add("starts", who=name)
        part.task = part.program.start(process)
        part.task.add_done_callback(lambda task: self._ended(part, process, task))

    def _killed_at_step(self, process: Process) -> None:
        part = self.parts[process.name]
        self.kill(process.name)
        self._loop.call_later(part.restarts_after_s, self.start, process.name)

    def kill(self, name: str) -> None:
        """End a process without any cleanup; the other ends of its connections learn of it."""
        part = self.parts[name]
        process, part.process, part.task = part.process, None, None
        if process is None:
            return
        self.history.add(f"is killed at step {process.steps}", who=name)
        process.kill()
        for line in self.network.lines_of(process):
            line.break_off()
        part.program.killed()

    def _ended(self, part: Part, process: Process, task: "asyncio.Task[None]") -> None:
        """Restart a process that ended by itself, as a supervisor does."""
        if part.process is not process:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.history.add("ends:", repr(error), who=process.name)
            # Also by its watchdog, which is for what RabbitMQ may do: here only a bug lets messages wait for so long.
            self.errors.append(f"{process.name} ended: {error!r}")
        self.kill(process.name)
        if error is not None:
            self._loop.call_later(0.5, self.start, process.name)

    async def stop_persister(self, name: str) -> None:
        """Let a persister end in order."""
        part = self.parts[name]
        if part.task is None:
            return
        assert isinstance(part.program, PersisterProgram)
        self.history.add("is stopped", who=name)
        part.program.stop()
        await asyncio.wait((part.task,), timeout=30.0)
        self.kill(name)

    @property
    def is_drained(self) -> bool:
        """Whether every reading was sent and freed, and no message is left."""
        return all(device.is_drained for device in self.devices) and self.broker.unsettled == 0

    def end(self) -> None:
        """End every process."""
        for name in self.parts:
            self.kill(name)
        self.mongodb.process.kill()


def plan_of(random: Random, seconds: float, numbers: Iterator[int]) -> list[Sent]:
    """Draw what one device sends, in the order of time."""
    plan: list[Sent] = []
    for _ in range(random.randint(1, 6)):
        at, burst = random.random() * seconds, random.choice((1, 2, 5, 20))
        gap = random.choice((0.0, 0.001, 0.1))
        sensor_type = random.choice(SENSOR_TYPES)
        # A part of what is sent is an hour old: it goes by the backfill lane.
        late_ms = random.choice((None, None, EPOCH_S * 1000 - HOUR_MS))
        # Or only every second one: then an event has readings of both lanes.
        is_mixed = random.random() < 0.5
        for number in range(burst):
            reading = next(numbers)
            position = None if late_ms is None or (is_mixed and number % 2) else (late_ms, reading)
            plan.append(Sent(at + number * gap, reading, sensor_type, position))
    for pair in range(random.randint(0, 3)):
        late_ms = random.choice((0, 0, HOUR_MS // 2))
        position = EPOCH_S * 1000 - random.randint(1, 3) - late_ms, pair * 1000
        first, second = next(numbers), next(numbers)
        sensor_type = random.choice(SENSOR_TYPES)
        at, later = sorted((random.random() * seconds, random.random() * seconds))
        plan += [Sent(at, first, sensor_type, position, second), Sent(later, second, sensor_type, position, first)]
    for _ in range(random.choice((0, 0, 1, 2))):
        plan.append(Sent(random.random() * seconds, next(numbers), SENSOR_TYPES[0], is_valid=False))
    plan.sort(key=lambda sent: sent.at)
    return plan


def empty(folder: Path) -> None:
    """Make a folder, or make it empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
