"""What a gateway counts. No label grows with devices.

What every event touches is bound once and counts in place: finding a label's child costs as much as decoding a reading.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from runtime.metrics import preset_labels

# The codes of refused connects, and why the gateway cuts a socket off; tests/test_metrics.py holds both complete.
REFUSALS = (
    "unauthorized",
    "expired",
    "revoked",
    "forbidden",
    "device_required",
    "unavailable",
    "rate_limited",
    "busy",
)
CUTS = (
    "no_connect",
    "namespace",
    "refused",
    "malformed",
    "binary",
    "no_text",
    "frame",
    "unread",
    "silent",
    "fault",
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class QuickHistogram(Collector):
    """A histogram for one thread: no lock, 0.2 µs an observation instead of 1.3 µs."""

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, amount: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def collect(self) -> Iterator[Metric]:
        """Give the metric as it stands."""
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, self._sum)


class ReadingCounts(Collector):
    """Readings by answer, counted as plain integers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = 0
        self.rejected = 0
        self.retry = 0
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Give the metric as it stands."""
        family = CounterMetricFamily("tidegate_gateway_readings", "Readings by answer", labels=["answer"])
        for answer in ("accepted", "rejected", "retry"):
            family.add_metric([answer], getattr(self, answer))
        yield family


class GatewayMetrics:
    """The gateway's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge("tidegate_gateway_connections", "Devices connected now", registry=registry)
        self.connects = Counter(
            "tidegate_gateway_connects_total", "Connects by outcome", ["outcome"], registry=registry
        )
        self.cut = Counter(
            "tidegate_gateway_cut_total", "Sockets that the gateway ended, by reason", ["reason"], registry=registry
        )
        self.limited = Counter(
            "tidegate_gateway_limited_total", "Events refused by a rate, by whose it is", ["scope"], registry=registry
        )
        self.ended = Counter(
            "tidegate_gateway_ended_total", "Sessions that ended with their token, by why", ["why"], registry=registry
        )
        preset_labels(self.connects, "accepted", *REFUSALS)
        preset_labels(self.cut, *CUTS)
        preset_labels(self.limited, "device", "owner")
        preset_labels(self.ended, "expired", "revoked")
        self.malformed = Counter(
            "tidegate_gateway_malformed_total", "Packets that no device of this protocol sends", registry=registry
        )
        self.faults = Counter(
            "tidegate_gateway_faults_total", "Events that a fault of ours left undone", registry=registry
        )
        self.readings = ReadingCounts(registry)
        self.answer_seconds = QuickHistogram(
            "tidegate_gateway_answer_seconds", "From event to answer", _SECONDS, registry
        )
        self.messages = Counter(
            "tidegate_gateway_messages_total",
            "Messages by what became of their publish",
            ["outcome"],
            registry=registry,
        )
        preset_labels(
            self.messages, "confirmed", "ConfirmLate", "QueueFull", "Unroutable", "BrokerUnavailable", "BrokerRefused"
        )
        self.confirm_seconds = Histogram(
            "tidegate_gateway_confirm_seconds", "From publish to confirm", buckets=_SECONDS, registry=registry
        )
        self.waiting_bytes = Gauge(
            "tidegate_gateway_waiting_bytes", "Readings taken in and not yet confirmed", registry=registry
        )
