"""Metrics with one label, whose values are known: each is there from the start, at zero.

A series that only begins with its first event has no rate over that event, and where zero should be shown a dashboard
shows nothing.
"""

from typing import TypeVar

from prometheus_client import Counter, Histogram

Metric = TypeVar("Metric", Counter, Histogram)


def preset_labels(metric: Metric, *values: str) -> Metric:
    """Make a series for each value of the metric's one label, and return the metric."""
    for value in values:
        metric.labels(value)
    return metric
