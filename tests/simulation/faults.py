"""What the seed lets happen to the processes, their connections and MongoDB while the devices send."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from broker.interface import BrokerRefused, QueueFull
from broker.topology import BACKFILL_EXCHANGE, DEAD_EXCHANGE, READINGS_EXCHANGE
from tests.simulation.mongodb import Faults
from tests.simulation.world import Run

KILL_WITHIN_STEPS = 300
PUBLISHED = (READINGS_EXCHANGE, BACKFILL_EXCHANGE, DEAD_EXCHANGE)
Fault = Callable[[], Awaitable[None]]


class Chaos:
    """Disturbs one run, and mends everything at the end."""

    def __init__(self, run: Run, random: Random) -> None:
        self._run = run
        self._random = random
        self._faults: list[Fault] = [
            self._kill_at_step,
            self._kill_at_step,
            self._kill,
            self._restart_persister,
            self._break_lines,
            self._silent_device,
            self._lost_confirms,
            self._refused_publishes,
            self._slow_disk,
            self._slow_mongodb,
            self._mongodb_errors,
            self._mongodb_errors,
            self._no_majority,
            self._no_majority,
        ]

    async def disturb(self, seconds: float) -> None:
        """Let some faults happen, at any time and some of them together."""
        number = self._random.randint(0, 7)
        chosen = [self._random.choice(self._faults) for _ in range(number)]
        async with asyncio.TaskGroup() as tasks:
            for fault in chosen:
                tasks.create_task(self._later(fault, seconds))
        await self.mend()

    async def _later(self, fault: Fault, seconds: float) -> None:
        await asyncio.sleep(self._random.random() * seconds)
        await fault()

    async def mend(self) -> None:
        """Let nothing fail from now on, and every process run."""
        run = self._run
        run.history.add("-- no more faults --")
        run.mongodb.faults, run.mongodb.slow_s = Faults(), 0.0
        run.broker.lost_confirms, run.broker.commit_s = 0.0, 0.002
        run.broker.refusals.clear()
        for part in run.parts.values():
            if part.process is not None:
                part.process.kill_at = None

    def _pause_s(self, most: float) -> float:
        return most * self._random.random() ** 2

    async def _kill(self) -> None:
        name = self._random.choice(list(self._run.parts))
        self._run.kill(name)
        await asyncio.sleep(self._pause_s(3.0))
        self._run.start(name)

    async def _kill_at_step(self) -> None:
        part = self._run.parts[self._random.choice(list(self._run.parts))]
        if part.process is not None:
            part.restarts_after_s = self._pause_s(2.0)
            part.process.kill_at = part.process.steps + self._random.randint(1, KILL_WITHIN_STEPS)

    async def _restart_persister(self) -> None:
        name = self._random.choice([name for name in self._run.parts if name.startswith("persister")])
        await self._run.stop_persister(name)
        await asyncio.sleep(self._pause_s(2.0))
        self._run.start(name)

    async def _break_lines(self) -> None:
        """Break one connection of a process, or all; any process as often as the others, and so consumers' too."""
        part, breaks_all = self._run.parts[self._random.choice(list(self._run.parts))], self._random.random() < 0.3
        for _ in range(self._random.randint(1, 4)):
            lines = [] if part.process is None else self._run.network.lines_of(part.process)
            for line in lines if breaks_all or not lines else (self._random.choice(lines),):
                self._run.history.add("breaks a connection of", line.near.process.name, line.far.process.name)
                line.break_off()
            await asyncio.sleep(self._pause_s(2.0))

    async def _silent_device(self) -> None:
        lines = [
            line for line in self._run.network.lines if line.is_open and line.near.process.name.startswith("device")
        ]
        if lines:
            line = self._random.choice(lines)
            self._run.history.add("goes silent: the connection of", line.near.process.name)
            line.break_off(silent_at=line.near)

    async def _lost_confirms(self) -> None:
        self._run.broker.lost_confirms = 0.5 * self._random.random()
        await asyncio.sleep(self._pause_s(4.0))
        self._run.broker.lost_confirms = 0.0

    async def _refused_publishes(self) -> None:
        """Let one of the queues be full, or its rights be missing, while the others take everything."""
        refusals, exchange = self._run.broker.refusals, self._random.choice(PUBLISHED)
        refusals[exchange.name] = self._random.choice((QueueFull, BrokerRefused))
        self._run.history.add("refuses what is published to", exchange.name, who="broker")
        await asyncio.sleep(self._pause_s(4.0))
        refusals.pop(exchange.name, None)

    async def _slow_disk(self) -> None:
        self._run.broker.commit_s = self._random.choice((0.1, 1.0, 8.0))
        await asyncio.sleep(self._pause_s(3.0))
        self._run.broker.commit_s = 0.002

    async def _slow_mongodb(self) -> None:
        """Let replies take seconds and come all the same, also once the message's connection is lost."""
        self._run.mongodb.slow_s = self._random.choice((2.0, 8.0))
        await asyncio.sleep(self._pause_s(6.0))
        self._run.mongodb.slow_s = 0.0

    async def _mongodb_errors(self) -> None:
        rate = self._random.choice((0.1, 0.4))
        self._run.mongodb.faults = Faults(
            *(rate * self._random.choice((0, 1)) for _ in range(4)),
        )
        await asyncio.sleep(self._pause_s(6.0))
        self._run.mongodb.faults = Faults()

    async def _no_majority(self) -> None:
        mongodb = self._run.mongodb
        if not mongodb.has_majority:
            return
        mongodb.lose_majority()
        await asyncio.sleep(self._pause_s(5.0))
        mongodb.regain_majority(rolls_back=self._random.random() < 0.5)
