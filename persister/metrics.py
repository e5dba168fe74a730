"""The persister's metrics. No label grows with the number of devices."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from broker.topology import BACKFILL, READINGS
from persister.sealing.metrics import SealingMetrics
from runtime.metrics import preset_labels

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
# The operations that are retried; tests/test_metrics.py checks that the list is complete.
RETRIED = (
    "collections",
    "readings",
    "series",
    "probe",
    "question",
    "acknowledgement",
    "dead letter",
    "tombstone",
    "tombstones",
    "announcement",
)
_READINGS = (1, 10, 50, 100, 250, 500, 1000, 2000, 4000)


class LaneMetrics:
    """The metrics of one queue of readings."""

    def __init__(self, registry: CollectorRegistry, queue: str, prefix: str = "") -> None:
        """Register them; `prefix` begins the names of what is not the live lane."""
        self.depth = Gauge(
            f"tidegate_persister_{prefix}queue_depth",
            f"Messages waiting in {queue}, when last checked",
            registry=registry,
        )
        self.lag_seconds = Gauge(
            f"tidegate_persister_{prefix}lag_seconds",
            f"Age in seconds of the oldest reading delivered from {queue} that is not stored yet, from its receipt on",
            registry=registry,
        )
        self.parked = Gauge(
            f"tidegate_persister_{prefix}parked",
            f"Messages of {queue} waiting for the dead-letter queue",
            registry=registry,
        )


class PersisterMetrics:
    """The persister's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.readings = Counter(
            "tidegate_persister_readings_total", "Readings settled, by outcome", ["outcome"], registry=registry
        )
        preset_labels(self.readings, "stored", "duplicate", "dead", "erased")
        self.dead_letters = Counter(
            "tidegate_persister_dead_letters_total", "Dead letters published, by reason", ["reason"], registry=registry
        )
        preset_labels(self.dead_letters, "undecodable", "newer_schema", "refused", "too_often")
        self.unannounced = Counter(
            "tidegate_persister_unannounced_total",
            "Messages to alarms that their queue did not take: what rules watch was stored, and not evaluated",
            registry=registry,
        )
        self.duplicates = Counter(
            "tidegate_persister_duplicates_total", "Readings that were already stored", registry=registry
        )
        self.write_seconds = Histogram(
            "tidegate_persister_write_seconds", "Seconds that one bulk write took", buckets=_SECONDS, registry=registry
        )
        self.batch_readings = Histogram(
            "tidegate_persister_batch_readings", "Readings per bulk write", buckets=_READINGS, registry=registry
        )
        self.retries = Counter(
            "tidegate_persister_retries_total",
            "Failed attempts that were retried, by operation",
            ["what"],
            registry=registry,
        )
        preset_labels(self.retries, *RETRIED)
        self.live = LaneMetrics(registry, READINGS.name)
        self.backfill = LaneMetrics(registry, BACKFILL.name, "backfill_")
        self.removed = Counter(
            "tidegate_persister_removed_total", "Stored readings removed, by cause", ["why"], registry=registry
        )
        preset_labels(self.removed, "erasure", "retention")
        self.sealing = SealingMetrics(registry)
