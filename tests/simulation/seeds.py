"""Runs seeds, and says what became of them."""

import asyncio
import gc
import multiprocessing
import signal
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from broker.message import Message
from tests.simulation.clocks import simulated_clocks
from tests.simulation.faults import Chaos
from tests.simulation.history import keep_logs_in
from tests.simulation.loop import DeadlockError, SimulatedLoop
from tests.simulation.plants import planted
from tests.simulation.scale import scaled_down
from tests.simulation.verdict import faults_of
from tests.simulation.world import Run, empty

# Every reading has to be stored so long after the last fault: a device asks for a receipt 30 s after it was accepted,
# again after 30 s, then sends again and waits up to two minutes.
DRAINS_WITHIN_S = 200.0
POLL_EVERY_S = 0.25
# What a killed process leaves is never freed: that would run its cleanup, and take a fifth of the time. So a process
# of this machine runs some seeds only.
SEEDS_A_PROCESS = 20
IN_MEMORY = Path("/dev/shm")
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Outcome:
    """One seed: what was not as promised, how long it took to drain in virtual time, and its history."""

    seed: int
    faults: list[str]
    drained_s: float
    steps: int
    history: list[str] = field(repr=False)
    digest: str = ""


def run_seed(seed: int, folder: Path, *, plant: str | None = None, keeps_history: bool = False) -> Outcome:
    """Run one seed from its first reading to its verdict; a history is kept if something is wrong, or on demand."""
    random = Random(seed)
    loop = SimulatedLoop(random, shuffles=random.random() < 0.5)
    loop.set_exception_handler(lambda *_: None)
    empty(folder)
    asyncio.set_event_loop(loop)
    try:
        with simulated_clocks(loop, seed), scaled_down(), planted(plant):
            return loop.run_until_complete(_simulated(seed, random, folder, loop, keeps_history))
    finally:
        asyncio.set_event_loop(None)
        loop.forget()


async def _simulated(seed: int, random: Random, folder: Path, loop: SimulatedLoop, keeps_history: bool) -> Outcome:
    run = Run(random, folder)
    keep_logs_in(run.history)
    run.start_all()
    faults: list[str] = []
    dead: list[Message] = []
    began, is_drained = 0.0, False
    try:
        await Chaos(run, random).disturb(run.seconds)
        began = loop.time()
        while not run.is_drained and loop.time() - began < DRAINS_WITHIN_S:
            await asyncio.sleep(POLL_EVERY_S)
        # Asked here: a device goes on to send what is refused, also while dead letters are read.
        is_drained = run.is_drained
        if run.broker.is_up:
            dead = await run.broker.dead_letters()
    except DeadlockError:
        faults.append("nothing is left to run")
    drained_s = loop.time() - began
    faults += faults_of(run, dead, is_drained=is_drained)
    run.end()
    lines = list(run.history.lines()) if faults or keeps_history else []
    digest = sha256("\n".join(lines).encode()).hexdigest() if lines else ""
    return Outcome(seed, faults, drained_s, loop.steps, lines, digest)


@contextmanager
def a_folder() -> Iterator[Path]:
    """Return a folder in memory where there is one: the simulation is not about disks."""
    where = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="tidegate-simulation-", dir=where) as folder:
        yield Path(folder)


def run_seeds(first: int, number: int, *, plant: str | None = None, processes: int = 2) -> Iterator[Outcome]:
    """Run seeds in some processes at once; outcomes come in the order of the seeds.

    Raises `RuntimeError` if a process ends without its outcomes.
    """
    waiting = deque(
        range(at, min(at + SEEDS_A_PROCESS, first + number)) for at in range(first, first + number, SEEDS_A_PROCESS)
    )
    gc.collect()
    gc.freeze()
    running: deque[_Group] = deque()
    with a_folder() as folder:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    running.append(_Group(waiting.popleft(), folder, plant))
                yield from running[0].outcomes()
                running.popleft()
        finally:
            # Who has seen enough ends them in the middle of a seed: what they leave is deleted here.
            for group in running:
                group.kill()


class _Group:
    """A process that runs some seeds.

    Not one of `multiprocessing.Pool`: it ends its processes by SIGTERM, which one that has just been forked may miss,
    and then waits for it for ever.
    """

    def __init__(self, seeds: range, folder: Path, plant: str | None) -> None:
        self._seeds = seeds
        self._received, sent = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_run_group, args=(sent, folder, plant, seeds))
        self._process.start()
        sent.close()

    def outcomes(self) -> list[Outcome]:
        """Wait for the outcomes of all its seeds."""
        try:
            outcomes: list[Outcome] = self._received.recv()
        except EOFError:
            self._process.join()
            seeds = f"{self._seeds.start} to {self._seeds.stop - 1}"
            why = f"exit code {self._process.exitcode}"
            raise RuntimeError(f"the process of seeds {seeds} has ended without their outcomes ({why})") from None
        self.kill()
        return outcomes

    def kill(self) -> None:
        """End it at once: nothing that was killed in its seeds is cleaned up."""
        self._process.kill()
        self._process.join()
        self._received.close()


def _run_group(to: Connection, folder: Path, plant: str | None, seeds: range) -> None:
    # SIGTERM runs no cleanup of what was killed in a seed; Ctrl-C is for the process that started this one.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        outcomes = [run_seed(seed, Path(own) / "run", plant=plant) for seed in seeds]
    to.send(outcomes)
