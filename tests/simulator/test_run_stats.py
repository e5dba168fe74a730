import random

from simulator.reading import ReadingOutcome
from simulator.run_stats import LatencyHistogram, RunStats


def test_percentiles_are_right_within_one_percent() -> None:
    drawn = random.Random(7)
    values = [drawn.lognormvariate(-5, 2) for _ in range(5000)]
    latencies = LatencyHistogram()
    for value in values:
        latencies.add(value)
    values.sort()
    for percent in (1, 50, 99):
        exact_ms = values[int(len(values) * percent / 100) - 1] * 1000
        assert abs(latencies.percentile_ms(percent) - exact_ms) <= exact_ms * 0.0101 + 0.0005


def test_latencies_out_of_bounds_are_counted_and_no_latency_is_zero() -> None:
    latencies = LatencyHistogram()
    assert latencies.percentile_ms(50) == 0
    for value in (0.0, 1e9):
        latencies.add(value)
    assert latencies.count == 2


def test_only_accepted_readings_reach_the_listener() -> None:
    calls = []
    stats = RunStats(lambda *arguments: calls.append(arguments))
    stats.on_sent(3)
    stats.on_settled("d", "t", [(1, 0), (1, 1)], ReadingOutcome.ACCEPTED, 0.01)
    stats.on_settled("d", "t", [(2, 0)], ReadingOutcome.REJECTED, 0.01)
    assert calls == [("d", "t", [(1, 0), (1, 1)])]
    summary = stats.summary()
    assert (summary.sent, summary.acked, summary.accepted, summary.rejected) == (3, 3, 2, 1)
    assert abs(summary.ack_p50_ms - 10) <= 0.1
