"""The samples of a soak as a plot."""

from collections.abc import Callable

from bench.plot import curves
from tests.soak.samples import Sample
from tests.soak.slopes import FOREIGN, OWN

# A curve of hours needs no more.
MAX_POINTS = 400
Curve = list[tuple[float, float]]


def plot(samples: list[Sample]) -> str:
    """Return an SVG: memory, files, tasks and threads of each process, collections, disk, queue and lag over hours."""
    hours, begin, run = [], 0.0, None
    for sample in samples:
        if run is not None and sample["run"] != run:
            begin = hours[-1]
        run = sample["run"]
        hours.append(begin + sample["hours"])
    step = max(1, len(samples) // MAX_POINTS)

    def curve(value: Callable[[Sample], float | None]) -> Curve:
        pairs = list(zip(hours, samples, strict=True))[::step]
        return [(hour, found) for hour, sample in pairs if (found := value(sample)) is not None]

    def of(process: str, what: str, scale: float = 1.0) -> Callable[[Sample], float | None]:
        def found(sample: Sample) -> float | None:
            number = sample["processes"].get(process, {}).get(what)
            return None if number is None else number / scale

        return found

    def top(what: str, scale: float = 1.0) -> Callable[[Sample], float | None]:
        return lambda sample: sample[what] / scale if what in sample else None

    panels = {
        "memory, MB": {name: curve(of(name, "bytes", 1e6)) for name in OWN},
        "memory of the others, MB": {name: curve(of(name, "bytes", 1e6)) for name in FOREIGN},
        "open files": {name: curve(of(name, "files")) for name in OWN},
        "asyncio tasks": {name: curve(of(name, "tasks")) for name in OWN},
        "threads": {name: curve(of(name, "threads")) for name in OWN},
        "collections": {"all": curve(top("collections")), "sealed": curve(top("sealed"))},
        "readings, thousands": {"acknowledged": curve(top("acknowledged", 1000))},
        "MongoDB's readings, MB": {"on disk": curve(top("stored_bytes", 1e6))},
        "queue, messages": {"waiting": curve(top("queue"))},
        "lag, s": {"of persisters": curve(top("lag"))},
        "devices": {"connected": curve(top("connected"))},
    }
    return curves("A soak: what runs, over hours", "h", panels)
