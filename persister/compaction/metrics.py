"""The compactor's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class CompactorMetrics:
    """The metrics of one compactor in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "tidegate_compactor_waiting", "Sealed collections that wait for compaction", registry=registry
        )
        self.oldest_seconds = Gauge(
            "tidegate_compactor_oldest_seconds", "Age in seconds of the oldest of them", registry=registry
        )
        self.given_up = Gauge(
            "tidegate_compactor_given_up",
            "Sealed collections that failed three times and stay where they are",
            registry=registry,
        )
        self.sealed_bytes = Gauge(
            "tidegate_compactor_sealed_bytes", "Bytes of the sealed collections with their indexes", registry=registry
        )
        self.readings = Counter(
            "tidegate_compactor_readings_total", "Readings of sealed collections that were compacted", registry=registry
        )
        self.repeats = Counter(
            "tidegate_compactor_repeats_total",
            "Readings that were sent again after their first copy had been sealed",
            registry=registry,
        )
        self.written_bytes = Counter(
            "tidegate_compactor_written_bytes_total",
            "Bytes of columns written, of blocks and pieces",
            registry=registry,
        )
        self.blocks = Counter("tidegate_compactor_blocks_total", "Blocks written", registry=registry)
        self.pieces = Counter("tidegate_compactor_pieces_total", "Pieces written", registry=registry)
        self.dropped = Counter(
            "tidegate_compactor_dropped_total", "Sealed collections that were compacted and dropped", registry=registry
        )
        self.expired = Counter(
            "tidegate_compactor_expired_total",
            "Readings past their retention that were cut off blocks and pieces with newer ones",
            registry=registry,
        )
        self.failures = Counter(
            "tidegate_compactor_failures_total", "Failed attempts to compact a sealed collection", registry=registry
        )
