"""Metrics with one label whose values are known in advance: every series exists from the start, at zero.

A series that appears only with its first event has no rate over that event, and a dashboard shows nothing where it
should show zero.
"""

from typing import TypeVar

from prometheus_client import Counter, Histogram

Metric = TypeVar("Metric", Counter, Histogram)


def preset_labels(metric: Metric, *values: str) -> Metric:
    """Create a series for each value of the metric's only label, and return the metric."""
    for value in values:
        metric.labels(value)
    return metric
