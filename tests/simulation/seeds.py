"""Runs seeds, one after the other, and says what was found."""

import asyncio
import gc
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from broker.message import Message
from tests.simulation.clocks import simulated_clocks
from tests.simulation.compaction import small_blocks
from tests.simulation.faults import Chaos
from tests.simulation.history import History, keep_logs_in
from tests.simulation.loop import DeadlockError, SimulatedLoop
from tests.simulation.plants import planted
from tests.simulation.verdict import faults_of
from tests.simulation.world import Run, empty

# Every reading has to be stored so long after the last fault: a device asks for a receipt 30 s after it was accepted,
# again after 30 s, then sends again and waits up to two minutes.
DRAINS_WITHIN_S = 400.0
POLL_EVERY_S = 0.25


@dataclass
class Outcome:
    """One seed: what was not as promised, how long it took to drain, and its history."""

    seed: int
    faults: list[str]
    drained_s: float
    steps: int
    history: History

    @property
    def readings(self) -> str:
        """Return the whole history as text."""
        return "\n".join(self.history.lines())


def run_seed(seed: int, folder: Path) -> Outcome:
    """Run one seed from its first reading to its verdict."""
    random = Random(seed)
    loop = SimulatedLoop(random, shuffles=random.random() < 0.5)
    asyncio.set_event_loop(loop)
    empty(folder)
    loop.set_exception_handler(lambda _, context: None)
    with simulated_clocks(loop, seed), small_blocks():
        outcome = loop.run_until_complete(_simulated(seed, random, folder, loop))
    asyncio.set_event_loop(None)
    _forget(loop)
    return outcome


async def _simulated(seed: int, random: Random, folder: Path, loop: SimulatedLoop) -> Outcome:
    run = Run(random, folder)
    keep_logs_in(run.history)
    run.mongodb.process.steps = 0
    run.start_all()
    faults: list[str] = []
    began = loop.time()
    dead: list[Message] = []
    try:
        await Chaos(run, random).disturb(run.seconds)
        began = loop.time()
        while not run.is_drained and loop.time() - began < DRAINS_WITHIN_S:
            await asyncio.sleep(POLL_EVERY_S)
        if run.broker.is_up:
            dead = await run.broker.dead_letters()
    except DeadlockError:
        faults.append("nothing is left to run")
    drained_s = loop.time() - began
    faults += faults_of(run, dead)
    run.end()
    return Outcome(seed, faults, drained_s, loop.steps, run.history)


def _forget(loop: SimulatedLoop) -> None:
    """Free what the killed processes left: that runs their cleanup, which nobody sees any more."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        loop._ready.clear()
        loop._scheduled.clear()
        loop.close()
        gc.collect()
    finally:
        sys.unraisablehook = hook


def run_seeds(
    first: int, number: int, plant: str | None, on_outcome: Callable[[Outcome], bool], *, step: int = 1
) -> None:
    """Run seeds until `on_outcome` returns False."""
    in_memory = Path("/dev/shm")
    where = in_memory if in_memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tidegate-simulation-", dir=where) as folder, planted(plant):
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for seed in range(first, first + number, step):
                if not on_outcome(run_seed(seed, Path(folder, "run"))):
                    return
        finally:
            gc.enable()
            with suppress(AttributeError):
                gc.unfreeze()
