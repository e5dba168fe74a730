"""What is asked of Tidegate beside what one would otherwise take, and whether it holds."""

from bench.report import Figure
from bench.systems import CLUSTERED, FLOOR, NODE_MONGODB, NODE_RABBITMQ, OURS, PEERS, PYTHON
from bench.turns import Turns, Workload

W1 = Workload("1 reading an event, 20 connections x 10 in flight", 1, 20, 10)
W1_WIDE = Workload("1 reading an event, 200 connections x 2 in flight", 1, 200, 2)
W100 = Workload("100 readings an event, 20 connections x 10 in flight", 100, 20, 10)
WORKLOADS = (W1, W1_WIDE, W100)

# How many times the processor time of Tidegate each has to take at least.
TIMES_AS_DEAR = {
    NODE_MONGODB: {W1: 12.0, W1_WIDE: 12.0, W100: 3.5},
    NODE_RABBITMQ: {W1: 4.0, W1_WIDE: 4.0, W100: 10.0},
    PYTHON: {W1: 15.0, W1_WIDE: 15.0, W100: 40.0},
}
TO_THE_FLOOR = 2.2
STORED_PER_SECOND = {W1: 25_000, W1_WIDE: 25_000, W100: 230_000}
P50_P99_MS = {W1: (5.0, 25.0), W100: (8.0, 40.0)}

Found = dict[tuple[Workload, str], Turns]
Waits = dict[Workload, tuple[float, float]]


def figures_of(found: Found, waits: Waits) -> list[Figure]:
    """Return every figure beside what is asked of it."""
    figures: list[Figure] = []
    for workload in WORKLOADS:
        ours = found[workload, OURS]
        figures.append(Figure(f"{workload.name}: {OURS}, all processes", ours.total_us, "µs a reading"))
        figures.append(Figure("  the load's own beside it", ours.load_us, "µs a reading"))
        if (workload, CLUSTERED) in found:
            figures.append(Figure(f"  {CLUSTERED}", found[workload, CLUSTERED].total_us, "µs a reading"))
        for peer in PEERS:
            if (workload, peer) in found:
                figures += _beside(peer, found[workload, peer], ours, TIMES_AS_DEAR[peer][workload])
        if workload is W100 and (workload, FLOOR) in found:
            floor = found[workload, FLOOR].total_us
            figures.append(Figure(f"  {FLOOR}, client and mongod", floor, "µs a reading"))
            figures.append(Figure(f"    {OURS}, of that", ours.total_us / floor, "x", TO_THE_FLOOR))
        rate = STORED_PER_SECOND[workload]
        figures.append(Figure("  stored, the load on the same machine", ours.per_second, "readings/s", at_least=rate))
        if workload in waits:
            for name, value, most in zip(("p50", "p99"), waits[workload], P50_P99_MS[workload], strict=True):
                figures.append(Figure(f"  acknowledged at half of saturation: {name}", value, "ms", most))
    return figures


def _beside(peer: str, theirs: Turns, ours: Turns, asked: float) -> list[Figure]:
    figures = [
        Figure(f"  {peer}", theirs.total_us, "µs a reading"),
        Figure("    the load's own beside it", theirs.load_us, "µs a reading"),
        Figure(f"    times as dear as {OURS}", theirs.total_us / ours.total_us, "x", at_least=asked),
    ]
    if theirs.lost:
        figures.append(Figure("    acknowledged, but not stored", theirs.lost, "readings"))
    return figures


def table_of(found: Found) -> dict[str, dict[str, float]]:
    """Return a row for each workload and system."""
    return {f"{workload.name}: {name}": turns.row() for (workload, name), turns in found.items()}
