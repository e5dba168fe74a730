"""What a gateway counts. No label grows with devices."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class GatewayMetrics:
    """The gateway's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connections = Gauge("tidegate_gateway_connections", "Devices connected now", registry=registry)
        self.connects = Counter(
            "tidegate_gateway_connects_total", "Connects by outcome", ["outcome"], registry=registry
        )
        self.readings = Counter("tidegate_gateway_readings_total", "Readings by answer", ["answer"], registry=registry)
        self.answer_seconds = Histogram(
            "tidegate_gateway_answer_seconds", "From event to answer", buckets=_SECONDS, registry=registry
        )
        self.messages = Counter(
            "tidegate_gateway_messages_total",
            "Messages by what became of their publish",
            ["outcome"],
            registry=registry,
        )
        self.confirm_seconds = Histogram(
            "tidegate_gateway_confirm_seconds", "From publish to confirm", buckets=_SECONDS, registry=registry
        )
        self.waiting_bytes = Gauge(
            "tidegate_gateway_waiting_bytes", "Readings taken in and not yet confirmed", registry=registry
        )
