"""A soak: a fleet streams for hours, everything is sampled, and at the end every reading is accounted for."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simulator.device import device_session
from tests.soak import fleet as fleet_module
from tests.soak.churn import Churn
from tests.soak.fleet import Fleet
from tests.soak.oracle import AGED, Outcome, compared_once_stored
from tests.soak.plot import plot
from tests.soak.samples import Sampler, read_samples
from tests.soak.slopes import Line, disk_line, lines, table
from tests.soak.stack import Stack, running_stack

SAMPLE_EVERY_S = 5.0
TELL_EVERY_S = 60.0
DAY_MS = 24 * 3600 * 1000
# Retention runs once a minute, and a sealed reading has to be compacted first.
AGED_WITHIN_MS = 10 * 60 * 1000
# Readings that are not compacted yet are documents, and the last few minutes' always are.
DISK_BYTES_A_READING = 200.0


@dataclass(frozen=True)
class Plan:
    """What to run; times in seconds."""

    folder: Path
    seconds: float
    devices: int
    settle_s: float
    seed: int = 1


@dataclass
class Verdict:
    """What a soak found."""

    outcome: Outcome
    lines: list[Line]
    failures: list[str] = field(default_factory=list)
    did: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, stored twice or invented, nothing grows and nothing else failed."""
        counts = self.outcome.counts
        unstored = any(counts[name] for name in ("lost", "duplicated", "foreign"))
        return not unstored and not self.failures and all(line.holds for line in self.lines)

    def text(self) -> str:
        """Return it for people."""
        counts = ", ".join(f"{number} {name}" for name, number in self.outcome.counts.items())
        did = ", ".join(f"{number} {name}" for name, number in self.did.items())
        failures = "".join(f"\nFAILED: {failure}" for failure in self.failures)
        return f"{table(self.lines)}\n{did}\n{counts}{failures}\n{'HOLDS' if self.holds else 'DOES NOT HOLD'}"

    def json(self) -> dict[str, Any]:
        """Return it for programs."""
        made = {line.name: line.row() for line in self.lines}
        return {"holds": self.holds, "counts": self.outcome.counts, "did": self.did, "failures": self.failures} | {
            "lines": made
        }


async def soak(plan: Plan, ended: asyncio.Event, tell: Callable[[str], None]) -> Verdict:
    """Run until the time is over or `ended` is set; return a verdict over all runs on the folder."""
    past = read_samples(plan.folder)
    run = max((sample["run"] for sample in past), default=0) + 1
    state = plan.folder / fleet_module.STATE
    async with running_stack(plan.folder) as stack, device_session() as http:
        fleet = Fleet(stack.url, http, plan.seed + run)
        await fleet.begin(plan.devices, state)
        tell(f"run {run}: {len(fleet.devices)} devices, {plan.seconds / 60:g} minutes, in {plan.folder}")
        sampler, churn = Sampler(stack, plan.folder, run), Churn(stack, fleet, plan.seconds)
        try:
            await _streamed(plan, stack, fleet, churn, sampler, ended, tell)
        finally:
            sampler.close()
            fleet.save(state)
        outcome = await compared_once_stored(stack.mongodb.url, fleet.accounts)
        failures = _failures(stack, fleet, outcome, sampler.last)
    samples = read_samples(plan.folder)
    settle_h = plan.settle_s / 3600
    made = [*lines(samples, settle_h), disk_line(samples, settle_h, DISK_BYTES_A_READING)]
    did = {name: number for name, number in asdict(fleet.counts).items() if name != "connected"}
    did |= {"rotations": churn.rotations, "keys retired": churn.retired, "reads": churn.reads}
    did |= {"reads failed": churn.failed_reads, "reads refused for now": churn.refused_reads}
    did |= {"aged readings left": outcome.aged}
    verdict = Verdict(outcome, made, failures, did)
    (plan.folder / "plot.svg").write_text(plot(samples))
    (plan.folder / "verdict.json").write_text(json.dumps(verdict.json(), indent=1) + "\n")
    return verdict


async def _streamed(
    plan: Plan,
    stack: Stack,
    fleet: Fleet,
    churn: Churn,
    sampler: Sampler,
    ended: asyncio.Event,
    tell: Callable[[str], None],
) -> None:
    """Stream and sample until the time is over, then let every device send what it still has."""
    running = asyncio.create_task(fleet.run())
    churning = asyncio.create_task(churn.run())
    began = told_at = time.monotonic()
    try:
        while time.monotonic() - began < plan.seconds and not ended.is_set():
            for task in (running, churning):
                if task.done():
                    task.result()
            sample = await sampler.take(fleet_sample(fleet))
            if time.monotonic() - told_at >= TELL_EVERY_S:
                told_at = time.monotonic()
                gateway = sample["processes"]["gateway"]
                tell(
                    f"{(told_at - began) / 60:5.0f} min: {sample['acknowledged']:,} acknowledged, "
                    f"{sample['connected']} connected, queue {sample['queue']:.0f}, lag {sample['lag']:.2f} s, "
                    f"{sample.get('collections', 0)} collections, gateway {gateway['bytes'] / 1e6:.0f} MB, "
                    f"{gateway['files']:.0f} files"
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), SAMPLE_EVERY_S)
    finally:
        churning.cancel()
        await asyncio.wait((churning,))
        fleet.end()
        await asyncio.wait((running,), timeout=2 * fleet_module.FLUSH_S + fleet_module.MOST_AWAY_S)
        running.cancel()
        await asyncio.wait((running,))
    if not running.cancelled():
        running.result()


def fleet_sample(fleet: Fleet) -> dict[str, float]:
    """Return what a sample has of the fleet."""
    acknowledged = sum(account.acknowledged for account in fleet.accounts)
    return {"acknowledged": acknowledged, "connected": fleet.counts.connected, "connects": fleet.counts.connects}


def _failures(stack: Stack, fleet: Fleet, outcome: Outcome, last: dict[str, Any]) -> list[str]:
    failures = list(stack.crashes)
    if fleet.counts.rejected:
        failures.append(f"{fleet.counts.rejected} good readings were rejected")
    if last.get("given_up"):
        failures.append(f"{last['given_up']:.0f} sealed collections were given up")
    failures += fleet.failures
    late_ms = time.time_ns() // 1_000_000 - outcome.oldest_aged_ms - DAY_MS
    if outcome.oldest_aged_ms and late_ms > AGED_WITHIN_MS:
        failures.append(f"a reading of {AGED} is stored {late_ms / 60_000:.0f} minutes after its time")
    if not outcome.counts["acknowledged"]:
        failures.append("nothing was acknowledged: this proves nothing")
    return failures
