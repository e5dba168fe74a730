"""The metrics of the simulator's service. No label grows with owners or devices."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from runtime.metrics import preset_labels
from simulator.reading import ReadingOutcome


class SimulatorMetrics:
    """The simulator's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.devices = Gauge("tidegate_simulator_devices", "Running devices", registry=registry)
        self.readings = Counter(
            "tidegate_simulator_readings_total", "Readings by outcome", ["outcome"], registry=registry
        )
        preset_labels(self.readings, *(outcome.value for outcome in ReadingOutcome))
