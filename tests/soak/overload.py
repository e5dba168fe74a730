"""An overload that ends: twice what this machine can take, then half of it."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.processes import ENDS_WITH_PARENT
from broker.connect import open_broker
from broker.topology import READINGS
from tests.faults.verdict import MAX_BYTES, largest_bytes
from tests.integration.services import ROOT
from tests.soak.fleet import STATE
from tests.soak.oracle import Account, Outcome, compared_once_stored
from tests.soak.run import Plan
from tests.soak.slopes import OWN
from tests.soak.stack import Stack, running_stack

OVER, UNDER = 2.0, 0.5
DEVICES = 200
# For a run that is shorter, that long: it proves no more than that every reading is accounted for.
MEASURED_S, UNDER_S, DRAINED_WITHIN_S = 20.0, 30.0, 300.0
RETURNS_WITHIN_S = 10.0
# Of what is offered: a machine that takes more was not overloaded, and the run proves nothing.
OVERLOADED_PART = 0.9
# Goodput is back when a window has this part of what is offered, and its answers take less than that.
WINDOW_S, GOOD_PART, ANSWER_S = 3, 0.95, 1.0
# Of the devices in a second, on average; and of the readings that are acknowledged.
MAX_CONNECTS, MAX_RETRIED = 0.05, 1.0
READY_WITHIN_S, ENDS_WITHIN_S = 180.0, 180.0
# Shipped values: the soak's make a collection every few seconds of this.
PERSISTER = {"SEAL_READINGS": "5000000", "SEAL_SECONDS": "3600"}


@dataclass
class Phase:
    """The seconds of one rate."""

    rate: float
    seconds: list[dict[str, float]] = field(default_factory=list)

    def a_second(self, what: str) -> float:
        """Return the mean."""
        return sum(second[what] for second in self.seconds) / max(1, len(self.seconds))

    def returned_s(self) -> float | None:
        """Return after how many seconds goodput was what is offered, answered at once, and stayed so; None if never."""
        back: float | None = None
        if not self.rate:
            return back
        for end in range(WINDOW_S, len(self.seconds) + 1):
            window = self.seconds[end - WINDOW_S : end]
            part = sum(second["acknowledged"] for second in window) / (self.rate * WINDOW_S)
            good = part >= GOOD_PART and window[-1]["p99"] < ANSWER_S
            back = (end if back is None else back) if good else None
        return back


@dataclass
class OverloadVerdict:
    """What an overload did."""

    devices: int
    capacity: float
    over: Phase
    under: Phase
    # Seconds from the end of the overload until the queue was empty; None if it never was.
    drained_s: float | None
    largest_bytes: dict[str, int]
    outcome: Outcome
    failures: list[str]

    @property
    def checks(self) -> dict[str, bool]:
        """What was asked, and whether it is so."""
        returned, counts = self.under.returned_s(), self.outcome.counts
        retried = self.over.a_second("retried") / max(1.0, self.over.a_second("acknowledged"))
        return {
            f"offered {self.over.a_second('offered'):,.0f} readings/s, {OVER:g} times {self.capacity:,.0f}": (
                self.over.a_second("offered") > 0.9 * OVER * self.capacity
            ),
            f"{self.over.a_second('acknowledged'):,.0f} of them acknowledged: an overload": (
                self.over.a_second("acknowledged") <= OVERLOADED_PART * self.over.a_second("offered")
            ),
            f"goodput back after {'never' if returned is None else f'{returned:.0f} s'} (asked {RETURNS_WITHIN_S:g})": (
                returned is not None and returned <= RETURNS_WITHIN_S
            ),
            f"{self.over.a_second('connects'):.2f} connects/s of {self.devices} devices (at most "
            f"{MAX_CONNECTS * self.devices:g})": self.over.a_second("connects") <= MAX_CONNECTS * self.devices,
            f"{retried:.2f} readings sent again for each acknowledged (at most {MAX_RETRIED:g})": (
                retried <= MAX_RETRIED
            ),
            f"the largest process had {max(self.largest_bytes.values()) / 1e6:.0f} MB (at most {MAX_BYTES / 1e6:g})": (
                max(self.largest_bytes.values()) <= MAX_BYTES
            ),
            ", ".join(f"{number} {name}" for name, number in counts.items()): (
                not any(counts[name] for name in ("lost", "duplicated", "foreign")) and counts["acknowledged"] > 0
            ),
        }

    @property
    def holds(self) -> bool:
        """Whether all of it is so."""
        return all(self.checks.values()) and not self.failures

    def text(self) -> str:
        """Return it for people."""
        rows = [f"{'yes' if holds else 'NO ':3}  {what}" for what, holds in self.checks.items()]
        over, under = self.over, self.under
        drained = "not within the run" if self.drained_s is None else f"after {self.drained_s:.0f} s"
        rows += [
            f"     under overload {over.a_second('acknowledged'):,.0f} readings/s were acknowledged, "
            f"{over.a_second('dropped'):,.0f} dropped by devices; then {under.a_second('acknowledged'):,.0f} of "
            f"{under.a_second('offered'):,.0f}; the queue was empty {drained}",
            "     most memory: " + ", ".join(f"{name} {n / 1e6:.0f} MB" for name, n in self.largest_bytes.items()),
            *(f"FAILED: {failure}" for failure in self.failures),
            "HOLDS" if self.holds else "DOES NOT HOLD",
        ]
        return "\n".join(rows)

    def json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "holds": self.holds,
            "checks": self.checks,
            "capacity": self.capacity,
            "returnedS": self.under.returned_s(),
            "drainedS": self.drained_s,
            "largestBytes": self.largest_bytes,
            "counts": self.outcome.counts,
            "failures": self.failures,
            "over": self.over.seconds,
            "under": self.under.seconds,
        }


class Load:
    """The process with the devices; `run` reads what it says, all the time, so that a second is of its phase."""

    def __init__(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        self._process = process
        self._seconds: list[dict[str, float]] = []
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[list[str]] = loop.create_future()

    async def run(self) -> None:
        """Read its lines until it ends."""
        assert self._process.stdout
        async for line in self._process.stdout:
            found = json.loads(line)
            if "ready" in found:
                self.ready.set_result(None)
            elif "ended" in found:
                self.ended.set_result(found["failures"])
            else:
                self._seconds.append(found)
        for future in (self.ready, self.ended):
            if not future.done():
                future.set_exception(AssertionError("the load has ended"))
                future.exception()  # seen here, if nobody awaits it

    def order(self, command: dict[str, Any]) -> None:
        """Send it a line."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def phase(self, rate: float | None, seconds: float, ended: asyncio.Event) -> Phase:
        """Let it send at a rate, and return what it did in each second."""
        first = len(self._seconds)
        self.order({"rate": rate})
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), seconds)
        return Phase(rate or 0.0, self._seconds[first:])


async def overload(plan: Plan, ended: asyncio.Event, tell: Callable[[str], None]) -> OverloadVerdict:
    """Measure what the machine can take, offer twice that for the plan's time, then half for a fifth of it.

    Half is offered for 30 s at least, or as long as the plan's time.
    """
    async with running_stack(plan.folder, **PERSISTER) as stack:
        process = await asyncio.create_subprocess_exec(
            *(*ENDS_WITH_PARENT, sys.executable, "-m", "tests.soak.load"),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        load = Load(process)
        reading = asyncio.create_task(load.run())
        try:
            load.order({"url": stack.url, "devices": plan.devices, "folder": str(plan.folder)})
            await asyncio.wait_for(load.ready, READY_WITHIN_S)
            verdict = await _measured(plan, stack, load, ended, tell)
        finally:
            reading.cancel()
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    (plan.folder / "verdict.json").write_text(json.dumps(verdict.json(), indent=1) + "\n")
    return verdict


async def _measured(
    plan: Plan, stack: Stack, load: Load, ended: asyncio.Event, tell: Callable[[str], None]
) -> OverloadVerdict:
    measured_s = min(MEASURED_S, plan.seconds)
    await load.phase(None, measured_s / 4, ended)
    capacity = await _capacity(stack, load, measured_s, ended)
    tell(f"this machine takes {capacity:,.0f} readings a second, until they are stored")
    over = await load.phase(OVER * capacity, plan.seconds, ended)
    tell(f"offered {over.a_second('offered'):,.0f}, acknowledged {over.a_second('acknowledged'):,.0f} a second")
    over_at = time.monotonic()
    draining = asyncio.create_task(_drained(stack, DRAINED_WITHIN_S + plan.seconds))
    under_s = max(min(UNDER_S, plan.seconds), plan.seconds / 5)
    under = await load.phase(UNDER * capacity, under_s, ended)
    load.order({"end": True})
    load_failures = await asyncio.wait_for(load.ended, ENDS_WITHIN_S)
    at = await draining
    drained_s = None if at is None else at - over_at
    saved = json.loads(_text(plan.folder / STATE))["accounts"]
    accounts = [Account.loaded(one) for one in saved]
    outcome = await compared_once_stored(stack.mongodb.url, accounts)
    largest = {name: largest_bytes(stack.pids()[name]) for name in OWN}
    failures = stack.crashes + load_failures
    return OverloadVerdict(len(saved), capacity, over, under, drained_s, largest, outcome, failures)


async def _capacity(stack: Stack, load: Load, measured_s: float, ended: asyncio.Event) -> float:
    """Return how many readings a second are acknowledged and stored: the time to empty the queue counts."""
    began = time.monotonic()
    phase = await load.phase(None, measured_s, ended)
    load.order({"rate": 0})
    at = await _drained(stack, DRAINED_WITHIN_S)
    assert at is not None, "the queue was not emptied"
    return sum(second["acknowledged"] for second in phase.seconds) / (at - began)


async def _drained(stack: Stack, within_s: float) -> float | None:
    """Return when the queue was empty, None if it was not in time."""
    deadline = time.monotonic() + within_s
    async with open_broker(stack.rabbitmq.url) as broker:
        while time.monotonic() < deadline:
            if not await broker.depth(READINGS):
                return time.monotonic()
            await asyncio.sleep(0.2)
    return None


def _text(file: Path) -> str:
    return file.read_text()
