"""The metrics of `alarms`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runtime.metrics import preset_labels


class AlarmsMetrics:
    """Counts of one process; those of evaluation grow in the one that leads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rules = Gauge("tidegate_alarms_rules", "Rules of all owners.", registry=registry)
        self.leading = Gauge(
            "tidegate_alarms_leading", "1 while this process evaluates; of all, one does.", registry=registry
        )
        self.evaluated = Counter(
            "tidegate_alarms_evaluated_readings_total", "Announced readings that were evaluated.", registry=registry
        )
        self.late = Counter(
            "tidegate_alarms_late_readings_total",
            "Announced readings behind one that was evaluated before them.",
            registry=registry,
        )
        self.undecodable = Counter(
            "tidegate_alarms_undecodable_total", "Announcements that could not be decoded.", registry=registry
        )
        self.changes = Counter(
            "tidegate_alarms_changes_total", "Changes of alarms, by their new state.", ("what",), registry=registry
        )
        preset_labels(self.changes, "ok", "pending", "firing", "acknowledged")
        self.deliveries = Counter(
            "tidegate_alarms_deliveries_total",
            "Attempts to deliver a notification: delivered, failed (it is tried again), dead (it was given up).",
            ("outcome",),
            registry=registry,
        )
        preset_labels(self.deliveries, "delivered", "failed", "dead")
        self.delivery_seconds = Histogram(
            "tidegate_alarms_delivery_seconds",
            "From the time at which a notification was due to its delivery.",
            buckets=(0.1, 0.25, 0.5, 1, 2, 5, 30, 300, 3600, 86_400),
            registry=registry,
        )
        self.emails = Counter(
            "tidegate_alarms_emails_total",
            "Mails, of notifications and codes: sent, refused (for good), failed (anything else).",
            ("outcome",),
            registry=registry,
        )
        preset_labels(self.emails, "sent", "refused", "failed")
