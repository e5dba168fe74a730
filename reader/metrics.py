"""The reader's metrics. No label grows with owners or devices."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.metrics import preset_labels

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ReaderMetrics:
    """The reader's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.query_seconds = Histogram(
            "tidegate_reader_query_seconds",
            "Duration of a request for history, until its last byte is written",
            ["call"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "tidegate_reader_failures_total", "Requests that failed because MongoDB did not respond", registry=registry
        )
        self.busy = Counter(
            "tidegate_reader_busy_total", "Requests rejected at a concurrency limit", ["scope"], registry=registry
        )
        self.readings = Counter(
            "tidegate_reader_readings_total", "Readings returned, by kind of request", ["how"], registry=registry
        )
        preset_labels(
            self.query_seconds, "readings", "export", "buckets", "latest", "series", "search", "stored", "gaps"
        )
        preset_labels(self.busy, "owner", "everybody")
        preset_labels(self.readings, "page", "latest", "search", "export", "stored")
        self.catalogue_seconds = Histogram(
            "tidegate_reader_catalogue_seconds",
            "Time to list and sort the series of an owner for searches",
            buckets=_SECONDS,
            registry=registry,
        )
        self.catalogue_series = Gauge(
            "tidegate_reader_catalogue_series",
            "Series of all owners cached in memory for searches",
            registry=registry,
        )
        self.names_missing = Counter(
            "tidegate_reader_names_missing_total",
            "Lists for searches built without device names or with stale ones because auth did not respond in time",
            registry=registry,
        )
        self.live_feeds = Gauge("tidegate_reader_live_feeds", "Open live feeds", registry=registry)
        self.live_ended = Counter(
            "tidegate_reader_live_ended_total", "Live feeds ended, by reason", ["why"], registry=registry
        )
        preset_labels(self.live_ended, "gone", "slow", "expired", "revoked", "stopping")
        self.live_lag_seconds = Histogram(
            "tidegate_reader_live_lag_seconds",
            "Time from a gateway's receipt of a reading to the live feed",
            buckets=_SECONDS,
            registry=registry,
        )
        self.live_unreadable = Counter(
            "tidegate_reader_live_unreadable_total",
            "Broadcast documents skipped because they are not valid readings",
            registry=registry,
        )
        self.live_skipped = Counter(
            "tidegate_reader_live_skipped_total",
            "Events dropped from a live feed because its client is slow",
            registry=registry,
        )
