"""The targets of Tidegate relative to its alternatives, and the figures that are checked against them."""

from bench.measurements import Measurements, Workload
from bench.report import Figure
from bench.systems import BEFORE, CLUSTERED, FLOOR, NODE_MONGODB, NODE_RABBITMQ, PEERS, PURE, PYTHON, TIDEGATE, VERSIONS

W1 = Workload("1 reading an event, 20 connections x 10 in flight", 1, 20, 10)
W1_WIDE = Workload("1 reading an event, 200 connections x 2 in flight", 1, 200, 2)
W100 = Workload("100 readings an event, 20 connections x 10 in flight", 100, 20, 10)
WORKLOADS = (W1, W1_WIDE, W100)

# The minimum ratio of each alternative's CPU time to Tidegate's.
MIN_COST_RATIO = {
    NODE_MONGODB: {W1: 12.0, W1_WIDE: 12.0, W100: 3.5},
    NODE_RABBITMQ: {W1: 6.0, W1_WIDE: 4.0, W100: 10.0},
    PYTHON: {W1: 15.0, W1_WIDE: 15.0, W100: 40.0},
}
MAX_FLOOR_RATIO = 2.2
MIN_STORED_PER_SECOND = {W1: 25_000, W1_WIDE: 25_000, W100: 230_000}
MAX_P50_P99_MS = {W1: (5.0, 25.0), W100: (8.0, 40.0)}

# Of the commit that the systems are compared with: all processes, one process. For the compiled build and without it.
MAX_OF_BEFORE = {W1: 0.70, W100: 0.85}
MAX_PART_OF_BEFORE = {W1: ("gateway", 0.6), W100: ("persister", 0.6)}

Found = dict[tuple[Workload, str], Measurements]
AckLatencies = dict[Workload, tuple[float, float]]


def figures_of(found: Found, acks: AckLatencies) -> list[Figure]:
    """Return every figure with its target."""
    figures: list[Figure] = []
    for workload in WORKLOADS:
        ours = found[workload, TIDEGATE]
        figures.append(Figure(f"{workload.name}: {TIDEGATE}, all processes", ours.total_us, "µs a reading"))
        figures.append(Figure("  the load's own beside it", ours.load_us, "µs a reading"))
        if (workload, CLUSTERED) in found:
            figures.append(Figure(f"  {CLUSTERED}", found[workload, CLUSTERED].total_us, "µs a reading"))
        figures += _versions_figures(workload, found)
        for peer in PEERS:
            if (workload, peer) in found:
                figures += _peer_figures(peer, found[workload, peer], ours, MIN_COST_RATIO[peer][workload])
        if workload is W100 and (workload, FLOOR) in found:
            floor = found[workload, FLOOR].total_us
            figures.append(Figure(f"  {FLOOR}, client and mongod", floor, "µs a reading"))
            figures.append(Figure(f"    {TIDEGATE}, of that", ours.total_us / floor, "x", MAX_FLOOR_RATIO))
        rate = MIN_STORED_PER_SECOND[workload]
        figures.append(Figure("  stored, the load on the same machine", ours.per_second, "readings/s", at_least=rate))
        if workload in acks:
            for name, value, most in zip(("p50", "p99"), acks[workload], MAX_P50_P99_MS[workload], strict=True):
                figures.append(Figure(f"  acknowledged at half of saturation: {name}", value, "ms", most))
    return figures


def _versions_figures(workload: Workload, found: Found) -> list[Figure]:
    """Return what Tidegate takes of other versions of itself; what has a target has one for both builds."""
    figures = []
    for version in VERSIONS:
        if (theirs := found.get((workload, version))) is not None:
            figures.append(Figure(f"  {version}", theirs.total_us, "µs a reading"))
            figures += _ratio_figures(TIDEGATE, workload, found[workload, TIDEGATE], theirs, targets=version == BEFORE)
    if (pure := found.get((workload, PURE))) is None:
        return figures
    if (before := found.get((workload, BEFORE))) is not None:
        figures += _ratio_figures(PURE, workload, pure, before, targets=True)
    if workload is W1 and (node := found.get((workload, NODE_RABBITMQ))) is not None:
        least = MIN_COST_RATIO[NODE_RABBITMQ][workload]
        what = f"    {NODE_RABBITMQ}: times as dear as {PURE}"
        figures.append(Figure(what, node.total_us / pure.total_us, "x", at_least=least))
    return figures


def _ratio_figures(
    build: str, workload: Workload, ours: Measurements, theirs: Measurements, *, targets: bool
) -> list[Figure]:
    limit = MAX_OF_BEFORE.get(workload) if targets else None
    figures = [Figure(f"    {build}, of that", ours.total_us / theirs.total_us, "x", limit)]
    for process in ("gateway", "persister"):
        name, most = MAX_PART_OF_BEFORE.get(workload, ("", 0.0))
        part = ours.row()[process] / theirs.row()[process]
        figures.append(Figure(f"    its {process}, of that", part, "x", most if targets and name == process else None))
    return figures


def _peer_figures(peer: str, theirs: Measurements, ours: Measurements, min_ratio: float) -> list[Figure]:
    figures = [
        Figure(f"  {peer}", theirs.total_us, "µs a reading"),
        Figure("    the load's own beside it", theirs.load_us, "µs a reading"),
        Figure(f"    times as dear as {TIDEGATE}", theirs.total_us / ours.total_us, "x", at_least=min_ratio),
    ]
    if theirs.lost:
        figures.append(Figure("    acknowledged, but not stored", theirs.lost, "readings"))
    return figures


def table_of(found: Found) -> dict[str, dict[str, float]]:
    """Return one row per workload and system."""
    return {f"{workload.name}: {name}": measurements.row() for (workload, name), measurements in found.items()}


# History. Bytes a reading on disk: 1 Hz with two decimals, 1 Hz and each 5 min with full precision.
MAX_BYTES_A_READING = (4.0, 8.5, 8.5)
# Everything else is relative to the version before blocks. Buckets of a week to the same there, of a month and of a
# year to those of one day; short questions by the number of sealed collections that wait.
MAX_WEEK_RATIO = 1 / 20
MAX_WARM_RATIO, MAX_COLD_RATIO = 0.3, 1.0
MIN_CSV_RATIO, MIN_PARQUET_RATIO = 4.0, 14.0
MAX_READ_RATIO = {0: 1.3, 8: 2.0}
# Compaction: of the cost of W100; bytes of memory; how many times what W100 stores.
MAX_COMPACTION_RATIO, MAX_COMPACTION_MIB, MIN_COMPACTION_RATE = 0.3, 300e6 / 1024**2, 2.0
MAX_INGEST_RATIO = 1.03
MAX_SEAL_RATIO = 2.0
MAX_BLOCKS_RATIO = 1.1
MAX_ERASURE_RATIO = 1 / 200
