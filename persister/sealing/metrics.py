"""The metrics of sealing. No label grows with anything."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class SealingMetrics:
    """The metrics of sealing in one registry. The gauges are of the last check, at most ten seconds old."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seals = Counter("tidegate_persister_seals_total", "Collections sealed by this process", registry=registry)
        self.refused = Counter(
            "tidegate_persister_seals_refused_total",
            "Checks that found a seal due while too many sealed collections wait",
            registry=registry,
        )
        self.waiting = Gauge(
            "tidegate_persister_sealed_waiting", "Sealed collections that wait to be compacted", registry=registry
        )
        self.oldest_seconds = Gauge(
            "tidegate_persister_sealed_oldest_seconds",
            "Age in seconds of the oldest sealed collection that waits",
            registry=registry,
        )
