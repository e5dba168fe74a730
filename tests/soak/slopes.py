"""Slopes of what was sampled, by least squares, and a verdict on each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.soak.samples import Sample

MIB = 1024 * 1024
# Below this a fit says nothing: no verdict.
MIN_JUDGED_H = 10 / 60
MIN_SAMPLES = 10
# Tidegate's own: the others' memory is shown, not judged (mongod fills its cache, RabbitMQ its buffers).
OWN = ("auth", "gateway", "persister-1", "persister-2", "compactor", "reader")
FOREIGN = ("nginx", "mongod", "rabbitmq", "mariadbd", "fleet")


@dataclass(frozen=True)
class Line:
    """One quantity: its slope an hour (or a reading) in each run, the bound, and what follows."""

    name: str
    unit: str
    slopes: tuple[float | None, ...]
    bound: float | None
    last: float
    # The slope times the hours that were judged: what it grew by, at most an hour's worth may.
    verdict: str

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return self.verdict != "GROWS"

    def row(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"slopes": self.slopes, "unit": self.unit, "bound": self.bound, "last": self.last} | {
            "verdict": self.verdict
        }


def slope(points: Iterable[tuple[float, float]]) -> float | None:
    """Return the slope of a line through the points by least squares; None for fewer than MIN_SAMPLES."""
    x, y = np.array(list(points), float).reshape(-1, 2).T
    if len(x) < MIN_SAMPLES or x.max() == x.min():
        return None
    return float(np.polyfit(x - x[0], y, 1)[0])


def judged(
    samples: list[Sample],
    name: str,
    unit: str,
    value: Callable[[Sample], float | None],
    bound: float | None,
    settle_h: float,
) -> Line:
    """Fit each run after its first `settle_h` hours.

    What grows by more than the bound an hour GROWS; in runs of less than an hour, what grew by more than the bound in
    all, because slower growth is not distinct from noise there.
    """
    slopes: list[float | None] = []
    verdict, last = "shown", 0.0
    for run in sorted({sample["run"] for sample in samples}):
        points = [
            (sample["hours"], found)
            for sample in samples
            if sample["run"] == run and sample["hours"] >= settle_h and (found := value(sample)) is not None
        ]
        fitted = slope(points)
        slopes.append(fitted)
        last = points[-1][1] if points else last
        if bound is None:
            continue
        hours = points[-1][0] - points[0][0] if points else 0.0
        if fitted is None or hours < MIN_JUDGED_H:
            verdict = verdict if verdict == "GROWS" else "too short"
        elif fitted * min(hours, 1.0) > bound:
            verdict = "GROWS"
        elif verdict == "shown":
            verdict = "flat"
    return Line(name, unit, tuple(slopes), bound, last, verdict)


def lines(samples: list[Sample], settle_h: float) -> list[Line]:
    """Return a line for everything that could leak."""
    if not samples:
        return []

    def of(process: str, what: str, scale: float = 1.0) -> Callable[[Sample], float | None]:
        def found(sample: Sample) -> float | None:
            number = sample["processes"].get(process, {}).get(what)
            return None if number is None else number / scale

        return found

    def top(what: str) -> Callable[[Sample], float | None]:
        return lambda sample: sample.get(what)

    made = [
        judged(samples, f"memory of {name}", "MB", of(name, "bytes", 1e6), bound, settle_h)
        for names, bound in ((OWN, 1.0), (FOREIGN, None))
        for name in names
    ]
    for what, least in (("files", 5.0), ("tasks", 5.0), ("threads", 2.0)):
        for name in OWN:
            found = [number for sample in samples if (number := of(name, what)(sample)) is not None]
            # As many as connections, which come and go: a fiftieth of them is noise.
            bound = max(least, max(found, default=0) / 50)
            made.append(judged(samples, f"{what} of {name}", what, of(name, what), bound, settle_h))
    made += [
        judged(samples, "collections of MongoDB", "collections", top("collections"), 3.0, settle_h),
        judged(samples, "sealed collections waiting", "collections", top("sealed"), 2.0, settle_h),
        judged(samples, "messages in the queue", "messages", top("queue"), 50.0, settle_h),
        judged(samples, "lag of persisters", "s", top("lag"), 0.5, settle_h),
    ]
    return made


def disk_line(samples: list[Sample], settle_h: float, bound: float) -> Line:
    """Return the growth of MongoDB's readings and indexes a reading acknowledged, over all runs."""
    first = min((sample["run"] for sample in samples), default=0)
    points = [
        (float(sample["acknowledged"]), float(sample["stored_bytes"]))
        for sample in samples
        if "stored_bytes" in sample and (sample["run"] > first or sample["hours"] >= settle_h)
    ]
    fitted = slope(points)
    hours = sum(
        max(sample["hours"] for sample in samples if sample["run"] == run) - settle_h
        for run in {sample["run"] for sample in samples}
    )
    verdict = "too short" if fitted is None or hours < MIN_JUDGED_H else "GROWS" if fitted > bound else "flat"
    last = points[-1][1] / points[-1][0] if points and points[-1][0] else 0.0
    return Line("disk of a reading, all runs", "bytes", (fitted,), bound, last, verdict)


def table(made: list[Line]) -> str:
    """Return the lines as text: slope an hour in each run, bound, last value, verdict."""
    head = f"{'what':32}{'slope an hour, by run':>34}  {'bound':>8}{'last':>12}  verdict"
    rows = [head]
    for line in made:
        slopes = "  ".join("-" if one is None else f"{one:+,.2f}" for one in line.slopes)
        bound = "" if line.bound is None else f"{line.bound:,.1f}"
        rows.append(f"{line.name:32}{slopes:>34}  {bound:>8}{line.last:>12,.2f}  {line.verdict} ({line.unit})")
    return "\n".join(rows)
