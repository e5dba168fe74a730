"""The metrics of a gateway. No label's values grow with the number of devices.

What every event counts is kept in `gateway/counts.py` and only shown here; other metrics are bound once, because a
lookup by label costs as much as decoding a reading.
"""

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from broker.commands import Outcome
from gateway.counts import DurationCounts, ReadingCounts
from runtime.metrics import preset_labels

# The codes of refused connects, and the causes of closing a socket; tests/test_metrics.py checks that none is missing.
REFUSAL_CODES = (
    "unauthorized",
    "expired",
    "revoked",
    "forbidden",
    "device_required",
    "unavailable",
    "rate_limited",
    "busy",
)
CUT_REASONS = (
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


class _Durations(Collector):
    def __init__(self, name: str, documentation: str, durations: DurationCounts, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._durations = durations
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric with its current values."""
        durations = self._durations
        buckets: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, durations.bounds), "+Inf"), durations.counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, durations.total_s)


class _Readings(Collector):
    def __init__(self, counts: ReadingCounts, registry: CollectorRegistry) -> None:
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric with its current values."""
        family = CounterMetricFamily(
            "tidegate_gateway_readings", "Readings by acknowledgement: accepted, rejected or retry", labels=["answer"]
        )
        for answer in ("accepted", "rejected", "retry"):
            family.add_metric([answer], getattr(self._counts, answer))
        yield family


class GatewayMetrics:
    """The gateway's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open_sessions = 0
        Gauge("tidegate_gateway_connections", "Sessions open now", registry=registry).set_function(
            lambda: self.open_sessions
        )
        self.connects = Counter(
            "tidegate_gateway_connects_total", "Connection attempts by outcome", ["outcome"], registry=registry
        )
        self.cut = Counter(
            "tidegate_gateway_cut_total", "Sockets closed by the gateway, by reason", ["reason"], registry=registry
        )
        self.limited = Counter(
            "tidegate_gateway_limited_total",
            "Events refused by a rate limit, by its scope",
            ["scope"],
            registry=registry,
        )
        self.ended = Counter(
            "tidegate_gateway_ended_total",
            "Sessions ended because their token expired or was revoked",
            ["why"],
            registry=registry,
        )
        self.receipts = Counter(
            "tidegate_gateway_receipts_total",
            "Readings whose storage was announced to a session that asked for it, by outcome",
            ["outcome"],
            registry=registry,
        )
        preset_labels(self.receipts, "sent", "dropped")
        preset_labels(self.connects, "accepted", *REFUSAL_CODES)
        preset_labels(self.cut, *CUT_REASONS)
        preset_labels(self.limited, "device", "owner")
        preset_labels(self.ended, "expired", "revoked")
        self.malformed = Counter(
            "tidegate_gateway_malformed_total", "Packets that are not part of the protocol", registry=registry
        )
        self.faults = Counter(
            "tidegate_gateway_faults_total", "Events and packets that failed with an internal error", registry=registry
        )
        self.commands = Counter(
            "tidegate_gateway_commands_total",
            "Commands to sessions of this gateway, by outcome",
            ["outcome"],
            registry=registry,
        )
        preset_labels(self.commands, *get_args(Outcome))
        self.readings = ReadingCounts()
        _Readings(self.readings, registry)
        self.answer_seconds = DurationCounts(_SECONDS)
        _Durations(
            "tidegate_gateway_answer_seconds",
            "Time from an event to its acknowledgement",
            self.answer_seconds,
            registry,
        )
        self.messages = Counter(
            "tidegate_gateway_messages_total",
            "Messages published to the broker, by outcome",
            ["outcome"],
            registry=registry,
        )
        preset_labels(
            self.messages, "confirmed", "ConfirmLate", "QueueFull", "Unroutable", "BrokerUnavailable", "BrokerRefused"
        )
        self.confirm_seconds = Histogram(
            "tidegate_gateway_confirm_seconds",
            "Time from a publish to its confirm",
            buckets=_SECONDS,
            registry=registry,
        )
        self.backfilled = Counter(
            "tidegate_gateway_backfilled_total",
            "Readings confirmed that took the backfill lane, because they were late by their own clock",
            registry=registry,
        )
        self.waiting_bytes = Gauge(
            "tidegate_gateway_waiting_bytes", "Bytes of readings received and not yet confirmed", registry=registry
        )
